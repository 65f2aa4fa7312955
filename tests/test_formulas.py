"""Texts that spreadsheet programs run: written so that they do not, and read as they were."""

import csv
import io
import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import row_files
from frames import NOW, pair_frame, raw_frame
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import ACTIVE, escape, has_control_character, is_formula
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.cli.data_files import read_files
from feedback_etl.data_files.csv_files import list_escaped, scan_text
from feedback_etl.data_files.file_formats import FileFormat, RowWriter
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.options.export import ExportOptions
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.storage.location import open_storage
from feedback_etl.transform import formulas
from feedback_etl.transform.pairs import iter_pairs

HIDDEN = ["\0", "\ufeff", "\u200b", "\u2060", "\u00a0", " ", "\u3000", "\x1b", "\u00ad", "\u202e", "'"]
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from([*ACTIVE, *HIDDEN, "\t", "\r", "\n"]))
ATTACKS = [hidden + active + "cmd|' /C calc'!A0" for hidden in ["", *HIDDEN[:-1]] for active in ACTIVE]
IDS = ["-Nxyz0123", "@handle", "=1+1", "'quoted", "''=2", "rec_1", "\uff1d1", " \u200b+1", "-5"]


def over(values: Sequence[str | None], expression: pl.Expr) -> list[Any]:
    return pl.DataFrame({"x": pl.Series(values, dtype=pl.String)}).select(expression).to_series().to_list()


class TestDetection:
    """One definition, in expressions."""

    @given(st.lists(st.none() | texts, max_size=8))
    @example([*ATTACKS])
    def test_it_is_that_of_plain_python(self, values: list[str | None]) -> None:
        """The oracle asks `unicodedata`; null stays null."""
        found = over(values, formulas.is_formula("x"))
        assert found == [None if text is None else is_formula(text) for text in values]
        found = over(values, formulas.has_control_character("x"))
        assert found == [None if text is None else has_control_character(text) for text in values]

    def test_every_character_that_is_not_shown_is_looked_through(self) -> None:
        """All white space, control and format characters of Unicode; a letter is a word's beginning."""
        hidden = [chr(code) for code in range(sys.maxunicode + 1) if _is_hidden(chr(code))]
        assert all(over([f"{character}=1" for character in hidden], formulas.is_formula("x")))
        assert over(["a=1", "1-2", "_", "", "\u4e00=1"], formulas.is_formula("x")) == [False] * 5

    @pytest.mark.parametrize("text", ATTACKS)
    def test_attacks_are_formulas(self, text: str) -> None:
        """As they are, in full width, and after a NUL, a byte order mark or what has no width."""
        assert over([text], formulas.is_formula("x")) == [True]

    def test_a_column_of_nulls_alone_gives_nulls(self) -> None:
        """Such a column has no type yet."""
        assert pl.DataFrame({"x": [None]}).select(formulas.is_formula("x")).to_series().to_list() == [None]


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf")


class TestFile:
    """What a CSV file holds."""

    @given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=8))
    @example([(text, f"'{text}", "acne") for text in [*ATTACKS, "'", "''", "\t", "\n"]])
    def test_values_come_back_and_no_field_is_active(self, rows: list[tuple[str, str, str]]) -> None:
        """The standard library finds every value but for one apostrophe; no field begins what would be run."""
        frame = pl.DataFrame(rows, schema=["recommendation_id", "timeframe", "conditions_detected"], orient="row")
        fields = [field for row in _written(frame) for field in row]
        assert fields == [escape(text) for row in rows for text in row]
        assert not any(map(is_formula, fields))
        assert over(fields, formulas.unescape("x")) == [text for row in rows for text in row]

    @given(st.lists(st.tuples(texts.filter(bool), texts.filter(bool)), min_size=1, max_size=8))
    def test_polars_reads_the_same_values(self, rows: list[tuple[str, str]]) -> None:
        """As `scan_training` and `scan_text` do, after which the escapes are removed."""
        frame, file = pl.DataFrame(rows, schema=["recommendation_id", "timeframe"], orient="row"), io.BytesIO()
        RowWriter(file, FileFormat(formulas="escape")).append(frame)
        read = pl.read_csv(file.getvalue(), infer_schema=False)
        assert read.with_columns(map(formulas.unescape, read.columns)).rows() == rows

    def test_the_number_of_escaped_texts_is_counted_by_column(self) -> None:
        """Over all frames of a file; columns without any are left out."""
        writer = RowWriter(io.BytesIO(), FileFormat(formulas="escape"))
        for timeframe in ("=1", "'a", "1_week"):
            writer.append(pair_frame({"timeframe": timeframe}))
        assert writer.escaped_texts == {"timeframe": 2}

    @pytest.mark.parametrize("form", [FileFormat(), FileFormat("parquet", formulas="escape")])
    def test_other_files_hold_texts_as_they_are(self, form: FileFormat) -> None:
        """CSV without the option, and Parquet."""
        writer = RowWriter(io.BytesIO(), form)
        writer.append(pair_frame({"timeframe": "=1"}))
        assert not writer.escaped_texts


def _written(frame: pl.DataFrame) -> list[list[str]]:
    file = io.BytesIO()
    RowWriter(file, FileFormat(formulas="escape")).append(frame)
    return list(csv.reader(io.StringIO(file.getvalue().decode(), newline=""), strict=True))[1:]


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """An application whose ids, conditions and timeframes spreadsheets would run."""
    sqlite_database.fill(
        records=[
            {"id": number, "recommendation_id": text, "conditions_analyzed": ["-" + text], "rules_applied": ["r1"]}
            for number, text in enumerate(IDS)
        ],
        feedbacks=[
            {
                **{"id": number, "analysis_id": number, "recommendation_id": number, "helpful_rating": 5},
                **{"timeframe": "@week" if number else None, "created_at": datetime(2025, 10, 25, 10)},
            }
            for number in range(len(IDS))
        ],
    )
    return sqlite_database


def export(application: Database, folder: str = "out", **options: Any) -> fe.ExportReport:
    return fe.export_feedback(application.url, days_back=-1, now=NOW, key=KEY, output_dir=folder, **options)


class TestExport:
    """The three choices, and what reads the results."""

    @pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"k": 1}, {"batch_size": 2}])
    def test_no_row_is_lost_and_readers_restore_the_texts(self, application: Database, options: Any) -> None:
        """The default: every id comes back in every reader, and the file is safe to open."""
        report = export(application, **options)
        assert (report.exported_records, report.rejected_reasons) == (len(IDS), {})
        escaped = sum(text != "rec_1" for text in IDS)
        counts = {"conditions_detected": len(IDS), "recommendation_id": escaped, "timeframe": len(IDS) - 1}
        assert report.escaped_texts == counts
        (manifest,) = list_manifests(Path("out"))
        assert list_escaped(manifest) == ["recommendation_id", "conditions_detected", "timeframe"]
        fields = pl.read_csv(report.export_filename, infer_schema=False)
        assert fields["recommendation_id"].to_list() == [escape(text) for text in IDS]
        text = scan_text(open_storage("out"), manifest).collect()
        named = read_files([Path(report.export_filename)], numeric=(), schema=CLASSIC_SCHEMA).table
        for frame in (fe.scan_training("out").collect(), text, named):
            assert frame["recommendation_id"].to_list() == IDS
            assert frame["conditions_detected"].to_list() == ["-" + text for text in IDS]
            assert frame["timeframe"].to_list() == [None, *["@week"] * (len(IDS) - 1)]

    def test_parquet_never_rejects(self, application: Database) -> None:
        """Options for CSV have no effect: a Parquet file contains the texts unchanged."""
        for option in ("escape", "reject", "allow"):
            report = export(application, option, format="parquet", formulas=option)
            assert (report.exported_records, report.escaped_texts) == (len(IDS), {})
            assert pl.read_parquet(report.export_filename)["recommendation_id"].to_list() == IDS
            assert fe.scan_training(option).collect()["recommendation_id"].to_list() == IDS

    def test_rows_can_be_rejected(self, application: Database) -> None:
        """As before there was a choice; `load_training` gives the same rows."""
        with application.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE recommendation_records SET conditions_analyzed = '[]'")
            connection.exec_driver_sql("UPDATE recommendation_feedbacks SET timeframe = NULL")
        report = export(application, formulas="reject", max_rejected=1.0)
        safe = ["'quoted", "''=2", "rec_1"]
        assert report.rejected_reasons == {"formula": len(IDS) - len(safe)}
        assert (fe.scan_training("out").collect()["recommendation_id"].to_list(), report.escaped_texts) == (safe, {})
        options = ExportOptions.from_keywords(formulas="reject", max_rejected=1.0)
        loaded = fe.load_training(application.url, options=options, days_back=-1, now=NOW, key=KEY)
        assert loaded["recommendation_id"].to_list() == safe

    def test_texts_can_be_written_as_they_are(self, application: Database) -> None:
        """For files that no spreadsheet opens."""
        report = export(application, formulas="allow")
        assert report.escaped_texts == {}
        assert pl.read_csv(report.export_filename, infer_schema=False)["recommendation_id"].to_list() == IDS
        assert fe.scan_training("out").collect()["recommendation_id"].to_list() == IDS

    def test_the_same_pair_of_both_forms_is_one(self, application: Database) -> None:
        """An escaped file and one that is not, of one window, hold the same pairs."""
        export(application)
        export(application, formulas="allow")
        assert fe.scan_training("out").collect().height == len(IDS)

    def test_parts_are_escaped_as_one_file_is(self, application: Database, tmp_path: Path) -> None:
        """Their counts are added up in the manifest, with and without k."""
        from concurrent.futures import ThreadPoolExecutor

        whole = export(application)
        for k in (None, 1):
            with ThreadPoolExecutor(2) as executor, pytest.MonkeyPatch.context() as patch:
                patch.setenv("FEEDBACK_ETL_DATABASE_URL", application.url)
                report = export(application, str(tmp_path / f"parts {k}"), executor=executor, k=k)
            assert report.escaped_texts == whole.escaped_texts
            rows = fe.scan_training(tmp_path / f"parts {k}").collect()
            assert rows["recommendation_id"].to_list() == IDS

    def test_an_erasure_keeps_the_other_rows_as_they_are(self, application: Database) -> None:
        """Their bytes, and so their escaped texts."""
        export(application)
        assert fe.privacy.erase("out", analysis_ids=[0], keys=[KEY]).rows == 1
        assert fe.scan_training("out").collect()["recommendation_id"].to_list() == IDS[1:]

    def test_a_control_character_rejects_its_row_with_its_own_reason(self, application: Database) -> None:
        """In every form of file; tabs and line ends are texts."""
        with application.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE recommendation_feedbacks SET timeframe = '1' || char(27) WHERE id = 1")
            connection.exec_driver_sql("UPDATE recommendation_feedbacks SET timeframe = '1' || char(9, 13, 10)")
            connection.exec_driver_sql("UPDATE recommendation_feedbacks SET timeframe = '1' || char(27) WHERE id = 1")
        for form in ("csv", "parquet"):
            report = export(application, form, format=form, formulas="allow")
            assert (report.exported_records, report.rejected_reasons) == (len(IDS) - 1, {"control_character": 1})

    def test_files_without_the_record_are_read_as_they_are(self, application: Database) -> None:
        """Those of versions that rejected formulas: an apostrophe at the beginning is the text's own."""
        export(application, formulas="allow")
        (path,) = Path("out").glob("*.manifest.json")
        manifest = json.loads(path.read_text())
        del manifest["statistics"]["escaped_texts"]
        for statistics in (manifest["statistics"], manifest["statistics"] | {"escaped_texts": 5}):
            (parsed,) = list_manifests(Path("out"))
            parsed.statistics = statistics
            assert list_escaped(parsed) == []

    def test_an_incremental_series_goes_on_whatever_is_escaped(self, application: Database) -> None:
        """The option decides how texts are written; only rejecting decides about rows, and begins another series."""
        assert export(application, incremental=True).exported_records == len(IDS)
        assert export(application, incremental=True, formulas="allow").exported_records == 0
        (manifest,) = list_manifests(Path("out"))
        assert "formulas" not in manifest.settings
        with pytest.raises(ValidationError, match="formula"):
            export(application, incremental=True, formulas="reject", new_series=True)

    def test_an_unknown_choice_is_refused(self, application: Database) -> None:
        """Before anything is read."""
        with pytest.raises(UsageError, match='`formulas` must be "escape", "reject" or "allow"'):
            export(application, formulas="escap")


class TestClassic:
    """The classic method writes its rows unchanged, or refuses them."""

    @pytest.mark.parametrize("text", ["=1", "\uff1d1", "\u200b=1", "\0", "\t1"])
    @pytest.mark.parametrize("name", ["recommendation_id", "timeframe", "conditions_detected", "age_range"])
    def test_it_refuses_formulas(self, application: Database, name: str, text: str) -> None:
        """In every text."""
        (pair,) = iter_pairs(pair_frame({}))
        setattr(pair, name, text)
        with pytest.raises(ValidationError, match=rf"{name} (formula|str_matches) \(1 row\)"):
            fe.FeedbackProcessor(application.url, "out", key=KEY)._export_to_csv([pair])
        assert not row_files(Path())


def test_labels_and_pseudonyms_are_never_escaped() -> None:
    """They are compared as they are written; the gate refuses formulas in them."""
    frame = pair_frame({}).with_columns(analysis_hash=pl.lit("'a"), age_range=pl.lit("'b"))
    same, escaped = formulas.escape_texts(frame)
    assert (same is frame, escaped) == (True, {})


def test_rejected_rows_name_ids_that_begin_with_an_apostrophe() -> None:
    """One apostrophe is added, as before formulas, so that removing one gives the id."""
    ids = pl.DataFrame({"id": ["'a", "=1", "17"]})
    assert ids.select(formulas.escape_formula("id")).to_series().to_list() == ["''a", "'=1", "17"]


def test_raw_frames_are_split_without_formulas_by_choice() -> None:
    """A frame in memory is not opened by a spreadsheet."""
    frame = raw_frame({"timeframe": "=1"}).with_columns(created_at=pl.lit(datetime(2025, 10, 25, tzinfo=UTC)))
    assert fe.split_valid(frame).rejected.is_empty()
    assert fe.split_valid(frame, reject_formulas=True).rejected["reasons"].to_list() == ["formula"]
