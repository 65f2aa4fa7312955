"""Rows that reuse an id of an earlier row: incremental exports contain each of them once."""

import csv
import hashlib
import hmac
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database, create_schema, fill
from folders import NOW, exported, rows_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pseudonym_keys import KEY
from sqlalchemy.pool import StaticPool

import feedback_etl as fe
from feedback_etl.data_files.seen_rows import SeenRows, read_seen_rows
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests, replace_manifest
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.results import ExportReport
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.posix import hash_file

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
RECORD = {"id": 1, "recommendation_id": "rec_1"}
RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")


class Feedback(NamedTuple):
    """What identifies a row of the default schema."""

    id: int
    analysis: int
    time: datetime


def feedback(number: int, analysis: int, time: datetime, rating: int | None = 5) -> dict[str, Any]:
    """Make a row of the feedback table."""
    ids = {"id": number, "user_id": 1, "analysis_id": analysis, "recommendation_id": 1}
    return {**ids, "helpful_rating": rating, "created_at": time}


@pytest.fixture
def app(database: Database) -> Database:
    """An application with one recommendation."""
    database.fill(records=[RECORD])
    return database


@pytest.fixture
def sqlite_app(sqlite_database: Database) -> Database:
    """The same on SQLite."""
    sqlite_database.fill(records=[RECORD])
    return sqlite_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the exports."""
    return tmp_path / "exports"


def export_new(database: Database, folder: Path, **options: Any) -> ExportReport:
    """Export new rows."""
    return exported(database, folder, **{"incremental": True, "days_back": 30, **options})


def delete(database: Database, number: int) -> None:
    """Delete a row of the feedback table."""
    with database.engine.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM recommendation_feedbacks WHERE id = {number:d}"))


def pairs_in(folder: Path) -> Counter[tuple[str, str]]:
    """Count the pairs in all exports: pseudonym and time."""
    files = [file for manifest in list_manifests(folder) for file in manifest.all("pairs")]
    rows = [rows_of(folder / file.path) for file in files]
    return Counter(
        (hashed, time) for frame in rows for hashed, time in frame["analysis_hash", "feedback_timestamp"].rows()
    )


def pseudonym(analysis: object) -> str:
    """Hash an analysis id, by the standard library."""
    return hmac.new(KEY.encode(), f"analysis_id:{analysis}".encode(), hashlib.sha256).hexdigest()[:16]


class TestReuse:
    """An id that was given to two rows."""

    def test_reused_id_of_sqlite_is_exported(self, sqlite_app: Database, folder: Path) -> None:
        """The row after a deleted one is new."""
        sqlite_app.fill(feedbacks=[feedback(number, number, NOW - 5 * MINUTE) for number in (1, 2, 3)])
        assert export_new(sqlite_app, folder).exported_records == 3
        delete(sqlite_app, 3)
        row = feedback(0, 4, NOW - MINUTE)
        del row["id"]
        sqlite_app.fill(feedbacks=[row])
        with sqlite_app.engine.connect() as connection:
            assert connection.execute(sa.text("SELECT max(id) FROM recommendation_feedbacks")).scalar() == 3
        report = export_new(sqlite_app, folder, now=NOW + MINUTE)
        assert (report.total_feedback_records, report.exported_records) == (1, 1)
        assert export_new(sqlite_app, folder, now=NOW + 2 * MINUTE).total_feedback_records == 0

    @pytest.mark.sample("mysql-analysis", "postgresql-time", "sqlite-analysis", "sqlite-recommendation", "sqlite-time")
    @pytest.mark.parametrize(
        "other",
        [
            feedback(1, 8, NOW - 5 * MINUTE),
            feedback(1, 7, NOW - 5 * MINUTE + SECOND),
            feedback(1, 7, NOW - 5 * MINUTE) | {"recommendation_id": 2},
        ],
        ids=["analysis", "time", "recommendation"],
    )
    def test_row_with_one_difference_is_another_row(self, app: Database, folder: Path, other: dict[str, Any]) -> None:
        """It is exported; the row that was seen is not exported again."""
        app.fill(records=[{"id": 2, "recommendation_id": "rec_2"}], feedbacks=[feedback(1, 7, NOW - 5 * MINUTE)])
        assert export_new(app, folder).exported_records == 1
        assert export_new(app, folder, now=NOW + SECOND).total_feedback_records == 0
        delete(app, 1)
        app.fill(feedbacks=[other])
        assert export_new(app, folder, now=NOW + MINUTE).exported_records == 1
        assert sum(pairs_in(folder).values()) == 2

    @pytest.mark.any_database
    def test_rows_of_two_tables_with_equal_ids_are_exported(self, app: Database, folder: Path) -> None:
        """A UNION ALL of them has every id twice, in one run or in several."""
        with app.engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE archive AS SELECT * FROM recommendation_feedbacks"))
        app.fill(feedbacks=[feedback(1, 11, NOW - 9 * MINUTE), feedback(2, 12, NOW - 8 * MINUTE)])
        fill_archive(app, feedback(1, 21, NOW - 9 * MINUTE))
        assert export_new(app, folder, query=BOTH_TABLES).exported_records == 3
        fill_archive(app, feedback(2, 22, NOW - 8 * MINUTE))
        app.fill(feedbacks=[feedback(3, 13, NOW - 7 * MINUTE)])
        fill_archive(app, feedback(3, 23, NOW - 7 * MINUTE))
        report = export_new(app, folder, now=NOW + MINUTE, query=BOTH_TABLES)
        assert (report.total_feedback_records, report.exported_records) == (3, 3)
        assert export_new(app, folder, now=NOW + 2 * MINUTE, query=BOTH_TABLES).total_feedback_records == 0
        assert {hashed for hashed, _ in pairs_in(folder)} == {pseudonym(id_) for id_ in (11, 12, 13, 21, 22, 23)}


TABLE_COLUMNS = {
    "feedback_id": "id",
    "age": "product_satisfaction",
    "conditions_analyzed": "timeframe",
    "rules_applied": "timeframe",
}
SELECTED = ", ".join(f"{TABLE_COLUMNS.get(name, name)} AS {name}" for name in CLASSIC_SCHEMA.raw_columns)
BOTH_TABLES = f"SELECT {SELECTED} FROM recommendation_feedbacks UNION ALL SELECT {SELECTED} FROM archive"


def fill_archive(database: Database, row: Mapping[str, Any]) -> None:
    """Insert a row into the second table."""
    table = sa.table("archive", *map(sa.column, row))
    with database.engine.begin() as connection:
        time = row["created_at"].isoformat(sep=" ", timespec="microseconds")
        connection.execute(table.insert(), [{**row, "created_at": time}])


NO_ROWS = pl.DataFrame(
    schema={
        **dict.fromkeys(("feedback_id", "analysis_id", "recommendation_id"), pl.String),
        "created_at": pl.Datetime("us"),
    }
)


def raw(*rows: tuple[str | None, str | None, str | None]) -> pl.DataFrame:
    """Make raw rows of one time: feedback, analysis and recommendation id."""
    return pl.DataFrame([(*row, NOW) for row in rows], schema=NO_ROWS.schema, orient="row")


def everything_is_valid(_: pl.DataFrame) -> pl.Expr:
    """Accept every row."""
    return pl.lit(value=True)


@pytest.mark.parametrize(
    ("seen", "new"),
    [
        (("1", "a|b", "c"), ("1", "a", "b|c")),
        (("1", "a", None), ("1", None, "a")),
        (("1", "a", None), ("1", "a", "-")),
        (("1", "a", ""), ("1", "a", None)),
        ((None, "1", "a"), ("1", "a", None)),
        (("1", "21:x", "y"), ("12", "1:x", "y")),
        (("1", "a1:b", "c"), ("1", "a", "1:bc")),
        (("no id|a", "b", "c"), (None, "a", "b")),
    ],
)
@pytest.mark.parametrize("key", [None, Key(KEY)], ids=["unkeyed", "keyed"])
def test_seen_rows_do_not_hide_other_rows(seen: Any, new: Any, key: Key | None, tmp_path: Path) -> None:
    """With any characters, or none; for pairs and rows."""
    before = SeenRows(read_seen_rows(LocalStorage(tmp_path), ()), key, None)
    assert (
        before.filter_new_rows(raw(seen), everything_is_valid).height == before.filter_new_pairs(raw(seen)).height == 1
    )
    before.rows().write_csv(tmp_path / "rows")
    file = DataFile("rows", "rows", 0, 0, hash_file(tmp_path / "rows"))
    now = SeenRows(read_seen_rows(LocalStorage(tmp_path), [file]), key, None)
    assert now.filter_new_rows(raw(seen, new), everything_is_valid).rows() == raw(new).rows()
    assert now.filter_new_pairs(raw(seen, new)).rows() == raw(new).rows()


def old_lines(rows: Iterable[tuple[Feedback, bool]]) -> Iterator[list[object]]:
    """Make the lines of version 1 for rows, and for the pairs of those that were valid, by the standard library."""
    for row, is_valid in rows:
        microseconds = (row.time - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        texts = {"row": str(row.id)} | ({"pair": f"{row.analysis}|rec_1|{microseconds}"} if is_valid else {})
        for kind, text in texts.items():
            derived = hmac.new(KEY.encode(), f"feedback_etl incremental {kind}".encode(), hashlib.sha256).hexdigest()
            digest = hmac.new(derived.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]
            yield [pseudonym(row.analysis), digest, microseconds // 60_000_000]


def turn_into_version_1(folder: Path, rows: Iterable[tuple[Feedback, bool]]) -> None:
    """Replace the last export's file of seen rows by the one of the earlier version."""
    manifest, file = newest_seen_rows(folder)
    path = folder / file.path
    with path.open("w", newline="") as text:
        lines = list(dict.fromkeys(map(tuple, old_lines(rows))))
        csv.writer(text, lineterminator="\n").writerows([("analysis_hash", "digest", "minute"), *lines])
    file.rows, file.bytes, file.sha256 = len(lines), path.stat().st_size, hash_file(path)
    replace_manifest(open_storage(folder), manifest, Key(KEY))


def newest_seen_rows(folder: Path) -> tuple[Manifest, DataFile]:
    """Find the last export of the only series."""
    manifest = max(list_manifests(folder), key=lambda export: int(export.chain["number"]))
    (file,) = manifest.all("rows")
    return manifest, file


class TestUpgrade:
    """A folder of the version that identified rows by their ids only."""

    @pytest.fixture
    def old(self, sqlite_app: Database, folder: Path) -> Database:
        """A valid row, one that is rejected and one that is skipped, all of them seen by version 1."""
        ratings = {1: 5, 2: 9, 3: None}
        rows = [Feedback(number, number, NOW - 5 * MINUTE) for number in ratings]
        sqlite_app.fill(feedbacks=[feedback(*row, ratings[row.id]) for row in rows])
        report = export_new(sqlite_app, folder)
        assert (report.exported_records, report.errors, report.skipped_records) == (1, 1, 1)
        turn_into_version_1(folder, [(row, row.id == 1) for row in rows])
        return sqlite_app

    def test_old_file_has_the_content_of_the_earlier_version(self, old: Database, folder: Path) -> None:
        """The expected lines were written by that version for these rows."""
        assert old.url
        _, file = newest_seen_rows(folder)
        header, *lines = (folder / file.path).read_text().splitlines()
        assert header == "analysis_hash,digest,minute"
        assert sorted(lines) == OLD_LINES

    def test_upgrade_exports_no_row_again(self, old: Database, folder: Path) -> None:
        """Nor rejected or skipped again."""
        report = export_new(old, folder, now=NOW + MINUTE)
        assert (report.total_feedback_records, report.export_filename) == (0, "")
        old.fill(feedbacks=[feedback(4, 4, NOW)])
        for number in (1, 2):
            report = export_new(old, folder, now=NOW + number * MINUTE)
            assert report.total_feedback_records == (1 if number == 1 else 0)
        assert sum(pairs_in(folder).values()) == 2

    @pytest.mark.sample("later0-1", "later2-9")
    @pytest.mark.parametrize("analysis", [1, 9])
    @pytest.mark.parametrize("later", [SECOND, MINUTE, 7 * MINUTE])
    def test_row_with_a_seen_id_is_exported(self, old: Database, folder: Path, analysis: int, later: timedelta) -> None:
        """Also of the same analysis in the same minute."""
        delete(old, 1)
        old.fill(feedbacks=[feedback(1, analysis, NOW - 5 * MINUTE + later)])
        report = export_new(old, folder, now=NOW + 9 * MINUTE)
        assert (report.total_feedback_records, report.exported_records) == (1, 1)
        assert export_new(old, folder, now=NOW + 10 * MINUTE).total_feedback_records == 0

    def test_copy_of_an_exported_pair_is_a_duplicate(self, old: Database, folder: Path) -> None:
        """With another id."""
        old.fill(feedbacks=[feedback(4, 1, NOW - 5 * MINUTE), feedback(5, 5, NOW)])
        report = export_new(old, folder, now=NOW + MINUTE)
        assert (report.total_feedback_records, report.deduplicated_records, report.exported_records) == (2, 1, 1)

    def test_lines_of_the_earlier_version_are_dropped(self, old: Database, folder: Path) -> None:
        """They are dropped when they are older than the lookback."""
        versions = []
        for hours in (0, 1, 2):
            old.fill(feedbacks=[feedback(4 + hours, 4 + hours, NOW + timedelta(hours=hours))])
            export_new(old, folder, now=NOW + timedelta(hours=hours, minutes=1))
            _, file = newest_seen_rows(folder)
            versions.append(Counter(pl.read_csv(folder / file.path)["version"]))
        assert versions == [{1: 4, 2: 2}, {2: 4}, {2: 4}]


OLD_LINES = [
    "21c93d2e7c2ea283,eb274c4a742df99408f356cd2a0b16ff,29356555",
    "e48f507fe2c63d58,34a37689cb502d000ff26cd1d10b120a,29356555",
    "e954374a25c8d6c3,48262d52d28d8c13078053233777a190,29356555",
    "e954374a25c8d6c3,a87bb1154f14fa495dd7ffcd11fc2c23,29356555",
]

CHANGES = st.one_of(
    st.tuples(st.just("insert"), st.integers(1, 3), st.integers(0, 150)),
    st.tuples(st.just("delete"), st.just(0), st.integers(0, 5)),
)
RUNS = st.lists(st.lists(CHANGES, max_size=6), min_size=10, max_size=10)


@contextmanager
def application() -> Iterator[tuple[sa.Engine, Path]]:
    """Open a SQLite database in memory, and a folder."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    folder = Path(tempfile.mkdtemp())
    try:
        create_schema(engine)
        fill(engine, records=[RECORD])
        yield engine, folder
    finally:
        engine.dispose()
        shutil.rmtree(folder)


def change(engine: sa.Engine, changes: Iterable[tuple[str, int, int]], now: datetime) -> None:
    """Insert rows of the last minutes, whose ids the database gives, and delete the newest, or one near it."""
    with engine.begin() as connection:
        for what, analysis, number in changes:
            if what == "delete":
                which = f"SELECT id FROM recommendation_feedbacks ORDER BY id DESC LIMIT 1 OFFSET {number:d}"
                connection.execute(sa.text(f"DELETE FROM recommendation_feedbacks WHERE id IN ({which})"))
            else:
                row = feedback(0, analysis, now - (number + 1) * SECOND)
                values = {name: str(value) for name, value in row.items() if name != "id"}
                connection.execute(sa.table("recommendation_feedbacks", *map(sa.column, values)).insert(), [values])


def rows_in(engine: sa.Engine) -> list[Feedback]:
    """Return the rows of the feedback table."""
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT id, analysis_id, created_at FROM recommendation_feedbacks ORDER BY id")
        )
        return [Feedback(number, analysis, datetime.fromisoformat(time)) for number, analysis, time in rows]


def export_ten_times(runs: list[list[tuple[str, int, int]]], upgraded_before: int) -> None:
    """Compare ten incremental exports with what was in the table at the time of each.

    Args:
        runs: What changes before each of them.
        upgraded_before: The run before which the folder becomes one of the earlier version.
    """
    seen: dict[Feedback, None] = {}
    now = NOW
    with application() as (engine, folder):
        for number, changes in enumerate(runs):
            now += MINUTE
            if number == upgraded_before and seen:
                turn_into_version_1(folder, [(row, True) for row in seen])
            change(engine, changes, now)
            present = rows_in(engine)
            new = [row for row in present if row not in seen]
            options: dict[str, Any] = {"lookback": "1d", "days_back": 30, "key": KEY, "output_dir": folder}
            report = fe.export_feedback(engine, incremental=True, now=now, **options)
            pairs = {(row.analysis, row.time) for row in seen}
            fresh = {(row.analysis, row.time) for row in new} - pairs
            assert report.exported_records == len(fresh)
            if fresh:  # otherwise nothing is published, and the rows are read again
                seen |= dict.fromkeys(new)
            expected = {(pseudonym(row.analysis), row.time.isoformat()) for row in seen}
            assert pairs_in(folder) == Counter(expected)


REUSE: list[list[tuple[str, int, int]]] = [
    [("insert", 1, 10), ("insert", 2, 10)],
    *([("delete", 0, 0), ("insert", 2, 1)] for _ in range(9)),
]


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@example(runs=REUSE, upgraded_before=0)
@example(runs=REUSE, upgraded_before=5)
@given(runs=RUNS, upgraded_before=st.integers(0, 10))
def test_every_row_is_exported_once_with_any_id(runs: Any, upgraded_before: int) -> None:
    """Ten incremental exports, between which rows are inserted, deleted and reuse ids."""
    export_ten_times(runs, upgraded_before)


@pytest.mark.torture
@settings(max_examples=300, deadline=None)
@given(runs=RUNS, upgraded_before=st.integers(0, 10))
def test_every_row_is_exported_once_with_any_id_in_many_steps(runs: Any, upgraded_before: int) -> None:
    """The same, more often."""
    export_ten_times(runs, upgraded_before)
