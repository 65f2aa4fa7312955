"""`scan_training` reads all committed exports of a folder as one typed frame without duplicate pairs."""

import os
import random
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, people
from frames import fitted_features, pair_frame
from polars.testing import assert_frame_equal
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.adoption import adopt
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests, replace_manifest
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.posix import hash_file
from feedback_etl.training.dataset import latest_export, open_dataset, scan_training
from feedback_etl.training.export_catalog import find_exports, refresh
from feedback_etl.training.export_scan import TRAINING_TYPES
from feedback_etl.transform.training_schema import TrainingPair

HOUR = timedelta(hours=1)
START = datetime(2025, 10, 1)
CANARY = "canary-4711"
WITH_SUBJECTS = CLASSIC_SCHEMA.with_extra_columns([SUBJECT_HASH])
TRAINING_DOCS = Path(__file__).parents[1] / "docs" / "training.md"


def write_export(
    folder: Path, pairs: pl.DataFrame, *, start: int = 0, end: int = 24, number: int = 0, **options: Any
) -> Path:
    """Write an export of these pairs and a window in hours after `START`; a higher number is later."""
    settings = options.pop("settings", {})
    form, key = FileFormat(**options.pop("form", {})), options.pop("key", Key(KEY))
    window = (START + start * HOUR, START + end * HOUR)
    with ExportTransaction(
        folder, NOW + number * HOUR, TransactionOptions(key=key, allow_new_key=True), form=form
    ) as files:
        files.write(pairs)
        path = files.commit(details=ManifestDetails(window=window, settings=settings, **options)).pairs
    assert path is not None
    return Path(path)


def feedback_at(*hours: float, rating: int = 5) -> pl.DataFrame:
    """Return feedback at these hours after `START`, for one analysis and recommendation."""
    times = [(START + hour * HOUR).replace(tzinfo=UTC) for hour in hours]
    return pair_frame(*({"feedback_timestamp": time, "helpful_rating": rating} for time in times))


def read_ratings(folder: str | Path, **options: Any) -> dict[float, int]:
    """Return the rating of each hour after `START`."""
    frame = scan_training(folder, **options).collect()
    hours = (frame["feedback_timestamp"].dt.replace_time_zone(None) - START).dt.total_seconds() / 3600
    assert hours.is_unique().all()
    return dict(sorted(zip(hours, frame["helpful_rating"], strict=True)))


class TestTypes:
    """The frame equals that of `load_training`."""

    def test_types_equal_those_of_training_pair(self) -> None:
        """Column by column, in the same order."""
        assert TrainingPair.empty().schema == TRAINING_TYPES

    def test_every_file_format_gives_the_same_rows(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Including quotes, line ends, nulls and false; and all formats in one folder, with different windows."""
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
    """Only needed columns are read."""

    def test_exports_with_disjoint_windows_are_not_deduplicated(self, tmp_path: Path) -> None:
        """They can have no pair in common, so one column is enough."""
        for number in range(3):
            write_export(tmp_path, feedback_at(number), start=number, end=number + 1, number=number)
        plan = scan_training(tmp_path).group_by("age_range").len().explain()
        assert "PROJECT 1/12" in plan
        assert "UNIQUE" not in plan

    def test_overlapping_windows_read_the_columns_of_the_pair_only(self, tmp_path: Path) -> None:
        """Besides the requested column."""
        for number in range(2):
            write_export(tmp_path, feedback_at(1), number=number)
        plan = scan_training(tmp_path).group_by("age_range").len().explain()
        assert "PROJECT 4/12" in plan
        assert "UNIQUE" in plan

    def test_exports_of_one_incremental_series_are_not_deduplicated(
        self, sqlite_database: Database, tmp_path: Path
    ) -> None:
        """Their windows overlap by the lookback, but the series has already removed duplicates."""
        first = people(2)
        sqlite_database.fill(**first)
        exported(sqlite_database, tmp_path, incremental=True)
        new = first["feedbacks"][0] | {"id": 9000, "created_at": NOW + HOUR / 2}
        sqlite_database.fill(feedbacks=[new])
        exported(sqlite_database, tmp_path, incremental=True, now=NOW + HOUR)
        assert len(list_manifests(tmp_path)) == 2
        assert "UNIQUE" not in scan_training(tmp_path).explain()

    def test_files_are_read_when_the_frame_is_collected(self, tmp_path: Path) -> None:
        """A file deleted in between is an error then."""
        frame = scan_training(write_export(tmp_path, feedback_at(1)))
        shutil.rmtree(tmp_path)
        with pytest.raises(FileNotFoundError):
            frame.collect()


class TestDuplicates:
    """One row for each pair; the copy of the newest export stays."""

    @pytest.mark.parametrize("forms", [FORMS[:1] * 2, FORMS[3:] * 2, [FORMS[0], FORMS[3]], [FORMS[2], FORMS[1]]])
    def test_newest_copy_of_a_pair_is_kept(self, tmp_path: Path, forms: list[dict[str, Any]]) -> None:
        """In every file format; pairs of only the older export are kept too."""
        write_export(tmp_path, feedback_at(1, 2, rating=1), form=forms[0])
        write_export(tmp_path, feedback_at(2, 3, rating=2), form=forms[1], number=1)
        assert read_ratings(tmp_path) == {1: 1, 2: 2, 3: 2}

    def test_newest_of_exports_of_one_second_has_the_highest_number(self, tmp_path: Path) -> None:
        """`_10` comes after `_9`."""
        for rating in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 3):
            path = write_export(tmp_path, feedback_at(1, rating=rating))
        assert path.stem.endswith("_11")
        assert read_ratings(tmp_path) == {1: 3}
        assert latest_export(tmp_path) == path

    def test_format_does_not_decide_which_export_of_one_second_is_newer(self, tmp_path: Path) -> None:
        """A longer suffix is not a higher number."""
        write_export(tmp_path, feedback_at(1, rating=1), form={"format": "parquet"})
        write_export(tmp_path, feedback_at(1, rating=2), form={"format": "csv"})
        assert read_ratings(tmp_path) == {1: 2}

    @pytest.mark.sample("0", "4", "9")
    @pytest.mark.parametrize("seed", range(12))
    def test_random_windows_give_the_union_of_pairs(self, tmp_path: Path, seed: int) -> None:
        """As in a dict that is updated export by export; a second read gives the same order."""
        rng, expected = random.Random(seed), dict[float, int]()
        for number in range(7):
            start = rng.randrange(20)
            end = start + rng.randrange(1, 9)
            hours = sorted(rng.sample(range(start, end), rng.randrange(1, end - start + 1)))
            rows, form = feedback_at(*hours, rating=rng.randrange(1, 6)), rng.choice(FORMS)
            write_export(tmp_path, rows, start=start, end=end, number=number, form=form)
            expected |= dict.fromkeys(hours, rows["helpful_rating"][0])
        assert read_ratings(tmp_path) == dict(sorted(expected.items()))
        assert_frame_equal(scan_training(tmp_path).collect(), scan_training(tmp_path).collect())

    def test_unknown_window_overlaps_every_window(self, tmp_path: Path) -> None:
        """As that of an adopted file."""
        copy = tmp_path / "older.csv"
        shutil.copy(write_export(tmp_path, feedback_at(1, rating=1)), copy)
        os.utime(copy, (0, 0))
        adopt(copy, key=Key(KEY))
        write_export(tmp_path, feedback_at(1, rating=2), number=1)
        assert read_ratings(tmp_path) == {1: 2}

    def test_equal_rows_with_coarse_times_are_different_feedback(self, tmp_path: Path) -> None:
        """All rows of a file are kept; another file adds the rows it has more."""
        coarse: dict[str, Any] = {"settings": {"timestamp_precision": "hour"}}
        write_export(tmp_path, feedback_at(1, 1, 2, rating=1), **coarse)
        write_export(tmp_path, feedback_at(1, 1, 1, rating=2), number=1, **coarse)
        frame = scan_training(tmp_path).collect()
        assert sorted(frame["helpful_rating"]) == [1, 2, 2, 2]
        assert frame.columns == list(TRAINING_TYPES)

    def test_full_export_beside_an_incremental_series_adds_no_duplicates(
        self, sqlite_database: Database, tmp_path: Path
    ) -> None:
        """Written by the pipeline, in another file format."""
        sqlite_database.fill(**people(3, each=5))
        exported(sqlite_database, tmp_path, incremental=True)
        exported(sqlite_database, tmp_path, format="parquet", now=NOW + HOUR)
        whole = fe.load_training(sqlite_database.url, days_back=-1, now=NOW + HOUR, key=KEY)
        assert_frame_equal(scan_training(tmp_path).collect(), whole)


class TestSeveralPaths:
    """A list of folders, patterns and files."""

    def test_each_export_is_read_once(self, tmp_path: Path) -> None:
        """By any name of it, in any order."""
        one, two = tmp_path / "one", tmp_path / "two"
        first = write_export(one, feedback_at(1, rating=1))
        write_export(two, feedback_at(2, rating=2), number=1)
        wanted = scan_training([one, two]).collect()
        assert wanted["helpful_rating"].to_list() == [1, 2]
        several: list[list[str | Path]] = [[two, one], [str(first), one, two / "*.csv"], [two, two, one]]
        for paths in several:
            assert_frame_equal(scan_training(paths).collect(), wanted)
        assert latest_export([two, one]) == latest_export(two)

    def test_path_that_names_nothing_is_an_error(self, tmp_path: Path) -> None:
        """Also beside others; so is an empty list."""
        write_export(tmp_path / "one", feedback_at(1))
        with pytest.raises(ExportFileError, match=r"two contains no export with its files;"):
            scan_training([tmp_path / "one", tmp_path / "two"])
        with pytest.raises(ExportFileError, match=r"^An empty list contains no export"):
            scan_training([])

    def test_exports_of_different_kinds_are_refused_across_folders(self, tmp_path: Path) -> None:
        """As within one."""
        write_export(tmp_path / "one", feedback_at(1))
        write_export(tmp_path / "two", feedback_at(2), number=1, settings={"timestamp_precision": "day"})
        with pytest.raises(UsageError, match="2 timestamp precisions"):
            scan_training([tmp_path / "one", tmp_path / "two"])


class TestOpenDataset:
    """The manifests of the exports that were read."""

    def test_fingerprint_depends_on_the_exports_alone(self, tmp_path: Path) -> None:
        """Not on the order of the paths or on the folder."""
        one, two = tmp_path / "one", tmp_path / "two"
        write_export(one, feedback_at(1, rating=1))
        write_export(two, feedback_at(2, rating=2), number=1)
        whole = open_dataset([one, two]).fingerprint
        assert whole == open_dataset([two, one]).fingerprint != open_dataset(one).fingerprint
        shutil.copytree(one, tmp_path / "copy")
        assert open_dataset(tmp_path / "copy").fingerprint == open_dataset(one).fingerprint
        write_export(one, feedback_at(3), number=2)
        assert open_dataset([one, two]).fingerprint != whole

    def test_what_was_written_is_valid_by_its_declarations(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Extra columns and other age ranges, in both formats."""
        sqlite_database.fill(**people(3, each=5))
        options: dict[str, Any] = {"age_edges": [18, 65], "include_subject_hash": True}
        for form in ("csv", "parquet"):
            exported(sqlite_database, tmp_path / form, format=form, **options)
            dataset = open_dataset(tmp_path / form)
            assert dataset.extra_columns == (SUBJECT_HASH,)
            assert dataset.age_edges == (18, 65)
            fe.validate(dataset.frame, extra_columns=dataset.extra_columns, age_edges=dataset.age_edges)

    def test_precision_is_the_coarsest_of_mixed_exports(self, tmp_path: Path) -> None:
        """Finer parts of the times of some rows would be zero."""
        write_export(tmp_path, feedback_at(1))
        assert open_dataset(tmp_path).timestamp_precision == "exact"
        write_export(tmp_path, feedback_at(2), number=1, settings={"timestamp_precision": "day"})
        write_export(tmp_path, feedback_at(3), number=2, settings={"timestamp_precision": "hour"})
        assert open_dataset(tmp_path, mixed=True).timestamp_precision == "day"


class TestPeople:
    """The person of a row is kept if only some of the exports contain it."""

    @pytest.mark.parametrize("forms", [FORMS[:1] * 3, FORMS[3:4] * 3, [FORMS[0], FORMS[3], FORMS[1]]], ids=str)
    def test_newest_copy_gets_the_newest_known_pseudonym(self, tmp_path: Path, forms: list[dict[str, Any]]) -> None:
        """It is null if no export has it; the frame is lazy and reads no additional columns."""
        hour = pl.col("feedback_timestamp").dt.hour().cast(pl.String)
        exports = [feedback_at(1, 2, 3, rating=1).with_columns(subject_hash=pl.lit("a") + hour)]
        exports += [feedback_at(2, 5, rating=2).with_columns(subject_hash=pl.lit("b") + hour)]
        for number, rows in enumerate(exports):
            write_export(
                tmp_path,
                rows,
                number=number,
                form=forms[number],
                schema=WITH_SUBJECTS,
            )
        write_export(tmp_path, feedback_at(1, 2, 4, rating=3), number=2, form=forms[2])
        lazy = scan_training(tmp_path)
        frame = lazy.select("helpful_rating", "subject_hash", hour.alias("hour")).collect().sort("hour")
        assert frame.rows() == [(3, "a1", "1"), (3, "b2", "2"), (1, "a3", "3"), (3, None, "4"), (2, "b5", "5")]
        assert read_ratings(tmp_path) == {1: 3, 2: 3, 3: 1, 4: 3, 5: 2}
        assert "subject_hash" not in lazy.select("helpful_rating").explain()

    def test_rows_with_coarse_times_keep_their_pseudonyms(self, tmp_path: Path) -> None:
        """In their order: the first of equal rows has that of the first."""
        coarse: dict[str, Any] = {"timestamp_precision": "hour"}
        rows_of_two = feedback_at(1, 1, rating=1).with_columns(subject_hash=pl.Series(["a", "b"]))
        write_export(tmp_path, rows_of_two, settings=coarse, schema=WITH_SUBJECTS)
        write_export(tmp_path, feedback_at(1, 1, 1, rating=2), number=1, settings=coarse)
        frame = scan_training(tmp_path).collect()
        assert frame.select("helpful_rating", "subject_hash").rows() == [(2, "a"), (2, "b"), (2, None)]


class TestRefusals:
    """Exports that cannot be combined are refused unless `mixed=True` is given."""

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"key": Key(OTHER_KEY)}, "2 keys"),
            ({"settings": {"timestamp_precision": "day"}}, r"2 timestamp precisions \(day, exact\)"),
            ({"settings": {"recommendation_id": "hash"}}, r"2 forms of recommendation_id \(hash, keep\)"),
        ],
    )
    def test_exports_of_different_kinds_are_refused(self, tmp_path: Path, options: dict[str, Any], what: str) -> None:
        """The message names the difference and the remedy, which works."""
        first = write_export(tmp_path, feedback_at(1))
        write_export(tmp_path, feedback_at(2), number=1, **options)
        with pytest.raises(UsageError, match=rf"{what}.*mixed=True"):
            scan_training(tmp_path)
        assert read_ratings(tmp_path, mixed=True) == {1: 5, 2: 5}
        assert read_ratings(first) == {1: 5}

    def test_missing_columns_are_null_if_extra_and_refused_otherwise(self, tmp_path: Path) -> None:
        """An extra column is null where a file lacks it; the twelve are required."""
        first = write_export(tmp_path, feedback_at(1))
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

    def test_parquet_columns_of_other_types_are_refused(self, tmp_path: Path) -> None:
        """Ratings as floats, for instance by pandas, are not truncated to integers."""
        feedback_at(1).with_columns(pl.col("helpful_rating").cast(pl.Float64)).write_parquet(tmp_path / "a.parquet")
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
    def test_unreadable_csv_values_are_refused(self, tmp_path: Path, column: str, text: str) -> None:
        """When the file is scanned; the message contains the column and no value."""
        first = write_export(tmp_path / "ours", feedback_at(1))
        copy = tmp_path / "copy.csv"
        pl.read_csv(first, infer_schema=False).with_columns(pl.lit(text).alias(column)).write_csv(copy)
        adopt(copy, key=Key(KEY))
        with pytest.raises(ExportFileError, match=rf"copy\.csv has values that cannot be read \({column}\)") as error:
            scan_training(tmp_path)
        assert text not in str(error.value)

    def test_columns_declared_with_two_types_are_refused(self, tmp_path: Path) -> None:
        """They would silently become text."""
        for number, (kind, value) in enumerate({"integer": 7, "text": "seven"}.items()):
            rows = feedback_at(number).with_columns(points=pl.lit(value))
            extra = [ExtraColumn("points", "insensitive", kind)]  # type: ignore[arg-type]
            settings = {"extra_columns": [list(column) for column in extra]}
            write_export(
                tmp_path,
                rows,
                start=number,
                end=number + 1,
                number=number,
                schema=CLASSIC_SCHEMA.with_extra_columns(extra),
                settings=settings,
            )
        with pytest.raises(UsageError, match=r"declare points with several types.*mixed=True"):
            scan_training(tmp_path)
        assert {*scan_training(tmp_path, mixed=True).collect()["points"]} == {"7", "seven"}


class TestCommittedExports:
    """Only committed exports are read, by their manifests."""

    def test_other_files_of_the_folder_are_ignored(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Rejected, unmanaged, hidden and temporary files, and a file whose manifest has another name."""
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

    def test_pattern_names_files_or_folders(self, tmp_path: Path) -> None:
        """All exports of folders, the named files otherwise; never lists of rejected rows."""
        for number, name in enumerate(("north", "south", "south")):
            write_export(tmp_path / name, feedback_at(number), start=number, end=number + 1, number=number)
        (tmp_path / "south/rejected").mkdir()
        (tmp_path / "south/rejected/a_rejected.csv").write_text("feedback_id\n")
        assert read_ratings(tmp_path / "*") == {0: 5, 1: 5, 2: 5}
        assert read_ratings(f"{tmp_path}/south/*_130000*") == {1: 5}
        assert read_ratings(f"{tmp_path}/**/*.csv") == {0: 5, 1: 5, 2: 5}
        os.chdir(tmp_path)
        assert read_ratings("s*/") == {1: 5, 2: 5}

    def test_pattern_that_names_an_unmanaged_file_is_refused(self, tmp_path: Path) -> None:
        """The file may be incomplete; the message says how to adopt or exclude it."""
        path = write_export(tmp_path, feedback_at(1))
        shutil.copy(path, tmp_path / "copy.csv")
        with pytest.raises(ExportFileError, match=r"copy\.csv \(1 in all\) has no manifest.*adopt FILE"):
            scan_training(tmp_path / "*.csv")

    @pytest.mark.parametrize("where", ["", "missing", "*.parquet", "notes.txt"])
    def test_no_export_is_an_error(self, tmp_path: Path, where: str) -> None:
        """An empty training set would surprise later."""
        (tmp_path / "notes.txt").touch()
        for read in (scan_training, latest_export):
            with pytest.raises(ExportFileError, match="contains no export with its files"):
                read(tmp_path / where)

    def test_pruned_exports_are_ignored(self, tmp_path: Path) -> None:
        """Their manifests remain, without files."""
        write_export(tmp_path, feedback_at(1))
        with pytest.raises(ExportFileError, match="contains no export with its files; "):
            scan_training(tmp_path / "*.parquet")
        newest = write_export(tmp_path, feedback_at(2), number=24 * 3)
        fe.exports.prune(tmp_path, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=3, hours=2))
        assert read_ratings(tmp_path) == {2: 5}
        assert latest_export(tmp_path) == newest
        fe.exports.prune(tmp_path, keep_days=1, key=Key(KEY), now=NOW + timedelta(days=9))
        with pytest.raises(ExportFileError, match=r"contains no export with its files \(2 pruned\); "):
            scan_training(tmp_path)
        with pytest.raises(ExportFileError, match="contains no export with its files; "):
            scan_training(tmp_path / "*.csv")


def truncate(path: Path) -> None:
    """Remove the last bytes of a file."""
    path.write_bytes(path.read_bytes()[:-9])


def change(path: Path) -> None:
    """Change a byte in the middle of a file, but not its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestDamage:
    """A file that does not match its manifest is an error that names the file."""

    @pytest.mark.parametrize("damage", [truncate, change, Path.unlink])
    @pytest.mark.parametrize("form", FORMS)
    def test_damaged_file_is_an_error(
        self, tmp_path: Path, damage: Callable[[Path], None], form: dict[str, Any]
    ) -> None:
        """Truncated, changed or missing, in each file format."""
        path = write_export(tmp_path, feedback_at(1), form=form)
        damage(path)
        for read in (scan_training, latest_export):
            with pytest.raises(ExportFileError, match=rf"{path.name} does not match its manifest"):
                read(tmp_path)

    def test_verify_finds_a_change_with_an_old_modification_time(self, tmp_path: Path) -> None:
        """Only the digest shows it."""
        path = write_export(tmp_path, feedback_at(1))
        change(path)
        os.utime(path, (0, 0))
        scan_training(tmp_path)
        with pytest.raises(ExportFileError, match="does not match its manifest"):
            scan_training(tmp_path, verify=True)

    def test_copied_folder_is_read(self, tmp_path: Path) -> None:
        """Its modification times are new, but the digests are equal."""
        write_export(tmp_path / "a", feedback_at(1))
        shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
        newer = NOW.timestamp()
        os.utime(next((tmp_path / "b").glob("*.manifest.json")), (newer, newer))
        assert read_ratings(tmp_path / "b", verify=True) == read_ratings(tmp_path / "b") == {1: 5}

    def test_exports_after_an_erasure_are_read(self, sqlite_database: Database, tmp_path: Path) -> None:
        """They lack the person and match their manifests."""
        sqlite_database.fill(**people(3, each=3))
        exported(sqlite_database, tmp_path)
        before = scan_training(tmp_path).collect()
        fe.privacy.erase(tmp_path, keys=Key(KEY), analysis_ids=["201"])
        after = scan_training(tmp_path, verify=True).collect()
        assert after.height == before.height - 1

    @pytest.mark.parametrize("form", FORMS)
    def test_export_without_rows_after_an_erasure_is_read(
        self, sqlite_database: Database, tmp_path: Path, form: dict[str, Any]
    ) -> None:
        """As a frame without rows, of the same types."""
        sqlite_database.fill(**people(1, each=2))
        exported(sqlite_database, tmp_path, **form)
        fe.privacy.erase(tmp_path, keys=Key(KEY), analysis_ids=["101", "102"])
        assert_frame_equal(scan_training(tmp_path).collect(), pl.DataFrame(schema=TRAINING_TYPES))

    @pytest.mark.parametrize("written", [False, True])
    def test_export_during_an_erasure_is_read(self, tmp_path: Path, written: bool) -> None:
        """The file is the old one, or the new one that the manifest announces."""
        new = write_export(tmp_path / "new", feedback_at(2))
        old = write_export(tmp_path / "old", feedback_at(1, 2))
        (manifest,), (other,) = list_manifests(old.parent), list_manifests(new.parent)
        replacement = {name: getattr(other.files[0], name) for name in ("rows", "bytes", "sha256")}
        manifest.files[0].becoming = replacement
        replace_manifest(open_storage(old.parent), manifest, Key(KEY))
        if written:
            shutil.copy(new, old)
        assert read_ratings(old.parent) == ({2: 5} if written else {1: 5, 2: 5})

    def test_export_pruned_or_erased_after_listing_is_no_damage(self, tmp_path: Path) -> None:
        """Manifests may change between listing and reading."""
        write_export(tmp_path, feedback_at(1))
        newest = write_export(tmp_path, feedback_at(2), number=24)
        pruned, erased = find_exports(tmp_path)
        fe.exports.prune(tmp_path, keep_days=0, keep_last=1, key=Key(KEY), now=NOW + timedelta(days=9))
        manifest = list_manifests(tmp_path)[-1]
        newest.write_bytes(newest.read_bytes().replace(b"rec_1", b"rec_2"))
        manifest.files[0].sha256 = hash_file(newest)
        replace_manifest(open_storage(tmp_path), manifest, Key(KEY))
        assert refresh(pruned, verify=False) is None
        now = refresh(erased, verify=True)
        assert now is not None
        assert now.manifest == manifest


class TestConversions:
    """Conversions of the frame for training libraries."""

    def test_to_arrow_and_pandas(self, tmp_path: Path) -> None:
        """Ratings with nulls remain integers with Arrow types."""
        import pandas as pd

        write_export(tmp_path, feedback_at(1, 2).with_columns(helpful_rating=pl.Series([5, None], dtype=pl.Int8)))
        table = scan_training(tmp_path).collect().to_arrow()
        assert_frame_equal(pl.DataFrame(table), scan_training(tmp_path).collect())
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        assert frame["helpful_rating"].to_list() == [5, pd.NA]
        assert str(frame["helpful_rating"].dtype) == "int8[pyarrow]"

    def test_to_numpy(self, tmp_path: Path) -> None:
        """A float32 matrix without NaN."""
        import numpy as np

        write_export(tmp_path, feedback_at(1, 2))
        matrix = fitted_features(scan_training(tmp_path).collect()).to_numpy()
        assert matrix.dtype == np.float32
        assert matrix.shape[0] == 2
        assert not np.isnan(matrix).any()

    def test_to_torch(self, tmp_path: Path) -> None:
        """A float tensor, if PyTorch is installed."""
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: it is large, and nothing here needs it")
        write_export(tmp_path, feedback_at(1, 2))
        tensor = fitted_features(scan_training(tmp_path).collect()).to_torch()
        assert tensor.dtype == torch.float32

    def test_globs_of_other_programs_find_the_pairs_alone(
        self, sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the documented pattern: no item rows, which are in CSV too, and no list of rejected rows."""
        import datasets
        import duckdb

        monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        rows = people(3, each=4)
        rows["feedbacks"][0]["product_ratings"] = '{"a": 3}'
        sqlite_database.fill(**rows)
        report = exported(sqlite_database, tmp_path / "exports", items="product_ratings")
        assert Path(report.rejected_filename).read_text().startswith("feedback_id,analysis_hash,reasons\n")
        assert list((tmp_path / "exports").rglob("*_items.csv"))
        names = re.findall(r"(?:FROM '|data_files=\")ml/by_person/([^'\"]+)", TRAINING_DOCS.read_text())
        assert len(names) == 2
        (name,) = {*names}
        pattern = f"{tmp_path}/exports/{name}"
        loaded = datasets.load_dataset("csv", data_files=pattern, cache_dir=str(tmp_path / "cache"))
        counts = [
            loaded["train"].num_rows,
            duckdb.connect().execute(f"SELECT count(*) FROM '{pattern}'").fetchall()[0][0],
            pl.read_csv(pattern).height,
            sum(pl.read_csv(path).height for path in (tmp_path / "exports").glob(name)),
        ]
        assert counts == 4 * [report.exported_records]

    def test_pandas_parses_the_times_by_the_documented_line(self, tmp_path: Path) -> None:
        """With a fraction of a second and without one in the same file."""
        import pandas as pd

        line = next(line for line in TRAINING_DOCS.read_text().splitlines() if "pd.read_csv(" in line)
        file = write_export(tmp_path, feedback_at(1, 2 + 0.25 / 3600))
        names: dict[str, Any] = {"pd": pd, "file": file, "times": ["feedback_timestamp", "export_date"]}
        exec(line, names)
        times = names["table"]["feedback_timestamp"]
        assert times.dtype.kind == "M"
        assert times.dt.microsecond.to_list() == [0, 250_000]

    def test_to_hugging_face(self, tmp_path: Path) -> None:
        """A data set of the same rows."""
        import datasets

        write_export(tmp_path, feedback_at(1, 2))
        frame = scan_training(tmp_path).collect()
        assert datasets.Dataset(frame.to_arrow())["helpful_rating"][:] == frame["helpful_rating"].to_list()
