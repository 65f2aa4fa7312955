"""Unreadable times: in every window, on every database; the row is rejected if it is its `created_at`."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database
from folders import exported, rows_of
from frames import raw_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import NOW, ROUTES, by, by_both_routes, execute, fetch, read, select
from sqlalchemy.dialects import sqlite

import feedback_etl as fe
from feedback_etl.cli.summary import format_summary
from feedback_etl.database import text_times
from feedback_etl.database.connect import open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.raw_types import to_raw
from feedback_etl.database.sql import count_rows, count_windows
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.transform.timestamps import is_unreadable, readable

HOUR = timedelta(hours=1)
WINDOWS: list[dict[str, Any]] = [
    {"days_back": 30},
    {"days_back": -1},
    {"since": datetime(2025, 10, 24), "until": datetime(2025, 10, 24, 1)},
]
TEXTS = ["28.11.2026 10:00", "11/28/2026", "2026/11/28", " 2025-10-25 10:00:00", "2025-02-30 10:00:00", "yesterday"]
TIMES = {
    "sqlite": [*TEXTS, "2025-10-25 10:00", "2025-10-25 24:00:00", "2025-10-25 10:00:00 UTC", "20251025"],
    "postgresql": ["infinity", "-infinity", "0044-03-15 BC", "15000-01-01"],
    "mysql": ["0000-00-00 00:00:00"],
}


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "duckdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind; the rows come with the query."""
    if request.param in ("sqlite", "duckdb"):
        path = tmp_path / f"app.{request.param}"
        engine = sa.create_engine(f"{request.param}:///{path}", poolclass=sa.NullPool)
        with engine.connect():
            path.touch()
        engine.dispose()
        return f"{request.param}:///{path}"
    found: str = request.getfixturevalue({"postgresql": "postgres_database", "mysql": "mysql_database"}[request.param])
    return found


def kind_of(url: str) -> str:
    return sa.make_url(url).get_backend_name()


# Rows whose own time cannot be read.


@pytest.fixture
def app(database: Database) -> Database:
    """Three rows with a time, one without, and one row for each unreadable time of the database."""
    ratings = {"analysis_id": 1, "recommendation_id": 1, "helpful_rating": 5}
    times: list[Any] = [NOW - timedelta(1), NOW - timedelta(2), NOW - timedelta(60), None]
    if kind_of(database.url) == "sqlite":  # whose column is then of text, as others' are
        execute(
            database.url,
            "DROP TABLE recommendation_feedbacks",
            "CREATE TABLE recommendation_feedbacks (id INTEGER PRIMARY KEY, user_id INT, analysis_id INT, "
            "recommendation_id INT, helpful_rating INT, product_satisfaction INT, routine_completion_pct INT, "
            "would_recommend BOOLEAN, timeframe TEXT, created_at TEXT)",
        )
    times += TIMES[kind_of(database.url)]
    rows = [{"id": number, **ratings, "created_at": time} for number, time in enumerate(times, 1)]
    database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}], feedbacks=rows)
    return database


def unreadable(app: Database) -> list[int]:
    """The ids of the rows with an unreadable time."""
    return list(range(5, 5 + len(TIMES[kind_of(app.url)])))


@pytest.mark.sample(
    "mysql-window1-ids1-connectorx",
    "mysql-window2-ids2-sqlalchemy",
    "postgresql-window0-ids0-connectorx",
    "postgresql-window1-ids1-sqlalchemy",
    "sqlite-window0-ids0-connectorx",
    "sqlite-window0-ids0-sqlalchemy",
    "sqlite-window1-ids1-connectorx",
    "sqlite-window1-ids1-sqlalchemy",
    "sqlite-window2-ids2-connectorx",
    "sqlite-window2-ids2-sqlalchemy",
)
@by_both_routes
@pytest.mark.parametrize(("window", "ids"), list(zip(WINDOWS, [[1, 2], [1, 2, 3], []], strict=True)))
def test_rows_are_rejected_in_every_window(
    app: Database, tmp_path: Path, route: str, window: dict[str, Any], ids: list[int]
) -> None:
    """Each once, with its reason; rows with a readable time are in its windows."""
    everything = "days_back" in window and window["days_back"] == -1
    missing = {"created_at_missing": 1} if everything else {}
    expected = {"created_at_unreadable": len(unreadable(app))} | missing
    if ids:
        report = fe.export_feedback(
            by(route, app.url),
            now=NOW,
            unkeyed=True,
            output_dir=tmp_path / "out",
            max_rejected=1.0,
            **{"days_back": 1, **window},
        )
        assert report.rejected_reasons == expected
        assert report.exported_records == len(ids)
        listed = pl.read_csv(report.rejected_filename)
        assert sorted(listed["feedback_id"]) == sorted([*unreadable(app), *([4] if everything else [])])
    frame = read(by(route, app.url), **window)
    assert sorted(frame["feedback_id"]) == sorted([*ids, *unreadable(app), *([4] if everything else [])])
    assert sorted(frame.filter(pl.col("created_at").is_not_null())["feedback_id"]) == ids


@pytest.mark.parametrize(("window", "rows"), [(Window(datetime(2025, 10, 1), NOW), 2), (Window(None, NOW), 4)])
def test_counted_rows_equal_read_rows(app: Database, window: Window, rows: int) -> None:
    """No row is counted in two windows of an incremental series."""
    with open_connection(app.url) as source:
        relation = inspect_source(source)
        assert fetch_count(source, count_rows(relation, window)) == rows + len(unreadable(app))
        half = datetime(2025, 10, 24)
        windows = [Window(window.start, half), Window(half, NOW)]
        counts = sum(count for _, count in fetch(app.url, count_windows(relation, windows)))
        assert counts == rows


def test_export_of_unreadable_rows_only_is_an_error(app: Database, tmp_path: Path) -> None:
    """A window without any other row."""
    with pytest.raises(fe.errors.ValidationError, match="created_at_unreadable"):
        exported(app, tmp_path, **WINDOWS[2])


@pytest.mark.parametrize("lookback", ["30m", "90d"])
def test_an_incremental_series_lists_each_row_once(app: Database, tmp_path: Path, lookback: str) -> None:
    """In the first export that reads it only; it does not make later exports non-empty, and is never late."""
    options: dict[str, Any] = {"incremental": True, "lookback": lookback, "max_rejected": 1.0}
    later = NOW + timedelta(days=1)
    first = exported(app, tmp_path, **options)
    assert first.rejected_reasons["created_at_unreadable"] == len(unreadable(app))
    quiet = exported(app, tmp_path, now=later, **options)
    assert (quiet.total_feedback_records, quiet.export_filename, quiet.late_records) == (0, "", 0)
    row = {"analysis_id": 1, "recommendation_id": 1, "helpful_rating": 5}
    time = TIMES[kind_of(app.url)][0]
    app.fill(feedbacks=[{"id": 98, **row, "created_at": time}, {"id": 99, **row, "created_at": NOW + HOUR}])
    second = exported(app, tmp_path, now=later, **options)
    assert (second.exported_records, second.rejected_reasons) == (1, {"created_at_unreadable": 1})
    assert second.late_records == 0


def test_row_with_corrected_time_is_exported(app: Database, tmp_path: Path) -> None:
    """Also if an incremental series has rejected it before."""
    exported(app, tmp_path, incremental=True, max_rejected=1.0)
    execute(app.url, "UPDATE recommendation_feedbacks SET created_at = '2025-10-25 11:30:00' WHERE id = 5")
    report = exported(app, tmp_path, incremental=True, max_rejected=1.0, now=NOW + HOUR)
    assert (report.exported_records, report.errors) == (1, 0)


FORMS = st.tuples(
    st.sampled_from(["2025", "2025", "2024", "0001", "9999", "0000", "25", "+2025", " 2025", "12025"]),
    st.sampled_from(["-", "-", "-", "/", ""]),
    st.sampled_from(["10", "02", "12", "13", "00", "1"]),
    st.sampled_from(["-", "-", "-", "/"]),
    st.sampled_from(["25", "01", "29", "30", "31", "32", "5"]),
    st.sampled_from([" ", "T", "T", "", "  ", "t"]),
    st.sampled_from(["10:00:00", "23:59:59", "00:00:00", "24:00:00", "10:00", "1:2:3", "10:00:60", "12:60:00", ""]),
    st.sampled_from(["", "", ".", ".5", ".500", ".123456", ".123456789012", ".\u0662"]),
    st.sampled_from(["", "", "", " ", "\t"]),
    st.sampled_from(["", "", "Z", "z", "+02:00", "-14:00", "+0200", "-0000", "+02", " UTC", "+15:00", "+02:60", "ZZ"]),
    st.sampled_from(["", "", "", " ", "\n", "x", "\u00a0"]),
).map("".join)


@pytest.fixture(scope="module")
def memory() -> Iterator[sqlite3.Connection]:
    """An SQLite database for texts."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, x DATETIME)")
        yield connection


@settings(max_examples=settings().max_examples // 5)
@given(texts=st.lists(st.one_of(FORMS, st.text(max_size=30)), min_size=20, max_size=60))
def test_sqlite_and_polars_agree_on_any_text(memory: sqlite3.Connection, texts: list[str]) -> None:
    """Both agree whether a text is a time, and which: counted rows are read rows."""
    texts = [text for text in texts if "\0" not in text]
    memory.execute("DELETE FROM t")
    memory.executemany("INSERT INTO t VALUES (?, ?)", enumerate(texts))
    column: sa.ColumnElement[Any] = sa.column("x")
    judged = [
        str(expression.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
        for expression in (text_times.is_readable(column), text_times.instant(column))
    ]
    rows = memory.execute(f"SELECT x, {', '.join(judged)} FROM t WHERE typeof(x) = 'text' ORDER BY number").fetchall()
    frame = raw_frame(*[{}] * len(rows)).with_columns(created_at=pl.Series([row[0] for row in rows], dtype=pl.String))
    parsed = to_raw(frame).select(readable("created_at"), unreadable=is_unreadable("created_at"))
    for (text, is_time, instant), (time, cannot_be_read) in zip(rows, parsed.iter_rows(), strict=True):
        assert (is_time, cannot_be_read) in ((None, None), (0, True), (1, False)), text
        if is_time:
            seconds, _, fraction = instant.partition(".")
            assert f"{seconds}.{fraction[:6]:0<6}" == time.isoformat(sep=" ", timespec="microseconds"), text


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2025-10-25 10:00:00 ", datetime(2025, 10, 25, 10)),
        ("2025-10-25T10:00:00.5Z", datetime(2025, 10, 25, 10, 0, 0, 500_000)),
        ("2025-10-25 10:00:00 +0200", datetime(2025, 10, 25, 8)),
        ("2025-10-25 10:00:00 -02:30 ", datetime(2025, 10, 25, 12, 30)),
        ("2025-10-25", datetime(2025, 10, 25)),
        (" 2025-10-25 10:00:00", None),
        ("2025-1-5 10:00:00", None),
        ("25-10-25 10:00:00", None),
    ],
)
def test_readable_and_unreadable_texts(text: str, time: datetime | None) -> None:
    """Blanks after a time are allowed; blanks before it would change its order."""
    raw = to_raw(raw_frame({}).with_columns(created_at=pl.lit(text)))
    assert raw.select(readable("created_at")).item() == time
    assert raw.select(is_unreadable("created_at")).item() == (time is None)


@by_both_routes
def test_unreadable_rows_come_after_all_others_on_sqlite(tmp_path: Path, route: str) -> None:
    """The same as rows without a time."""
    (tmp_path / "a.db").touch()
    texts = ["yesterday", "2025-10-25 10:00:00", "1999", "", "2025-10-24T10:00:00+0200"]
    values = ", ".join(f"({number}, '{text}')" for number, text in enumerate(texts))
    query = f"WITH v (id, t) AS (VALUES {values}) {select('sqlite://', 'FROM v', feedback_id='id', created_at='t')}"
    frame = read(by(route, f"sqlite:///{tmp_path}/a.db"), query=query)
    assert frame["feedback_id"].to_list() == [4, 1, 0, 2, 3]


# Numbers.

EPOCH = {
    "sqlite": ("datetime({}, 'unixepoch')", "strftime('%Y-%m-%d %H:%M:%f', {} / 1000.0, 'unixepoch')"),
    "postgresql": ("to_timestamp({})", "to_timestamp({} / 1000.0)"),
    "mysql": ("from_unixtime({})", "from_unixtime({} / 1000.0)"),
    "duckdb": ("to_timestamp({})", "to_timestamp({} / 1000.0)"),
}


@pytest.mark.parametrize(
    ("number", "form", "expected"),
    [
        ("1761386400", 0, datetime(2025, 10, 25, 10)),
        ("1761386400500", 1, datetime(2025, 10, 25, 10, 0, 0, 500_000)),
    ],
    ids=["seconds", "milliseconds"],
)
def test_remedy_for_epoch_numbers_works(url: str, number: str, form: int, expected: datetime) -> None:
    """Also as text on SQLite, in every window."""
    remedy = EPOCH[kind_of(url)][form]
    for written in [number, *([f"'{number}'", f"'{number}.0'"] if kind_of(url) == "sqlite" else [])]:
        with pytest.raises(SourceError) as caught:
            read(url, query=select(url, created_at=written), since=datetime(2025, 1, 1))
        assert remedy.format("created_at") in str(caught.value)
        assert number not in str(caught.value)
        fixed = select(url, created_at=remedy.format(written))
        assert read(url, query=fixed, since=datetime(2025, 1, 1))["created_at"].to_list() == [expected]


def test_rows_with_numbers_are_counted(tmp_path: Path) -> None:
    """The message has their number; digits of another length are neither an epoch nor a time."""
    (tmp_path / "a.db").touch()
    url = f"sqlite:///{tmp_path}/a.db"
    texts = ["2025-10-25 10:00:00", "1761386400", "1761386400123", "20251025", "20251025100000"]
    values = ", ".join(f"('{text}')" for text in texts)
    query = f"WITH v (t) AS (VALUES {values}) {select(url, 'FROM v', created_at='t')}"
    with pytest.raises(SourceError, match=r"^created_at contains numbers in 2 rows; ISO 8601 text is expected"):
        read(url, query=query)
    dates = query.replace("('1761386400'), ('1761386400123'), ", "")
    assert read(url, query=dates, since=NOW - timedelta(1))["created_at"].null_count() == 2


# Declared columns.

UNTIL = ExtraColumn("valid_until", type="time")
FIRST, LAST = datetime(1, 1, 1), datetime.max
DECLARED = {
    "sqlite": ["'infinity'", "'28.11.2026'", "'15000-01-01 00:00:00'", "1761386400", "'-0044-03-15 00:00:00'"],
    "postgresql": [f"timestamp '{time}'" for time in TIMES["postgresql"]],
    "mysql": ["'0000-00-00'", "'2025-02-31 10:00:00'"],
    "duckdb": [f"timestamp '{time}'" for time in ("infinity", "-infinity", "0044-03-15 (BC)", "15000-01-01 00:00:00")],
}


def declared(url: str, kind: str = "timestamp") -> tuple[str, int]:
    """A query with rows whose declared time is the first and the last of the calendar, null, or none; and how many."""
    dialect = kind_of(url)
    typed = "" if dialect in ("sqlite", "mysql") else f"{kind} "
    ends = [f"{typed}'{time}{'+00' if kind == 'timestamptz' else ''}'" for time in (FIRST, LAST)]
    others = [expression.replace("timestamp ", f"{kind} ") for expression in DECLARED[dialect]]
    values = [f"({number}, {time})" for number, time in enumerate([*ends, "NULL", *others])]
    first, second = {"sqlite": ("column1", "column2"), "duckdb": ("col0", "col1")}.get(dialect, ("column1", "column2"))
    if dialect == "mysql":
        execute(
            url,
            "SET sql_mode = 'ALLOW_INVALID_DATES'",
            "CREATE OR REPLACE TABLE v (n int, t datetime(6))",
            f"INSERT INTO v VALUES {', '.join(values)}",
        )
        source = "FROM v"
    else:
        source = f"FROM (SELECT {first} AS n, {second} AS t FROM (VALUES {', '.join(values)}) AS u) AS v"
    return select(url, source, feedback_id="n", analysis_id="n", valid_until="t"), len(others)


@pytest.mark.sample(
    "duckdb-its own-timestamp",
    "mysql-connectorx-timestamp",
    "postgresql-connectorx-timestamptz",
    "postgresql-sqlalchemy-timestamp",
    "sqlite-connectorx-timestamp",
    "sqlite-sqlalchemy-timestamp",
)
@pytest.mark.parametrize(
    ("url", "route", "kind"),
    [
        *itertools.product(["sqlite", "mysql"], ROUTES, ["timestamp"]),
        *itertools.product(["postgresql"], ROUTES, ["timestamp", "timestamptz"]),
        *itertools.product(["duckdb"], ["its own"], ["timestamp", "timestamptz"]),
    ],
    indirect=["url"],
)
def test_declared_time_outside_the_calendar_is_null_and_counted(
    url: str, tmp_path: Path, route: str, kind: str
) -> None:
    """The same on every database by both routes; the first and last moments are kept."""
    query, others = declared(url, kind)
    database = by(route, url) if route in ROUTES else url
    report = fe.export_feedback(
        database, days_back=-1, now=NOW, unkeyed=True, output_dir=tmp_path / "out", query=query, extra_columns=[UNTIL]
    )
    rows = rows_of(Path(report.export_filename))
    assert rows["valid_until"].drop_nulls().to_list() == ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"]
    assert rows.height == 3 + others
    assert report.unreadable_times == others
    assert list_manifests(tmp_path / "out")[0].statistics["unreadable_times"] == others
    assert f"times      {others} unreadable in declared time columns; null in the export" in [
        *format_summary(report, 1)
    ]


@pytest.mark.parametrize(
    ("url", "kind"), list(itertools.product(["postgresql", "duckdb"], ["timestamp", "timestamptz"])), indirect=["url"]
)
def test_unreadable_created_at_of_a_query_is_in_every_window(url: str, kind: str) -> None:
    """With a time zone and without one; the first moment of the calendar is a time."""
    query, others = declared(url, kind)
    query = f"SELECT * FROM ({query.replace('created_at', 'nothing').replace('valid_until', 'created_at')}) AS q"
    names = [*read(url, query=select(url)).columns]
    query = query.replace("SELECT *", f"SELECT {', '.join(names)}", 1)
    recent = read(url, query=query, since=NOW - HOUR)
    assert sorted(recent["feedback_id"]) == list(range(3, 3 + others))
    everything = read(url, query=query)
    assert everything.filter(pl.col("created_at").is_not_null())["created_at"].to_list() == [FIRST]
    assert sorted(everything["feedback_id"]) == [0, *range(2, 3 + others)]


def test_times_of_a_dataframe_are_judged_equally() -> None:
    """Times of a column with every unit and zone."""
    beyond = pl.lit(253_402_300_800_000_000).cast(pl.Datetime("us"))
    for time in (beyond, beyond.dt.replace_time_zone("UTC"), beyond.cast(pl.Datetime("ms"))):
        raw = raw_frame({}).with_columns(created_at=time, valid_until=time)
        assert fe.split_valid(raw, extra_columns=[UNTIL]).rejected["reasons"].to_list() == ["created_at_unreadable"]
        pairs = fe.anonymize(raw, unkeyed=True, now=NOW, extra_columns=[UNTIL])
        assert pairs.select("feedback_timestamp", "valid_until").row(0) == (None, None)
    in_time = raw_frame({"created_at": datetime.max}).with_columns(valid_until=pl.lit(datetime(1, 1, 1)))
    assert fe.split_valid(in_time, extra_columns=[UNTIL]).rejected.is_empty()
    pairs = fe.anonymize(in_time, unkeyed=True, now=NOW, extra_columns=[UNTIL])
    assert pairs["feedback_timestamp"].item() == datetime.max.replace(tzinfo=UTC)
