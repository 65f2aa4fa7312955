"""All exports of a folder are one typed frame, no pair twice, and nothing but whole exports is read."""

import os
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, KEY, NOW, exported, people
from frames import pair_frame
from polars.testing import assert_frame_equal

import feedback_etl as fe
from feedback_etl.columns import SUBJECT_HASH, ExtraColumn
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.adoption import adopt
from feedback_etl.exports.catalog import list_manifests, replace_manifest
from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.local_transaction import LocalExportTransaction
from feedback_etl.exports.manifest_details import ManifestDetails
from feedback_etl.exports.transaction import TransactionOptions
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.posix import hash_file
from feedback_etl.training.dataset import TRAINING_TYPES, latest_export, scan_training
from feedback_etl.training.export_catalog import find_exports, refresh
from feedback_etl.transform.training_schema import TrainingPair

HOUR = timedelta(hours=1)
START = datetime(2025, 10, 1)
CANARY = "canary-4711"


def published(
    folder: Path, pairs: pl.DataFrame, *, start: int = 0, end: int = 24, number: int = 0, **options: Any
) -> Path:
    """An export of these pairs: of a window in hours after `START`, the later the higher its number."""
    settings = options.pop("settings", {})
    form, key = FileFormat(**options.pop("form", {})), options.pop("key", Key(KEY))
    window = (START + start * HOUR, START + end * HOUR)
    with LocalExportTransaction(
        folder, NOW + number * HOUR, TransactionOptions(key=key, allow_new_key=True), form=form
    ) as files:
        files.write(pairs)
        path = files.commit(ManifestDetails(window=window, settings=settings, **options)).pairs
    assert path is not None
    return path


def given_at(*hours: float, rating: int = 5) -> pl.DataFrame:
    """Feedback of so many hours after `START`, for one analysis and recommendation."""
    times = [(START + hour * HOUR).replace(tzinfo=UTC) for hour in hours]
    return pair_frame(*({"feedback_timestamp": time, "helpful_rating": rating} for time in times))


def ratings_in(folder: str | Path, **options: Any) -> dict[float, int]:
    """The rating of each hour after `START`."""
    frame = scan_training(folder, **options).collect()
    hours = (frame["feedback_timestamp"].dt.replace_time_zone(None) - START).dt.total_seconds() / 3600
    assert hours.is_unique().all()
    return dict(sorted(zip(hours, frame["helpful_rating"], strict=True)))


class TestTypes:
    """The frame is what `load_training` gives."""

    def test_they_are_those_of_the_contract(self) -> None:
        """Column by column, in the same order."""
        assert TrainingPair.empty().schema == TRAINING_TYPES

    def test_every_form_gives_the_same_rows(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Also quotes, line ends, nulls and false; and all forms in one folder, of windows of their own."""
        sqlite_database.fill(**people(4, each=6))
        whole = fe.load_training(sqlite_database.url, days_back=-1, now=NOW, key=KEY)
        for number, form in enumerate(FORMS):
            exported(sqlite_database, tmp_path / str(number), **form)
            assert_frame_equal(scan_training(tmp_path / str(number)).collect(), whole)
            since, until = (NOW - hours * HOUR for hours in (4 - number + 0.99, 4 - number - 0.01))
            until = min(until, NOW)
            exported(sqlite_database, tmp_path / "mixed", days_back=30, since=since, until=until, **form)
        mixed = scan_training(tmp_path / "mixed")
        assert mixed.collect_schema() == TRAINING_TYPES
        assert_frame_equal(mixed.collect(), whole)


class TestLaziness:
    """What is not needed is not read."""

    def test_one_column_is_read_of_exports_whose_windows_do_not_overlap(self, tmp_path: Path) -> None:
        """They can have no pair in common, so nobody looks for one."""
        for number in range(3):
            published(tmp_path, given_at(number), start=number, end=number + 1, number=number)
        plan = scan_training(tmp_path).group_by("age_range").len().explain()
        assert "PROJECT 1/12" in plan
        assert "UNIQUE" not in plan

    def test_the_columns_of_the_pair_are_read_where_they_do(self, tmp_path: Path) -> None:
        """And no others."""
        for number in range(2):
            published(tmp_path, given_at(1), number=number)
        plan = scan_training(tmp_path).group_by("age_range").len().explain()
        assert "PROJECT 4/12" in plan
        assert "UNIQUE" in plan

    def test_a_chain_has_no_pair_twice_by_itself(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Its windows overlap by the lookback, and the chain knows what it has read."""
        first = people(2)
        sqlite_database.fill(**first)
        exported(sqlite_database, tmp_path, incremental=True)
        new = first["feedbacks"][0] | {"id": 9000, "created_at": NOW + HOUR / 2}
        sqlite_database.fill(feedbacks=[new])
        exported(sqlite_database, tmp_path, incremental=True, now=NOW + HOUR)
        assert len(list_manifests(tmp_path)) == 2
        assert "UNIQUE" not in scan_training(tmp_path).explain()

    def test_nothing_is_read_before_it_is_collected(self, tmp_path: Path) -> None:
        """A file that goes in the meantime is missed then."""
        frame = scan_training(published(tmp_path, given_at(1)))
        shutil.rmtree(tmp_path)
        with pytest.raises(FileNotFoundError):
            frame.collect()


class TestDuplicates:
    """One row for each pair; the copy of the newest export stays."""

    @pytest.mark.parametrize("forms", [FORMS[:1] * 2, FORMS[3:] * 2, [FORMS[0], FORMS[3]], [FORMS[2], FORMS[1]]])
    def test_the_newest_copy_stays(self, tmp_path: Path, forms: list[dict[str, Any]]) -> None:
        """Whatever the form; what only an older export holds stays too."""
        published(tmp_path, given_at(1, 2, rating=1), form=forms[0])
        published(tmp_path, given_at(2, 3, rating=2), form=forms[1], number=1)
        assert ratings_in(tmp_path) == {1: 1, 2: 2, 3: 2}

    def test_the_newest_of_a_second_is_the_one_named_last(self, tmp_path: Path) -> None:
        """`_10` comes after `_9`."""
        for rating in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 3):
            path = published(tmp_path, given_at(1, rating=rating))
        assert path.stem.endswith("_11")
        assert ratings_in(tmp_path) == {1: 3}
        assert latest_export(tmp_path) == path

    @pytest.mark.sample("0", "4", "9")
    @pytest.mark.parametrize("seed", range(12))
    def test_any_windows_give_the_union(self, tmp_path: Path, seed: int) -> None:
        """As a dict does that is updated export by export; the same twice over, in the same order."""
        rng, expected = random.Random(seed), dict[float, int]()
        for number in range(7):
            start = rng.randrange(20)
            end = start + rng.randrange(1, 9)
            hours = sorted(rng.sample(range(start, end), rng.randrange(1, end - start + 1)))
            rows, form = given_at(*hours, rating=rng.randrange(1, 6)), rng.choice(FORMS)
            published(tmp_path, rows, start=start, end=end, number=number, form=form)
            expected |= dict.fromkeys(hours, rows["helpful_rating"][0])
        assert ratings_in(tmp_path) == dict(sorted(expected.items()))
        assert_frame_equal(scan_training(tmp_path).collect(), scan_training(tmp_path).collect())

    def test_windows_that_nobody_knows_overlap_with_all(self, tmp_path: Path) -> None:
        """Those of adopted files."""
        copy = tmp_path / "older.csv"
        shutil.copy(published(tmp_path, given_at(1, rating=1)), copy)
        os.utime(copy, (0, 0))
        adopt(copy, key=Key(KEY))
        published(tmp_path, given_at(1, rating=2), number=1)
        assert ratings_in(tmp_path) == {1: 2}

    def test_equal_rows_of_coarse_times_are_different_feedback(self, tmp_path: Path) -> None:
        """All rows of a file stay; another file adds what goes beyond them."""
        coarse: dict[str, Any] = {"settings": {"timestamp_precision": "hour"}}
        published(tmp_path, given_at(1, 1, 2, rating=1), **coarse)
        published(tmp_path, given_at(1, 1, 1, rating=2), number=1, **coarse)
        frame = scan_training(tmp_path).collect()
        assert sorted(frame["helpful_rating"]) == [1, 2, 2, 2]
        assert frame.columns == list(TRAINING_TYPES)

    def test_exports_of_one_window_by_the_pipeline(self, sqlite_database: Database, tmp_path: Path) -> None:
        """A full export beside a chain, over rows that change in between."""
        sqlite_database.fill(**people(3, each=5))
        exported(sqlite_database, tmp_path, incremental=True)
        exported(sqlite_database, tmp_path, format="parquet", now=NOW + HOUR)
        whole = fe.load_training(sqlite_database.url, days_back=-1, now=NOW + HOUR, key=KEY)
        assert_frame_equal(scan_training(tmp_path).collect(), whole)


class TestPeople:
    """Who a row is of is not lost where one export tells it and another one does not."""

    @pytest.mark.parametrize("forms", [FORMS[:1] * 3, FORMS[3:4] * 3, [FORMS[0], FORMS[3], FORMS[1]]], ids=str)
    def test_the_pseudonym_stays_with_the_newest_copy(self, tmp_path: Path, forms: list[dict[str, Any]]) -> None:
        """The newest one that is told; where none is, there is none. The frame is lazy, and needs no more columns."""
        of = pl.col("feedback_timestamp").dt.hour().cast(pl.String)
        told = [given_at(1, 2, 3, rating=1).with_columns(subject_hash=pl.lit("a") + of)]
        told += [given_at(2, 5, rating=2).with_columns(subject_hash=pl.lit("b") + of)]
        for number, rows in enumerate(told):
            published(tmp_path, rows, number=number, form=forms[number], extra=[SUBJECT_HASH])
        published(tmp_path, given_at(1, 2, 4, rating=3), number=2, form=forms[2])
        lazy = scan_training(tmp_path)
        frame = lazy.select("helpful_rating", "subject_hash", of.alias("hour")).collect().sort("hour")
        assert frame.rows() == [(3, "a1", "1"), (3, "b2", "2"), (1, "a3", "3"), (3, None, "4"), (2, "b5", "5")]
        assert ratings_in(tmp_path) == {1: 3, 2: 3, 3: 1, 4: 3, 5: 2}
        assert "subject_hash" not in lazy.select("helpful_rating").explain()

    def test_rows_of_coarse_times_keep_their_own(self, tmp_path: Path) -> None:
        """The first of equal rows that of the first, and so on."""
        coarse: dict[str, Any] = {"timestamp_precision": "hour"}
        people_of = given_at(1, 1, rating=1).with_columns(subject_hash=pl.Series(["a", "b"]))
        published(tmp_path, people_of, settings=coarse, extra=[SUBJECT_HASH])
        published(tmp_path, given_at(1, 1, 1, rating=2), number=1, settings=coarse)
        frame = scan_training(tmp_path).collect()
        assert frame.select("helpful_rating", "subject_hash").rows() == [(2, "a"), (2, "b"), (2, None)]


class TestRefusals:
    """What does not fit together is not read together, unless that is meant."""

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"key": Key("j" * 32)}, "2 keys"),
            ({"settings": {"timestamp_precision": "day"}}, r"2 timestamp precisions \(day, exact\)"),
            ({"settings": {"recommendation_id": "hash"}}, r"2 forms of recommendation_id \(hash, keep\)"),
        ],
    )
    def test_of_another_kind(self, tmp_path: Path, options: dict[str, Any], what: str) -> None:
        """The message names the kinds and the way out, which works."""
        first = published(tmp_path, given_at(1))
        published(tmp_path, given_at(2), number=1, **options)
        with pytest.raises(UsageError, match=rf"{what}.*mixed=True"):
            scan_training(tmp_path)
        assert ratings_in(tmp_path, mixed=True) == {1: 5, 2: 5}
        assert ratings_in(first) == {1: 5}

    def test_other_columns(self, tmp_path: Path) -> None:
        """Further ones are null where a file lacks them; the twelve have to be there."""
        first = published(tmp_path, given_at(1))
        wider = tmp_path / "wider.csv"
        wide = pl.read_csv(first, infer_schema=False).with_columns(site=pl.lit("7"))
        wide.with_columns(feedback_timestamp=pl.lit("2025-10-01T05:00:00")).write_csv(wider)
        adopt(wider, key=Key(KEY))
        frame = scan_training(tmp_path).sort("feedback_timestamp").collect()
        assert frame.columns == [*TRAINING_TYPES, "site"]
        assert frame["site"].to_list() == [None, "7"]
        narrow = tmp_path / "narrow.csv"
        narrow.write_text("analysis_hash,age_range\n73475cb40a568e8d,25-35\n")
        adopt(narrow, key=Key(KEY))
        with pytest.raises(ExportFileError, match=r"narrow\.csv lacks the columns recommendation_id, helpful_rating"):
            scan_training(tmp_path)

    def test_parquet_of_other_types(self, tmp_path: Path) -> None:
        """Ratings that were made floats, say by pandas, are not cut to integers."""
        given_at(1).with_columns(pl.col("helpful_rating").cast(pl.Float64)).write_parquet(tmp_path / "a.parquet")
        adopt(tmp_path / "a.parquet", key=Key(KEY))
        with pytest.raises(ExportFileError, match=r"a\.parquet has columns of unexpected types \(helpful_rating\)"):
            scan_training(tmp_path)

    @pytest.mark.parametrize(
        ("column", "text"),
        [
            ("helpful_rating", "5.0"),
            ("routine_completion_pct", "900"),
            ("would_recommend", CANARY),
            ("age_range", CANARY),
            ("feedback_timestamp", "2025-10-25 10:00:00"),
            ("feedback_timestamp", "2025-10-25T10:00:00Z"),
        ],
    )
    def test_csv_of_other_forms(self, tmp_path: Path, column: str, text: str) -> None:
        """As others write it: noticed when it is scanned, with the column and without the value."""
        first = published(tmp_path / "ours", given_at(1))
        copy = tmp_path / "copy.csv"
        pl.read_csv(first, infer_schema=False).with_columns(pl.lit(text).alias(column)).write_csv(copy)
        adopt(copy, key=Key(KEY))
        with pytest.raises(ExportFileError, match=rf"copy\.csv has values that cannot be read \({column}\)") as error:
            scan_training(tmp_path)
        assert text not in str(error.value)

    def test_columns_declared_with_two_types(self, tmp_path: Path) -> None:
        """They would become text without a word."""
        for number, (kind, value) in enumerate({"integer": 7, "text": "seven"}.items()):
            rows = given_at(number).with_columns(points=pl.lit(value))
            extra = [ExtraColumn("points", "insensitive", kind)]  # type: ignore[arg-type]
            settings = {"extra_columns": [list(each) for each in extra]}
            published(tmp_path, rows, start=number, end=number + 1, number=number, extra=extra, settings=settings)
        with pytest.raises(UsageError, match=r"declare points with several types.*mixed=True"):
            scan_training(tmp_path)
        assert {*scan_training(tmp_path, mixed=True).collect()["points"]} == {"7", "seven"}


class TestWhatIsRead:
    """Committed exports, by their manifests, and nothing else."""

    def test_other_files_of_the_folder_are_not(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Rejected, foreign, hidden and temporary ones, and a file whose manifest has not got its name."""
        folder = tmp_path / "exports"
        sqlite_database.fill(**people(3, each=4))
        whole = fe.load_training(sqlite_database.url, days_back=-1, now=NOW, key=KEY)
        path = Path(exported(sqlite_database, folder).export_filename)
        assert list((folder / "rejected").iterdir())
        for name in ("copy.csv", ".hidden.csv", f".{path.name}.tmp", "feedback_training_20250101_000000.csv"):
            shutil.copy(path, folder / name)
        shutil.copy(path.with_suffix(".manifest.json"), folder / ".feedback_training_20250101_000000.manifest.json.tmp")
        assert_frame_equal(scan_training(folder).collect(), whole)
        assert latest_export(folder) == path

    def test_a_pattern_names_files_or_folders(self, tmp_path: Path) -> None:
        """Of files some, of folders all; lists of rejected rows are none of them."""
        for number, name in enumerate(("north", "south", "south")):
            published(tmp_path / name, given_at(number), start=number, end=number + 1, number=number)
        (tmp_path / "south/rejected").mkdir()
        (tmp_path / "south/rejected/a_rejected.csv").write_text("feedback_id\n")
        assert ratings_in(tmp_path / "*") == {0: 5, 1: 5, 2: 5}
        assert ratings_in(f"{tmp_path}/south/*_130000*") == {1: 5}
        assert ratings_in(f"{tmp_path}/**/*.csv") == {0: 5, 1: 5, 2: 5}
        os.chdir(tmp_path)
        assert ratings_in("s*/") == {1: 5, 2: 5}

    def test_a_pattern_that_names_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        """It might be half of one; the message says how to take it in, or leave it out."""
        path = published(tmp_path, given_at(1))
        shutil.copy(path, tmp_path / "copy.csv")
        with pytest.raises(ExportFileError, match=r"copy\.csv \(1 in all\) has no manifest.*adopt FILE"):
            scan_training(tmp_path / "*.csv")

    @pytest.mark.parametrize("where", ["", "missing", "*.parquet", "notes.txt"])
    def test_no_export_at_all(self, tmp_path: Path, where: str) -> None:
        """An empty training set would be a surprise later."""
        (tmp_path / "notes.txt").touch()
        for read in (scan_training, latest_export):
            with pytest.raises(ExportFileError, match="contains no export with its files"):
                read(tmp_path / where)

    def test_pruned_exports_are_not(self, tmp_path: Path) -> None:
        """Their manifests stay, without files."""
        published(tmp_path, given_at(1))
        with pytest.raises(ExportFileError, match="contains no export with its files; "):
            scan_training(tmp_path / "*.parquet")
        newest = published(tmp_path, given_at(2), number=24 * 3)
        fe.exports.prune(tmp_path, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=3, hours=2))
        assert ratings_in(tmp_path) == {2: 5}
        assert latest_export(tmp_path) == newest
        fe.exports.prune(tmp_path, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=9))
        with pytest.raises(ExportFileError, match=r"contains no export with its files \(2 pruned\); "):
            scan_training(tmp_path)
        with pytest.raises(ExportFileError, match="contains no export with its files; "):
            scan_training(tmp_path / "*.csv")


def truncate(path: Path) -> None:
    """Cut the end off."""
    path.write_bytes(path.read_bytes()[:-9])


def change(path: Path) -> None:
    """Change a byte in the middle, and not the size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestDamage:
    """A file that is not what its manifest says is an error, and names itself."""

    @pytest.mark.parametrize("damage", [truncate, change, Path.unlink])
    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_found(self, tmp_path: Path, damage: Callable[[Path], None], form: dict[str, Any]) -> None:
        """Truncated, changed or missing, in each form."""
        path = published(tmp_path, given_at(1), form=form)
        damage(path)
        for read in (scan_training, latest_export):
            with pytest.raises(ExportFileError, match=rf"{path.name} does not match its manifest"):
                read(tmp_path)

    def test_a_change_that_pretends_to_be_old_is_found_by_digest(self, tmp_path: Path) -> None:
        """Nothing but the digest tells it."""
        path = published(tmp_path, given_at(1))
        change(path)
        os.utime(path, (0, 0))
        scan_training(tmp_path)
        with pytest.raises(ExportFileError, match="does not match its manifest"):
            scan_training(tmp_path, verify=True)

    def test_a_folder_that_was_copied_is_whole(self, tmp_path: Path) -> None:
        """Its times are new; the digests are the same."""
        published(tmp_path / "a", given_at(1))
        shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
        newer = NOW.timestamp()
        os.utime(next((tmp_path / "b").glob("*.manifest.json")), (newer, newer))
        assert ratings_in(tmp_path / "b", verify=True) == ratings_in(tmp_path / "b") == {1: 5}

    def test_erased_exports_are_whole(self, sqlite_database: Database, tmp_path: Path) -> None:
        """They lack the person, and are what their manifests say."""
        sqlite_database.fill(**people(3, each=3))
        exported(sqlite_database, tmp_path)
        before = scan_training(tmp_path).collect()
        fe.privacy.erase(tmp_path, keys=Key(KEY), analysis_ids=["201"])
        after = scan_training(tmp_path, verify=True).collect()
        assert after.height == before.height - 1

    @pytest.mark.parametrize("form", FORMS)
    def test_exports_of_which_everybody_was_erased_are_empty(
        self, sqlite_database: Database, tmp_path: Path, form: dict[str, Any]
    ) -> None:
        """A frame without rows, of the same types."""
        sqlite_database.fill(**people(1, each=2))
        exported(sqlite_database, tmp_path, **form)
        fe.privacy.erase(tmp_path, keys=Key(KEY), analysis_ids=["101", "102"])
        assert_frame_equal(scan_training(tmp_path).collect(), pl.DataFrame(schema=TRAINING_TYPES))

    @pytest.mark.parametrize("written", [False, True])
    def test_an_erasure_under_way_is_no_damage(self, tmp_path: Path, written: bool) -> None:
        """The file may be the old one, or already the one that the manifest announces."""
        new = published(tmp_path / "new", given_at(2))
        old = published(tmp_path / "old", given_at(1, 2))
        (manifest,), (other,) = list_manifests(old.parent), list_manifests(new.parent)
        told = {name: getattr(other.files[0], name) for name in ("rows", "bytes", "sha256")}
        manifest.files[0].becoming = told
        replace_manifest(open_storage(old.parent), manifest)
        if written:
            shutil.copy(new, old)
        assert ratings_in(old.parent) == ({2: 5} if written else {1: 5, 2: 5})

    def test_what_is_pruned_or_erased_meanwhile_is_no_damage(self, tmp_path: Path) -> None:
        """Between the look at the manifests and the look at the files."""
        published(tmp_path, given_at(1))
        newest = published(tmp_path, given_at(2), number=24)
        pruned, erased = find_exports(tmp_path)
        fe.exports.prune(tmp_path, keep_days=0, keep_last=1, key=Key(KEY), now=NOW + timedelta(days=9))
        manifest = list_manifests(tmp_path)[-1]
        newest.write_bytes(newest.read_bytes().replace(b"rec_1", b"rec_2"))
        manifest.files[0].sha256 = hash_file(newest)
        replace_manifest(open_storage(tmp_path), manifest)
        assert refresh(pruned, verify=False) is None
        now = refresh(erased, verify=True)
        assert now is not None
        assert now.manifest == manifest


class TestWaysOn:
    """From the frame to where a model is trained."""

    def test_to_arrow_and_pandas(self, tmp_path: Path) -> None:
        """Ratings with nulls stay integers by way of Arrow's types."""
        import pandas as pd

        published(tmp_path, given_at(1, 2).with_columns(helpful_rating=pl.Series([5, None], dtype=pl.Int8)))
        table = scan_training(tmp_path).collect().to_arrow()
        assert_frame_equal(pl.DataFrame(table), scan_training(tmp_path).collect())
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        assert frame["helpful_rating"].to_list() == [5, pd.NA]
        assert str(frame["helpful_rating"].dtype) == "int8[pyarrow]"

    def test_to_numpy(self, tmp_path: Path) -> None:
        """One matrix of float32 without NaN."""
        import numpy as np

        published(tmp_path, given_at(1, 2))
        matrix = fe.training.features(scan_training(tmp_path).collect()).to_numpy()
        assert matrix.dtype == np.float32
        assert matrix.shape[0] == 2
        assert not np.isnan(matrix).any()

    def test_to_torch(self, tmp_path: Path) -> None:
        """A tensor of floats, where PyTorch is installed."""
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: it is large, and nothing here needs it")
        published(tmp_path, given_at(1, 2))
        tensor = fe.training.features(scan_training(tmp_path).collect()).to_torch()
        assert tensor.dtype == torch.float32

    def test_to_hugging_face(self, tmp_path: Path) -> None:
        """A dataset of the same rows."""
        import datasets

        published(tmp_path, given_at(1, 2))
        frame = scan_training(tmp_path).collect()
        assert datasets.Dataset(frame.to_arrow())["helpful_rating"][:] == frame["helpful_rating"].to_list()
