"""Windows and order of rows in the database: half-open to the microsecond, for every format of a time."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, new_postgres_database
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import NOW, ROUTES, by, by_both_routes, execute, read, read_query, select

from feedback_etl.database.relation import build_default_relation
from feedback_etl.database.sql import select_feedback
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError

START = datetime(2025, 10, 24, 10, 30, 15, 250_000)
WINDOW = Window(START, NOW)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def odd_zone(postgres_admin: sa.Engine) -> Iterator[str]:
    """A PostgreSQL database whose sessions begin in a time zone with an odd offset."""
    with new_postgres_database(postgres_admin) as url:
        execute(url, f"ALTER DATABASE {sa.make_url(url).database} SET timezone TO 'America/St_Johns'")
        yield url


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite file; the rows come with the query."""
    path = tmp_path_factory.mktemp("sqlite") / "a.db"
    path.touch()
    return f"sqlite:///{path}"


def query_rows(url: str, rows: list[tuple[str, str]], **changed: str) -> str:
    """A query that yields rows of (id, created_at), each written in SQL."""
    values = ", ".join(f"({id_}, {time})" for id_, time in rows) or "(NULL, NULL)"
    columns = {"feedback_id": "id", "created_at": "time", **changed}
    nothing = "" if rows else " WHERE false"
    return f"WITH v (id, time) AS (VALUES {values}) {select(url, f'FROM v{nothing}', **columns)}"


# The forms of a time.


def sqlite_forms(time: datetime) -> Iterator[str]:
    """All formats in which SQLite applications write an instant of UTC."""
    for offset, zone in (("", UTC), ("Z", UTC), ("+00:00", UTC)):
        yield from (f"{text}{offset}" for text in plain_forms(time.replace(tzinfo=UTC).astimezone(zone)))
    for minutes in (120, -150, 14 * 60, -12 * 60):
        local = time.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
        offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        yield from (f"{text}{offset}" for text in plain_forms(local))
    if time == datetime(time.year, time.month, time.day):
        yield f"{time:%Y-%m-%d}"


def plain_forms(time: datetime) -> Iterator[str]:
    """The formats with a blank or a T, and with as many digits as needed or more."""
    digits = f"{time.microsecond:06}".rstrip("0")
    fractions = {f".{digits:0<{length}}" for length in range(max(len(digits), 1), 7)} | ({""} if not digits else set())
    for separator in " T":
        for fraction in sorted(fractions):
            yield f"{time:%Y-%m-%d}{separator}{time:%H:%M:%S}{fraction}"


NEAR = st.builds(
    lambda edge, step, count: edge + step * count,
    st.sampled_from([START, NOW]),
    st.sampled_from([MICROSECOND, timedelta(milliseconds=1), timedelta(seconds=1), timedelta(hours=1), timedelta(1)]),
    st.integers(-3, 3),
)
CONSENTS = st.sampled_from([True, False, None])
ROWS = st.lists(st.tuples(NEAR, st.integers(0, 99), CONSENTS), max_size=12)


def expected_window(rows: list[tuple[datetime, int, bool | None]]) -> tuple[list[tuple[datetime, int]], int]:
    """Select the window in plain Python: its rows in order, and the number of rows without consent."""
    inside = [(time, id_, consent) for time, id_, consent in rows if START <= time < NOW]
    return sorted((time, id_) for time, id_, consent in inside if consent), sum(not row[2] for row in inside)


def read_window(url: str, rows: list[tuple[str, str, bool | None]]) -> tuple[list[tuple[datetime, int]], int]:
    """Read the window from rows of (id, created_at, consent) written in SQL."""
    truth = {True: "1", False: "0", None: "NULL"}
    values = [(id_, f"{time}, CAST({truth[consent]} AS integer)") for id_, time, consent in rows]
    query = query_rows(url, values, consent="consent").replace("v (id, time)", "v (id, time, consent)")
    frame, excluded = read_query(url, query.replace("(NULL, NULL)", "(NULL, NULL, NULL)"), WINDOW)
    return list(frame.select("created_at", "feedback_id").iter_rows()), excluded


@settings(max_examples=settings().max_examples // 4)
@given(rows=ROWS, data=st.data())
def test_window_of_sqlite_equals_window_of_python(
    sqlite_url: str, rows: list[tuple[datetime, int, bool | None]], data: st.DataObject
) -> None:
    """In every time format, rows are selected exactly, ordered by the instant, and counted if excluded."""
    texts = [data.draw(st.sampled_from(sorted(sqlite_forms(time)))) for time, _, _ in rows]
    written = [(str(id_), f"'{text}'", consent) for (_, id_, consent), text in zip(rows, texts, strict=True)]
    assert read_window(sqlite_url, written) == expected_window(rows)


@settings(max_examples=settings().max_examples // 8)
@given(rows=ROWS, kind=st.sampled_from(["timestamp", "timestamptz"]), route=st.sampled_from(ROUTES), data=st.data())
def test_window_of_postgresql_equals_window_of_python(
    odd_zone: str, rows: list[tuple[datetime, int, bool | None]], kind: str, route: str, data: st.DataObject
) -> None:
    """With and without a time zone, in a session whose own is not UTC."""
    offset = "+00" if kind == "timestamptz" else ""
    written = [(str(id_), f"{kind} '{time}{offset}'", consent) for time, id_, consent in rows]
    if not rows:
        written = [("0", f"{kind} '2000-01-01'", True)]
    assert read_window(by(route, odd_zone), written) == expected_window(rows)


@pytest.mark.parametrize("edge", [START, NOW, datetime(2025, 10, 25)])
def test_window_edges_are_exact_for_every_time_format_on_sqlite(sqlite_url: str, edge: datetime) -> None:
    """The start is in the window, the end is not; a microsecond before each it is the other way round."""
    times = [edge - MICROSECOND, edge, edge + MICROSECOND]
    forms = [(time, form) for time in times for form in sqlite_forms(time)]
    query = query_rows(sqlite_url, [(str(number), f"'{form}'") for number, (_, form) in enumerate(forms)])
    for start, end in ((edge, NOW + timedelta(1)), (datetime(2025, 1, 1), edge)):
        frame = read(sqlite_url, query=query, since=start, until=end, now=NOW + timedelta(2))
        chosen = [(time, number) for number, (time, _) in enumerate(forms) if start <= time < end]
        assert list(frame.select("created_at", "feedback_id").iter_rows()) == sorted(chosen)


@by_both_routes
def test_rows_without_a_time_come_last(database: Database, route: str) -> None:
    """Rows after the present are not read."""
    times = {1: None, 2: NOW, 3: NOW - MICROSECOND, 4: datetime(1999, 1, 1), 5: None, 6: datetime(9000, 1, 1)}
    database.fill(feedbacks=[{"id": id_, "created_at": time} for id_, time in times.items()])
    assert read(by(route, database.url))["feedback_id"].to_list() == [4, 3, 1, 5]
    assert read(by(route, database.url), since=datetime(1999, 1, 1))["feedback_id"].to_list() == [4, 3]


@pytest.mark.sample("mysql-connectorx", "postgresql-sqlalchemy", "sqlite-connectorx", "sqlite-sqlalchemy")
@by_both_routes
def test_window_may_span_the_calendar(database: Database, route: str) -> None:
    """From the year 1 on, and up to the year 9999."""
    url = by(route, database.url)
    times = [NOW - timedelta(2), datetime(1, 1, 2), datetime(1, 1, 1, 12)]
    database.fill(feedbacks=[{"id": id_, "created_at": time} for id_, time in enumerate(times)])
    for days_back, ids in {1: [], 3: [0], (NOW - datetime.min).days: [2, 1, 0], -1: [2, 1, 0]}.items():
        assert read(url, days_back=days_back)["feedback_id"].to_list() == ids
    assert read(url, since="0001-01-01", now=datetime.max).height == 3


@by_both_routes
@pytest.mark.parametrize("kind", ["timestamp", "timestamptz"])
@pytest.mark.parametrize("time", ["-infinity", "0044-03-15 BC"])
def test_time_outside_the_calendar_is_unreadable(odd_zone: str, route: str, kind: str, time: str) -> None:
    """PostgreSQL has such times, Python has none: the row is rejected later."""
    url = by(route, odd_zone)
    query = query_rows(url, [("1", f"{kind} '{time}'"), ("2", f"{kind} 'infinity'")])
    assert read(url, query=query)["created_at"].to_list() == [None, None]


@pytest.mark.parametrize("given_by", ["connectorx", "sqlalchemy", "connection"])
def test_custom_query_runs_in_utc(odd_zone: str, given_by: str) -> None:
    """A cast of a time with a time zone gives the same result in every session."""
    query = select(odd_zone, created_at="(timestamptz '2025-10-25 12:00:00+02')::timestamp")
    with contextlib.ExitStack() as stack:
        engine = sa.create_engine(odd_zone, poolclass=sa.NullPool)
        given = stack.enter_context(engine.connect()) if given_by == "connection" else by(given_by, odd_zone)
        assert read(given, query=query)["created_at"].to_list() == [datetime(2025, 10, 25, 10)]


def test_unreadable_text_time_is_read_on_sqlite(sqlite_url: str) -> None:
    """The row is rejected later, and not lost."""
    forms = ["yesterday", "", "2025-13-01 10:00:00", "25.10.2025", "2025-10-25 10:00", "now"]
    query = query_rows(sqlite_url, [(str(number), f"'{form}'") for number, form in enumerate(forms)])
    frame = read(sqlite_url, query=query)
    assert sorted(frame["feedback_id"]) == list(range(len(forms)))
    assert frame["created_at"].null_count() == len(forms)


@by_both_routes
@pytest.mark.parametrize("value", [1761386400, 1761386400.5, b"2025-10-25 10:00:00"])
def test_numeric_times_on_sqlite_are_refused_with_a_remedy(
    sqlite_database: Database, sqlite_path: Path, route: str, value: Any
) -> None:
    """SQLite sorts numbers before or after every text, so they would be in no window."""
    with closing(sqlite3.connect(sqlite_path)) as connection, connection:
        connection.execute("INSERT INTO recommendation_feedbacks (id, created_at) VALUES (1, '2025-10-25 10:00:00')")
        connection.execute("INSERT INTO recommendation_feedbacks (id, created_at) VALUES (2, ?)", [value])
    with pytest.raises(SourceError, match=r"created_at contains numbers .* datetime\(created_at, 'unixepoch'\)"):
        read(by(route, sqlite_database.url))
    if not isinstance(value, bytes):
        query = query_rows(sqlite_database.url, [("1", f"datetime({int(value)}, 'unixepoch')")])
        assert read(sqlite_database.url, query=query)["created_at"].to_list() == [datetime(2025, 10, 25, 10)]


IDS = ["a", "B", "b", "A", "10", "9", "é", "z", "Z", "ä", "_", "😀", "日"]


@by_both_routes
def test_text_ids_are_in_binary_order_on_postgresql(odd_zone: str, route: str) -> None:
    """Also if the type or the collation of the column sorts differently."""
    names = ", ".join(f"'{id_}'" for id_ in reversed(IDS))
    execute(odd_zone, "DROP TYPE IF EXISTS label", f"CREATE TYPE label AS ENUM ({names})")
    for kind in ("text", "label", "char(3)"):
        query = query_rows(odd_zone, [(f"'{id_}'::{kind}", "timestamp '2025-10-25 10:00:00'") for id_ in IDS])
        assert read(by(route, odd_zone), query=query)["feedback_id"].to_list() == sorted(IDS)


@pytest.mark.parametrize("kind", ["text", "varchar", "bpchar", "unknown"])
def test_order_of_text_ids_names_a_collation(kind: str) -> None:
    """The servers of the tests may have no collation that differs."""
    sql = select_feedback(replace(build_default_relation("postgresql"), types={"feedback_id": kind}), WINDOW)
    assert sql.endswith('CAST(f.id AS TEXT) COLLATE "C"')


@by_both_routes
def test_text_ids_are_in_binary_order_on_sqlite(sqlite_url: str, route: str) -> None:
    """For every collation of the column."""
    query = query_rows(
        sqlite_url, [(f"'{id_}'", "'2025-10-25 10:00:00'") for id_ in IDS], feedback_id="id COLLATE NOCASE"
    )
    assert read(by(route, sqlite_url), query=query)["feedback_id"].to_list() == sorted(IDS)


@pytest.mark.parametrize("of_ids", [lambda n: str(n), lambda n: f"uuid '{n:032x}'"], ids=["integers", "UUIDs"])
def test_other_ids_are_in_natural_order(odd_zone: str, of_ids: Callable[[int], str]) -> None:
    """Integers by number, UUIDs as their text."""
    query = query_rows(
        odd_zone, [(of_ids(number), "timestamp '2025-10-25 10:00:00'") for number in (100, 9, 10, 2**33)]
    )
    ids = read(odd_zone, query=query)["feedback_id"].to_list()
    assert ids == sorted(ids)


def test_window_uses_the_index_on_created_at(sqlite_database: Database) -> None:
    """On SQLite too, where times are compared as text."""
    sql = select_feedback(build_default_relation("sqlite"), WINDOW)
    with sqlite_database.engine.connect() as connection:
        plan = " ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
    assert "USING INDEX ix_recommendation_feedbacks_created_at" in plan
