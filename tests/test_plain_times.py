"""Times of SQLite that are sorted as texts: the same rows in the same order as by their instants."""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from databases import Database
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import NOW, by, by_both_routes, execute, select

from feedback_etl.database.batches import ReadAgainError, open_batches
from feedback_etl.database.connect import DatabaseConnection, open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.plain_times import are_in_order
from feedback_etl.database.read import ReadRequest
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import count_rows, count_windows, select_feedback, select_last_time
from feedback_etl.database.statements import fetch_count, fetch_rows
from feedback_etl.database.window import Window
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.load import _collect_raw

HOUR = timedelta(hours=1)
WINDOWS = [Window(None, NOW), Window(NOW - HOUR, NOW), Window(NOW - HOUR, NOW + timedelta(microseconds=500))]

SPELLINGS: dict[str, Callable[[datetime], str | None]] = {
    "isoformat": lambda time: time.isoformat(" "),
    "seconds": lambda time: f"{time:%Y-%m-%d %H:%M:%S}",
    "milliseconds": lambda time: time.isoformat(" ", "milliseconds"),
    "microseconds": lambda time: time.isoformat(" ", "microseconds"),
    "tenths": lambda time: f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 100_000}",
    "T": lambda time: time.isoformat(),
    "Z": lambda time: f"{time.isoformat(' ', 'microseconds')}Z",
    "offset": lambda time: f"{time + 2 * HOUR:%Y-%m-%d %H:%M:%S}+02:00",
    "short offset": lambda time: f"{time - HOUR:%Y-%m-%d %H:%M:%S}.5-0100",
    "blank": lambda time: f"{time:%Y-%m-%d %H:%M:%S}       ",
    "day": lambda time: f"{time:%Y-%m-%d}",
    "minutes": lambda time: f"{time:%Y-%m-%d %H:%M}",
    "no day": lambda time: f"2025-02-30 {time:%H:%M:%S}",
    "24 o'clock": lambda time: f"{time:%Y-%m-%d} 24:00:00",
    "year 0": lambda time: f"0000-{time:%m-%d %H:%M:%S}",
    "empty": lambda _: "",
    "null": lambda _: None,
}
PLAIN = [{"isoformat", "seconds"}, {"microseconds"}, {"milliseconds"}, {"seconds"}, {"isoformat"}]
SPELLING_SETS = st.one_of(st.sampled_from(PLAIN), st.sets(st.sampled_from(sorted(SPELLINGS)), min_size=1, max_size=3))
TIMES = st.builds(
    lambda edge, microseconds: edge + timedelta(microseconds=microseconds),
    st.sampled_from([NOW, NOW - HOUR, NOW - timedelta(1), NOW - timedelta(4), datetime(2024, 2, 29)]),
    st.sampled_from([0, 0, 1, -1, 500, 500_000, 999_600, -500, 1_000_000]),
)


def query_times(url: str, texts: list[str | None]) -> str:
    """A query that yields a row of each text, with ids that fall."""
    rows = [(len(texts) - number, "NULL" if text is None else f"'{text}'") for number, text in enumerate(texts)]
    values = ", ".join(f"({id_}, {text})" for id_, text in rows)
    return f"WITH v (id, time) AS (VALUES {values}) " + select(
        url, "FROM v", feedback_id="id", created_at="time", timeframe="time"
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite file; the rows come with the query."""
    path = tmp_path_factory.mktemp("sqlite") / "a.db"
    path.touch()
    return by("sqlalchemy", f"sqlite:///{path}")


def read_rows(source: DatabaseConnection, relation: SourceRelation, window: Window) -> list[Any]:
    """The rows of a window, in batches of two."""
    with open_batches(source, relation, window, ReadOptions(batch_size=2)) as batches:
        frame = pl.concat(batches, how="vertical_relaxed")
    return frame.select("feedback_id", pl.col("created_at").cast(pl.Int64), pl.col("timeframe").cast(pl.String)).rows()


@settings(max_examples=settings().max_examples // 4)
@given(
    spellings=SPELLING_SETS,
    times=st.lists(TIMES, min_size=1, max_size=9),
    window=st.sampled_from(WINDOWS),
    data=st.data(),
)
def test_rows_sorted_as_texts_are_those_sorted_by_instant(
    url: str, spellings: set[str], times: list[datetime], window: Window, data: st.DataObject
) -> None:
    """If the inspection finds plain times: rows, order, counts and last time. If not: the same, or read again."""
    texts = [SPELLINGS[data.draw(st.sampled_from(sorted(spellings)))](time) for time in times]
    with open_connection(url) as source:
        relation = inspect_source(source, query=query_times(url, texts))
        by_instant, by_text = (replace(relation, has_plain_times=is_plain) for is_plain in (False, True))
        expected = read_rows(source, by_instant, window)
        with nullcontext() if relation.has_plain_times else suppress(ReadAgainError):
            assert read_rows(source, by_text, window) == expected
        if relation.has_plain_times:
            assert fetch_count(source, count_rows(by_text, window)) == len(expected)
            (last, expected_last) = (
                fetch_rows(source, select_last_time(form, window))[0][0] for form in (by_text, by_instant)
            )
            assert (last and datetime.fromisoformat(last)) == (expected_last and datetime.fromisoformat(expected_last))
            parts = [Window(window.start, NOW - HOUR / 2), Window(NOW - HOUR / 2, NOW + HOUR)]
            counts = [fetch_rows(source, count_windows(form, parts)) for form in (by_text, by_instant)]
            assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("texts", "is_plain"),
    [
        (["2025-10-25 10:00:00", "2025-10-25 10:00:00.999999", None], True),
        (["2025-10-25 10:00:00.000000", "2024-02-29 23:59:59.999999"], True),
        (["2025-10-25 10:00:00.000", "2025-10-25 10:00:00.999"], True),
        ([None], True),
        (["2025-10-25 10:00:00", "2025-10-25 10:00:00.000000"], False),
        (["2025-10-25 10:00:00", "2025-10-25 10:00:00.500"], False),
        (["2025-10-25 10:00:00", ""], False),
        *((["2025-10-25 10:00:00", SPELLINGS[name](NOW)], False) for name in [*SPELLINGS][4:-1]),
    ],
)
def test_times_are_plain_if_equal_times_have_equal_texts(url: str, texts: list[str | None], is_plain: bool) -> None:
    """Those that Python, SQLAlchemy and SQLite write, each alone."""
    with open_connection(url) as source:
        assert inspect_source(source, query=query_times(url, texts)).has_plain_times is is_plain


def test_rows_of_a_query_without_a_time_come_last(url: str) -> None:
    """They are not read a second time: the selected text of a null is empty."""
    with open_connection(url) as source:
        relation = inspect_source(source, query=query_times(url, [None, "2025-10-25 10:00:00"]))
        assert [id_ for id_, *_ in read_rows(source, relation, WINDOWS[0])] == [1, 2]


def test_cursor_has_to_be_plain_too(sqlite_database: Database) -> None:
    """Times of both columns are compared."""
    for text in ("2025-10-25T10:00:00Z", "2025-10-25 10:00:00"):
        sqlite_database.fill(feedbacks=[{"created_at": NOW}])
        execute(sqlite_database.url, f"UPDATE recommendation_feedbacks SET updated_at = '{text}'")
        with open_connection(sqlite_database.url) as source:
            assert inspect_source(source, cursor="updated_at").has_plain_times is ("T" not in text)


@pytest.mark.parametrize("window", WINDOWS[:2])
def test_plain_times_are_read_in_the_order_of_the_index(sqlite_database: Database, window: Window) -> None:
    """Nothing is sorted."""
    with open_connection(sqlite_database.url) as source:
        sql = select_feedback(inspect_source(source), window)
        plan = " ".join(str(row[3]) for row in fetch_rows(source, f"EXPLAIN QUERY PLAN {sql}"))
    assert "USING INDEX ix_recommendation_feedbacks_created_at" in plan
    assert "TEMP B-TREE" not in plan


@by_both_routes
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("2025-10-25T09:00:00Z", [2, 1, 3, 4, 5]),
        ("2025-10-25 11:30:00+02:00", [2, 1, 3, 4, 5]),
        ("2025-10-25 10:00:00.000000", [2, 3, 1, 4, 5]),
        ("2025-10-25 10:00", [2, 3, 4, 5, 1]),
    ],
)
@pytest.mark.parametrize("window", [Window(None, NOW), Window(NOW - timedelta(1), NOW)])
def test_time_of_another_form_may_be_written_between_inspection_and_reading(
    sqlite_database: Database, route: str, text: str, ids: list[int], window: Window
) -> None:
    """Its row is in its place: the rows are read again."""
    times = ["2025-10-25 08:59:59", "2025-10-25 09:30:00", "2025-10-25 10:00:00", "2025-10-25 10:00:01"]
    sqlite_database.fill(feedbacks=[{"id": number, "created_at": time} for number, time in enumerate(times, 2)])
    later = [{"id": 1, "created_at": text}]

    def write(phase: str) -> None:
        if phase == "counting rows" and later:
            sqlite_database.fill(feedbacks=[later.pop()])

    request = ReadRequest(by(route, sqlite_database.url), window, ReadOptions(), on_phase=write)
    assert _collect_raw(request)["feedback_id"].to_list() == ids
    assert not later


def test_order_is_verified() -> None:
    """Across each pair of rows."""
    first, second = datetime(2025, 1, 1), datetime(2025, 1, 2)

    def is_verified(*rows: tuple[str, datetime | None]) -> bool:
        return are_in_order(pl.DataFrame(rows, {"text": pl.String, "time": pl.Datetime("us")}, orient="row"))

    assert is_verified()
    assert is_verified(("a", first), ("a", first), ("b", second), ("", None), ("", None))
    assert not is_verified(("a", second), ("b", first))
    assert not is_verified(("a", first), ("b", first))
    assert not is_verified(("", None), ("a", first))
