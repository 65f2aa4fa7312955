"""Every type of MySQL or MariaDB gives the same raw columns by both routes, or an error that names the column."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from databases import new_mysql_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import NOW, ROUTES, by, by_both_routes, execute, read, read_query, select

from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError

UUID = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
TIME = datetime(2025, 10, 25, 10)


@pytest.fixture(scope="module")
def url(mysql_admin: sa.Engine) -> Iterator[str]:
    """A database of utf8mb4, on a server whose sessions begin in an odd time zone and with odd settings."""
    with new_mysql_database(mysql_admin) as database:
        yield database


def stored(url: str, declared: str, *values: str) -> str:
    """A table `t` of one column of a declared type, with values written in SQL; gives FROM t."""
    rows = ", ".join(f"({number}, {value})" for number, value in enumerate(values))
    mode = "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+02:00'"
    execute(url, mode, f"CREATE OR REPLACE TABLE t (id int, x {declared})", f"INSERT INTO t VALUES {rows}")
    return "FROM t"


def values_of(url: str, route: str, column: str, declared: str, *values: str) -> list[tuple[Any, pl.DataType]]:
    """Return the values of a raw column in their order, and their dtype."""
    ids = {} if column == "feedback_id" else {"feedback_id": "id"}
    frame = read(by(route, url), query=select(url, stored(url, declared, *values), **ids, **{column: "x"}))
    return [(value, frame.schema[column]) for value in frame[column]]


@pytest.mark.sample(
    "bigint unsigned-18446744073709551615-18446744073709551615-UInt64-connectorx",
    "char(9)-'ab '-ab-String-sqlalchemy",
    "int-NULL-None-Int64-connectorx",
    "tinyint--7--7-Int64-connectorx",
    "uuid-'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'-a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-String-sqlalchemy",
    "varchar(20) character set latin1 collate latin1_bin-'rec-\\xe9'-rec-\\xe9-String-sqlalchemy",
    "varchar(20) collate utf8mb4_nopad_bin-'Rec-\\xe9\\U0001f600 '-Rec-\\xe9\\U0001f600 -String-connectorx",
    "varchar(9)-''-None-String-connectorx",
)
@by_both_routes
@pytest.mark.parametrize(
    ("declared", "sql", "expected", "dtype"),
    [
        ("tinyint", "-7", -7, pl.Int64),
        ("mediumint unsigned", "16777215", 16777215, pl.Int64),
        ("int unsigned", f"{2**32 - 1}", 2**32 - 1, pl.Int64),
        ("bigint", f"{-(2**63)}", -(2**63), pl.Int64),
        ("bigint unsigned", f"{2**64 - 1}", 2**64 - 1, pl.UInt64),
        ("varchar(20)", "'rec-1'", "rec-1", pl.String),
        ("varchar(20) collate utf8mb4_nopad_bin", "'Rec-é😀 '", "Rec-é😀 ", pl.String),
        ("varchar(20) collate utf8mb4_bin", "'rec-é'", "rec-é", pl.String),
        ("varchar(20) character set latin1 collate latin1_bin", "'rec-é'", "rec-é", pl.String),
        ("char(9)", "'ab '", "ab", pl.String),
        ("text", "'ab'", "ab", pl.String),
        ("enum('a', 'b')", "'b'", "b", pl.String),
        ("uuid", f"'{UUID}'", UUID.lower(), pl.String),
        ("varchar(9)", "''", None, pl.String),
        ("int", "NULL", None, pl.Int64),
    ],
)
def test_ids_are_integers_or_text(
    url: str, route: str, declared: str, sql: str, expected: Any, dtype: pl.DataType
) -> None:
    """Never a float, also beyond 2**63; a UUID is in lower case."""
    names = ("feedback_id", "user_id", "analysis_id", "recommendation_id")
    frame = read(by(route, url), query=select(url, stored(url, declared, sql), **dict.fromkeys(names, "x")))
    for name in names:
        assert [(value, frame.schema[name]) for value in frame[name]] == [(expected, dtype)]


@by_both_routes
@pytest.mark.parametrize(
    ("declared", "sql", "expected", "dtype"),
    [
        ("tinyint unsigned", "4", 4, pl.Int64),
        ("decimal(3,1)", "4.5", 4.5, pl.Float64),
        ("decimal(30,0)", "4", 4.0, pl.Float64),
        ("float", "4.7", 4.699999809265137, pl.Float64),
        ("double", "4.7", 4.7, pl.Float64),
        ("smallint", "NULL", None, pl.Int64),
    ],
)
def test_ratings_are_integers_or_floats(
    url: str, route: str, declared: str, sql: str, expected: Any, dtype: pl.DataType
) -> None:
    """A fraction is rejected later, never rounded."""
    for column in ("helpful_rating", "age"):
        assert values_of(url, route, column, declared, sql) == [(expected, dtype)]


@pytest.mark.sample(
    "bit(1)-values2-expected2-connectorx",
    "boolean-values0-expected0-sqlalchemy",
    "tinyint(1)-values1-expected1-connectorx",
)
@by_both_routes
@pytest.mark.parametrize(
    ("declared", "values", "expected"),
    [
        ("boolean", ("true", "false", "NULL"), [True, False, None]),
        ("tinyint(1)", ("1", "0", "7"), [1, 0, 7]),
        ("bit(1)", ("b'1'", "b'0'", "NULL"), [True, False, None]),
        ("bigint unsigned", ("0", "1"), [False, True]),
    ],
)
def test_answers_are_booleans_or_other_numbers(
    url: str, route: str, declared: str, values: tuple[str, ...], expected: list[Any]
) -> None:
    """MySQL has no type of its own for it."""
    found = [value for value, _ in values_of(url, route, "would_recommend", declared, *values)]
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


@by_both_routes
@pytest.mark.parametrize("declared", ["json", "longtext", "varchar(99) character set latin1"])
def test_lists_are_json_text(url: str, route: str, declared: str) -> None:
    """A null in the first row does not matter."""
    rows = [
        value for value, _ in values_of(url, route, "rules_applied", declared, "NULL", """'["a b", "\\\\"é\\\\""]'""")
    ]
    assert rows[0] is None
    assert json.loads(rows[1]) == ["a b", '"é"']


@pytest.mark.sample(
    "datetime(6)-'0001-01-01'-expected4-sqlalchemy",
    "datetime(6)-'9999-12-31 23:59:59.999999'-None-connectorx",
    "datetime-'0000-00-00'-None-sqlalchemy",
    "datetime-'2024-02-31'-None-connectorx",
    "datetime-'2025-10-25 10:00:00'-expected0-connectorx",
    "timestamp NULL-'0000-00-00'-None-connectorx",
    "timestamp(6) NULL-'2025-10-25 12:00:00.123456'-expected3-sqlalchemy",
)
@by_both_routes
@pytest.mark.parametrize(
    ("declared", "sql", "expected"),
    [
        ("datetime", "'2025-10-25 10:00:00'", TIME),
        ("datetime(6)", "'2025-10-25T10:00:00.000001'", TIME.replace(microsecond=1)),
        ("timestamp", "'2025-10-25 12:00:00'", TIME),
        ("timestamp(6) NULL", "'2025-10-25 12:00:00.123456'", TIME.replace(microsecond=123_456)),
        ("datetime(6)", "'0001-01-01'", datetime(1, 1, 1)),
        ("datetime(6)", "'9999-12-31 23:59:59.999999'", None),
        ("datetime", "'0000-00-00'", None),
        ("datetime", "'2024-00-00'", None),
        ("datetime", "'2024-02-31'", None),
        ("datetime", "'2024-01-00'", None),
        ("datetime", "'0000-01-01'", None),
        ("datetime", "'0000-12-31'", None),
        ("timestamp NULL", "'0000-00-00'", None),
        ("datetime", "NULL", None),
    ],
)
def test_times_are_naive_utc(url: str, route: str, declared: str, sql: str, expected: datetime | None) -> None:
    """To the microsecond; a TIMESTAMP is an instant, and a nonexistent day is not a time."""
    found = values_of(url, route, "created_at", declared, sql)
    if "9999" in sql:
        assert found == []  # it lies in the future
    else:
        assert found == [(expected, pl.Datetime("us"))]


@by_both_routes
@pytest.mark.parametrize(
    ("column", "declared", "sql", "message"),
    [
        ("helpful_rating", "varchar(9)", "'5'", "helpful_rating is varchar, expected a number"),
        ("age", "date", "'2000-01-01'", "age is date, expected a number"),
        ("user_id", "decimal(3,1)", "1.5", "user_id is decimal, expected an integer, a UUID or text"),
        ("analysis_id", "binary(4)", "'abcd'", "analysis_id is binary, expected an integer, a UUID or text"),
        ("user_id", "blob", "'canary'", "user_id is binary, expected an integer, a UUID or text"),
        ("created_at", "varchar(30)", "'2025-10-25'", "created_at is varchar, expected a timestamp"),
        ("created_at", "date", "'2025-10-25'", "created_at is date, expected a timestamp"),
        ("created_at", "bigint", "1761386400", "created_at is bigint, expected a timestamp"),
        ("would_recommend", "varchar(9)", "'yes'", "would_recommend is varchar, expected a boolean"),
        ("timeframe", "int", "2", "timeframe is int, expected text"),
        ("rules_applied", "int", "1", "rules_applied is int, expected JSON text"),
        ("consent", "varchar(9)", "'1'", "consent is varchar, expected a boolean"),
        ("age", "point", "POINT(1, 2)", "age is of a user-defined type, expected a number"),
    ],
)
def test_column_of_wrong_type_is_reported(
    url: str, route: str, column: str, declared: str, sql: str, message: str
) -> None:
    """The message does not contain the value."""
    with pytest.raises(SourceError) as caught:
        values_of(url, route, column, declared, sql)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


IDS = ["a", "B", "b", "A", "10", "9", "é", "e", "z", "Z", "ä", "_", "😀", "日", "a ", "ß", "ss"]


@pytest.mark.sample("text-sqlalchemy", "varchar(9) collate utf8mb4_general_ci-connectorx")
@by_both_routes
@pytest.mark.parametrize("declared", ["varchar(9)", "varchar(9) collate utf8mb4_general_ci", "text"])
def test_text_ids_are_in_binary_order(url: str, route: str, declared: str) -> None:
    """Though a and A are equal to the collation, as are a and ä."""
    rest = stored(url, declared, *(f"'{id_}'" for id_ in IDS))
    frame = read(by(route, url), query=select(url, rest, feedback_id="x"))
    assert frame["feedback_id"].to_list() == sorted(IDS)


BOUNDS = st.sampled_from([NOW, datetime(2025, 10, 24, 10, 30, 15, 250_000)])
NUDGES = st.sampled_from([-1_000_000, -1, 0, 1, 250_000, 86_400_000_000])
ROWS = st.lists(st.tuples(BOUNDS, NUDGES, st.integers(0, 99), st.sampled_from([True, False, None])), max_size=12)


@settings(max_examples=settings().max_examples // 10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, kind=st.sampled_from(["datetime(6)", "timestamp(6) NULL"]), route=st.sampled_from(ROUTES))
def test_window_equals_window_of_python(
    url: str, rows: list[tuple[datetime, int, int, bool | None]], kind: str, route: str
) -> None:
    """Half-open to the microsecond, in order, and those without consent counted."""
    window = Window(datetime(2025, 10, 24, 10, 30, 15, 250_000), NOW)
    given_rows = [(edge + timedelta(microseconds=nudge), id_, consent) for edge, nudge, id_, consent in rows]
    truth = {True: "1", False: "0", None: "NULL"}
    values = [f"({id_}, '{time}', {truth[consent]})" for time, id_, consent in given_rows]
    insert = [f"INSERT INTO w VALUES {', '.join(values)}"] if values else []
    table = f"CREATE OR REPLACE TABLE w (id int, x {kind}, c boolean)"
    execute(url, "SET time_zone = '+00:00'", table, *insert)
    query = select(url, "FROM w", feedback_id="id", created_at="x", consent="c")
    frame, excluded = read_query(by(route, url), query, window)
    inside = [row for row in given_rows if window.start <= row[0] < window.end]  # type: ignore[operator]
    expected = sorted((time, id_) for time, id_, consent in inside if consent)
    assert list(frame.select("created_at", "feedback_id").iter_rows()) == expected
    assert excluded == sum(not consent for _, _, consent in inside)


@by_both_routes
def test_default_schema_with_other_types_is_read(mysql_database: str, route: str) -> None:
    """UUIDs for ids, decimal ratings, a bit for a boolean, text for lists, an enum, a TIMESTAMP, names in capitals.

    Ids that are texts come in the canonical spelling of their collation.
    """
    execute(
        mysql_database,
        "SET time_zone = '+02:00'",
        "CREATE TABLE recommendation_records (id char(36), recommendation_id char(12), conditions_analyzed longtext, "
        "rules_applied json)",
        "CREATE TABLE profiles (id bigint unsigned, user_id char(36), age tinyint unsigned)",
        "CREATE TABLE recommendation_feedbacks (Id bigint unsigned, user_id char(36), analysis_id varchar(9), "
        "recommendation_id char(36), helpful_rating decimal(2,1), product_satisfaction float, "
        "routine_completion_pct smallint, would_recommend bit(1), timeframe enum('1_week', '2_weeks'), "
        "Created_At timestamp(3))",
        f"INSERT INTO recommendation_records VALUES ('{UUID}', 'rec_1', '[\"a\"]', '[\"r\"]')",
        f"INSERT INTO profiles VALUES (1, '{UUID}', 30)",
        f"INSERT INTO recommendation_feedbacks VALUES ({2**64 - 1}, '{UUID}', 'A-1', '{UUID}', 4, 3, 0, b'0', "
        "'2_weeks', '2025-10-25 12:00:00')",
    )
    assert read(by(route, mysql_database)).row(0, named=True) == {
        "feedback_id": 2**64 - 1,
        "user_id": UUID.lower(),
        "analysis_id": "a-1",
        "recommendation_id": "rec_1",
        "helpful_rating": 4.0,
        "product_satisfaction": 3.0,
        "routine_completion_pct": 0,
        "would_recommend": False,
        "conditions_analyzed": '["a"]',
        "rules_applied": '["r"]',
        "timeframe": "2_weeks",
        "age": 30,
        "created_at": TIME,
    }
