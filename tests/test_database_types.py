"""Every type of a database gives the same raw columns by both routes, or an error that names the column."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database, new_postgres_database
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reading import by, by_both_routes, execute, read, select

from feedback_etl.database.raw_types import to_raw
from feedback_etl.errors import SourceError
from feedback_etl.schema.classic import CLASSIC_SCHEMA

UUID = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
TIME = datetime(2025, 10, 25, 10)


def values_of(url: str, route: str, sql: str, *columns: str) -> list[tuple[Any, Any]]:
    """Return the value and the dtype that one value in each of some columns becomes."""
    frame = read(by(route, url), query=select(url, **dict.fromkeys(columns, sql)))
    return [(frame[column].item(), frame.schema[column]) for column in columns]


@pytest.fixture(scope="module")
def types(postgres_admin: sa.Engine) -> Iterator[str]:
    """A database with types of its own."""
    with new_postgres_database(postgres_admin) as url:
        execute(
            url,
            "CREATE TYPE frame AS ENUM ('2_weeks', '1_week')",
            "CREATE DOMAIN number AS int",
            "CREATE DOMAIN name_of_nine AS varchar(9)",
        )
        yield url


@by_both_routes
@pytest.mark.parametrize(
    ("sql", "expected", "dtype"),
    [
        ("7::smallint", 7, pl.Int64),
        ("7", 7, pl.Int64),
        (f"{2**63 - 1}", 2**63 - 1, pl.Int64),
        (f"({-(2**63)})::bigint", -(2**63), pl.Int64),
        ("7::number", 7, pl.Int64),
        ("'rec-é'", "rec-é", pl.String),
        ("'a '::varchar(9)", "a ", pl.String),
        ("'ab'::char(9)", "ab", pl.String),
        ("'ab'::name_of_nine", "ab", pl.String),
        ("'1_week'::frame", "1_week", pl.String),
        (f"'{UUID}'::uuid", UUID.lower(), pl.String),
        ("''", None, pl.String),
        ("NULL::int", None, pl.Int64),
        ("NULL::bigint", None, pl.Int64),
    ],
)
def test_ids_are_integers_or_text_on_postgresql(types: str, route: str, sql: str, expected: Any, dtype: Any) -> None:
    """Never a float; a UUID is in lower case, and a CHAR without the blanks it is filled with."""
    found = values_of(types, route, sql, "feedback_id", "user_id", "analysis_id", "recommendation_id")
    assert found == [(expected, dtype)] * 4


@by_both_routes
@pytest.mark.parametrize(
    ("sql", "expected", "dtype"),
    [
        ("4::smallint", 4, pl.Int64),
        ("4::bigint", 4, pl.Int64),
        ("4::numeric", 4.0, pl.Float64),
        ("4.5::numeric(3,1)", 4.5, pl.Float64),
        ("1e40::numeric", 1e40, pl.Float64),
        ("1e-40::numeric", 1e-40, pl.Float64),
        ("'Infinity'::numeric", float("inf"), pl.Float64),
        ("4.7::real", 4.699999809265137, pl.Float64),
        ("4.7::double precision", 4.7, pl.Float64),
        ("NULL::smallint", None, pl.Int64),
    ],
)
def test_ratings_are_integers_or_floats_on_postgresql(
    postgres_url: str, route: str, sql: str, expected: Any, dtype: Any
) -> None:
    """A fraction is rejected later, never rounded."""
    columns = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "age")
    for found, found_dtype in values_of(postgres_url, route, sql, *columns):
        assert found_dtype == dtype
        assert found == (pytest.approx(expected) if "real" in sql else expected)


@by_both_routes
def test_nan_rating_is_nan(postgres_url: str, route: str) -> None:
    """PostgreSQL's numeric has a NaN, which drivers cannot read."""
    ((found, _),) = values_of(postgres_url, route, "'NaN'::numeric", "helpful_rating")
    assert math.isnan(found)


@by_both_routes
@pytest.mark.parametrize(
    ("sql", "expected", "dtype"),
    [
        ("true", True, pl.Boolean),
        ("false", False, pl.Boolean),
        ("NULL::boolean", None, pl.Boolean),
        ("1", True, pl.Boolean),
        ("0::smallint", False, pl.Boolean),
        ("NULL::bigint", None, pl.Boolean),
        ("7", 7, pl.Int64),
        ("-1::smallint", -1, pl.Int64),
    ],
)
def test_answers_are_booleans_or_other_numbers(
    postgres_url: str, route: str, sql: str, expected: Any, dtype: Any
) -> None:
    """0 and 1 are false and true; any other number is unchanged and rejected later."""
    assert values_of(postgres_url, route, sql, "would_recommend") == [(expected, dtype)]


@by_both_routes
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("""'["a b", "\\"é\\""]'""", ["a b", '"é"']),
        ("""'["a b", "\\"é\\""]'::json""", ["a b", '"é"']),
        ("""'["a b", "\\"é\\""]'::jsonb""", ["a b", '"é"']),
        ("""ARRAY['a b', '"é"']""", ["a b", '"é"']),
        ("""ARRAY['a b', '"é"']::varchar[]""", ["a b", '"é"']),
        ("'{}'::text[]", []),
        ("'null'::json", None),
        ("'null'", None),
        ("'[]'::jsonb", []),
        ("'{\"a\": 1}'::jsonb", {"a": 1}),
        ("ARRAY['a', NULL]", ["a", None]),
    ],
)
def test_lists_are_json_text_on_postgresql(postgres_url: str, route: str, sql: str, expected: Any) -> None:
    """Whether it is stored as json, jsonb, text or an array."""
    for found, dtype in values_of(postgres_url, route, sql, "conditions_analyzed", "rules_applied"):
        assert dtype == pl.String
        assert json.loads(found) == expected


@by_both_routes
@pytest.mark.parametrize("sql", ["NULL::json", "NULL::jsonb", "NULL::text", "NULL::text[]", "''"])
def test_missing_list_is_null_on_postgresql(postgres_url: str, route: str, sql: str) -> None:
    """An empty text is null too."""
    assert values_of(postgres_url, route, sql, "rules_applied") == [(None, pl.String)]


@by_both_routes
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("'2_weeks'", "2_weeks"),
        ("'2_weeks'::char(32)", "2_weeks"),
        ("'2_weeks'::frame", "2_weeks"),
        ("NULL::text", None),
        ("''", None),
    ],
)
def test_timeframe_is_text_on_postgresql(types: str, route: str, sql: str, expected: str | None) -> None:
    """Also where it is an enum."""
    assert values_of(types, route, sql, "timeframe") == [(expected, pl.String)]


@by_both_routes
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("timestamp '2025-10-25 10:00:00'", TIME),
        ("timestamp(0) '2025-10-25 10:00:00'", TIME),
        ("timestamptz '2025-10-25 12:00:00+02'", TIME),
        ("timestamp '2025-10-25 10:00:00.123456'", TIME.replace(microsecond=123_456)),
        ("timestamptz '0001-01-01 00:00:00+00'", datetime(1, 1, 1)),
        ("NULL::timestamptz", None),
    ],
)
def test_times_are_naive_utc_on_postgresql(postgres_url: str, route: str, sql: str, expected: datetime | None) -> None:
    """To the microsecond."""
    assert values_of(postgres_url, route, sql, "created_at") == [(expected, pl.Datetime("us"))]


# SQLite, which stores what it is given.


def stored(path: Path, declared: str, values: list[Any], column: str) -> str:
    """A table of one column of a declared type, and the query that reads it as a raw column."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, x {declared})")
        connection.executemany("INSERT INTO t (x) VALUES (?)", [(value,) for value in values])
    ids = {} if column == "feedback_id" else {"feedback_id": "id"}
    return select("sqlite://", "FROM t", **ids, **{column: "x"})


@by_both_routes
@pytest.mark.parametrize(
    ("column", "declared", "values", "expected"),
    [
        ("helpful_rating", "INTEGER", [None, 5], [None, 5]),
        ("helpful_rating", "INTEGER", [5, 4.5], [5.0, 4.5]),
        ("helpful_rating", "NUMERIC(3,1)", [None, 4.5, 5], [None, 4.5, 5.0]),
        ("helpful_rating", "NUMERIC(3,1)", [5, None, 4.5], [5.0, None, 4.5]),
        ("helpful_rating", "REAL", [5, 4.5], [5.0, 4.5]),
        ("helpful_rating", "", [None, 5], [None, 5]),
        ("helpful_rating", "BOOLEAN", [5, 0], [5, 0]),
        ("helpful_rating", "TEXT", [None, None], [None, None]),
        ("helpful_rating", "INTEGER", ["5", 4], [5, 4]),
        ("would_recommend", "BOOLEAN", [None, 1, 0], [None, True, False]),
        ("would_recommend", "BOOLEAN", [1, 7, None], [1, 7, None]),
        ("would_recommend", "INTEGER", [0, None], [False, None]),
        ("would_recommend", "", [None, 0], [None, False]),
        ("would_recommend", "BOOLEAN", [None, None], [None, None]),
        ("conditions_analyzed", "JSON", [None, '["a"]', "null", ""], [None, '["a"]', "null", None]),
        ("conditions_analyzed", "", ['["a"]', 5], ['["a"]', "5"]),
        ("timeframe", "VARCHAR(32)", [None, "2_weeks", ""], [None, "2_weeks", None]),
        ("timeframe", "DATE", ["2_weeks", "2025-01-01"], ["2_weeks", "2025-01-01"]),
        ("timeframe", "DATE", ["2025-01-01"], ["2025-01-01"]),
        ("age", "INTEGER", [None, None], [None, None]),
        ("user_id", "INTEGER", [2**63 - 1, -(2**63), None], [2**63 - 1, -(2**63), None]),
        ("user_id", "TEXT", ["é", None], ["é", None]),
        ("user_id", "UUID", [UUID.lower(), None], [UUID.lower(), None]),
        ("user_id", "BOOLEAN", [2, 1], [2, 1]),
        ("user_id", "", [5, "abc"], ["5", "abc"]),
    ],
)
def test_sqlite_column_has_the_type_of_its_values(
    sqlite_path: Path, route: str, column: str, declared: str, values: list[Any], expected: list[Any]
) -> None:
    """A column may contain other types than declared; a null in the first row does not matter."""
    query = stored(sqlite_path, declared, values, column)
    frame = read(by(route, f"sqlite:///{sqlite_path}"), query=query)
    assert frame[column].to_list() == expected
    assert [type(value) for value in frame[column]] == [type(value) for value in expected]


@by_both_routes
@pytest.mark.parametrize(
    ("column", "declared", "values", "message"),
    [
        ("helpful_rating", "INTEGER", [5, "canary"], "helpful_rating is text, expected a number"),
        ("helpful_rating", "", ["canary", 5], "helpful_rating is text, expected a number"),
        ("age", "INTEGER", [5, b"canary"], "age is object, expected a number"),
        ("product_satisfaction", "BLOB", [b"canary"], "product_satisfaction is binary, expected a number"),
        ("would_recommend", "BOOLEAN", [1, "canary"], "would_recommend is text, expected a boolean"),
        ("would_recommend", "REAL", [1.0, None], "would_recommend is a floating-point number, expected a boolean"),
        ("feedback_id", "REAL", [1.0, 2.0], "feedback_id is a floating-point number, expected an integer, a UUID or"),
        ("user_id", "", [1, 2.5], "user_id is a floating-point number, expected an integer, a UUID or text"),
        ("analysis_id", "BLOB", [b"canary"], "analysis_id is binary, expected an integer, a UUID or text"),
        ("timeframe", "INTEGER", [2], "timeframe is int64, expected text"),
    ],
)
def test_sqlite_column_of_wrong_type_is_reported(
    sqlite_path: Path, route: str, column: str, declared: str, values: list[Any], message: str
) -> None:
    """The message does not contain the values."""
    query = stored(sqlite_path, declared, values, column)
    with pytest.raises(SourceError, match="Columns of a wrong type: ") as caught:
        read(by(route, f"sqlite:///{sqlite_path}"), query=query)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


DECLARED = ["INTEGER", "SMALLINT", "REAL", "NUMERIC(3,1)", "BOOLEAN", "VARCHAR(32)", "TEXT", "", "BLOB", "DATE", "JSON"]
VALUES = st.lists(st.sampled_from([None, 0, 1, 5, 7, 4.5, 5.0, "5", "x", "2025-01-01", "", b"x"]), max_size=4)


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=st.sampled_from(["helpful_rating", "would_recommend", "timeframe", "user_id", "rules_applied"]),
    declared=st.sampled_from(DECLARED),
    values=VALUES,
)
@example(column="would_recommend", declared="BOOLEAN", values=[1, 7])
@example(column="helpful_rating", declared="NUMERIC(3,1)", values=[])
def test_both_routes_agree_on_any_sqlite_column(
    sqlite_path: Path, column: str, declared: str, values: list[Any]
) -> None:
    """For all values and declared types, both routes return the same values or the same error."""
    query = stored(sqlite_path, declared, values, column)

    def outcome(url: str) -> list[Any] | str:
        try:
            frame = read(url, query=query)
        except SourceError as error:
            return str(error)
        return [(type(value), value) for value in frame[column]]

    url = f"sqlite:///{sqlite_path}"
    assert outcome(url) == outcome(by("sqlalchemy", url))


# The default schema.

RAW_TYPES = {
    **dict.fromkeys(CLASSIC_SCHEMA.raw_columns, pl.Int64),
    **dict.fromkeys(["recommendation_id", "conditions_analyzed", "rules_applied", "timeframe"], pl.String),
    "would_recommend": pl.Boolean,
    "created_at": pl.Datetime("us"),
}


@pytest.mark.sample("mysql-connectorx", "postgresql-sqlalchemy", "sqlite-connectorx", "sqlite-sqlalchemy")
@by_both_routes
def test_empty_result_has_raw_types(database: Database, route: str) -> None:
    """An empty window is not an error."""
    frame = read(by(route, database.url))
    untyped = {"recommendation_id": pl.Int64} if route == "sqlalchemy" else {}  # drivers report no types without values
    assert frame.schema == RAW_TYPES | untyped
    assert frame.is_empty()


@by_both_routes
@pytest.mark.parametrize("sql", ["NULL", "CAST(4.5 AS numeric)"])
def test_empty_result_of_expressions_is_read(sqlite_path: Path, postgres_url: str, route: str, sql: str) -> None:
    """SQLite treats them as text, and PostgreSQL as NULL."""
    sqlite_path.touch()
    url = f"sqlite:///{sqlite_path}"
    assert read(by(route, url), query=select(url, "WHERE false", helpful_rating=sql, age=sql)).is_empty()
    typed = sql if "numeric" in sql else f"{sql}::int"
    assert read(by(route, postgres_url), query=select(postgres_url, "WHERE false", age=typed)).is_empty()


@pytest.mark.sample(
    "mysql-null last-connectorx",
    "postgresql-null first-sqlalchemy",
    "sqlite-null first-connectorx",
    "sqlite-null first-sqlalchemy",
    "sqlite-null last-connectorx",
    "sqlite-null last-sqlalchemy",
)
@by_both_routes
@pytest.mark.parametrize("first", [True, False], ids=["null first", "null last"])
def test_row_of_nulls_does_not_change_other_rows(database: Database, route: str, first: bool) -> None:
    """Columns that contain only nulls do not either."""
    full = {"helpful_rating": 5, "would_recommend": False, "timeframe": "1_week", "recommendation_id": 1, "user_id": 7}
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2, **full}] if first else [{"id": 1, **full}, {"id": 2}]
    database.fill(
        records=[{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["a"], "rules_applied": None}],
        profiles=[{"id": 1, "user_id": 7, "age": None}],
        feedbacks=[{**row, "created_at": TIME} for row in rows],
    )
    frame = read(by(route, database.url))
    assert frame.schema == RAW_TYPES
    (given,) = frame.filter(pl.col("helpful_rating").is_not_null()).iter_rows(named=True)
    assert {name: value for name, value in given.items() if value is not None} == {
        "feedback_id": 2 if first else 1,
        "user_id": 7,
        "recommendation_id": "rec_1",
        "helpful_rating": 5,
        "would_recommend": False,
        "conditions_analyzed": '["a"]',
        "timeframe": "1_week",
        "created_at": TIME,
    }


@pytest.mark.sample("mysql-connectorx", "postgresql-sqlalchemy", "sqlite-connectorx", "sqlite-sqlalchemy")
@by_both_routes
def test_each_feedback_is_one_row(database: Database, route: str) -> None:
    """A user with two profiles has the lower one's age; a missing profile or recommendation loses no row."""
    if database.engine.dialect.name == "postgresql":
        execute(database.url, "ALTER TABLE recommendation_feedbacks DISABLE TRIGGER ALL")
        execute(
            database.url,
            "ALTER TABLE recommendation_feedbacks DROP CONSTRAINT IF EXISTS "
            "recommendation_feedbacks_recommendation_id_fkey",
        )
    if database.engine.dialect.name == "mysql":
        execute(database.url, "ALTER TABLE recommendation_feedbacks DROP FOREIGN KEY recommendation_feedbacks_ibfk_1")
    database.fill(
        records=[{"id": 1, "recommendation_id": "rec_1"}],
        profiles=[
            {"id": 5, "user_id": 7, "age": 50},
            {"id": 3, "user_id": 7, "age": 30},
            {"id": 4, "user_id": 7, "age": 40},
            {"id": 6, "user_id": 8, "age": None},
            {"id": 7, "user_id": 8, "age": 20},
            {"id": 8, "user_id": None, "age": 99},
        ],
        feedbacks=[
            {"id": 1, "user_id": 7, "recommendation_id": 1},
            {"id": 2, "user_id": 8, "recommendation_id": 1},
            {"id": 3, "user_id": 9, "recommendation_id": 1},
            {"id": 4, "user_id": None, "recommendation_id": 1},
            {"id": 5, "user_id": 7, "recommendation_id": 404},
            {"id": 6, "user_id": 7, "recommendation_id": None},
        ],
    )
    assert read(by(route, database.url)).select("feedback_id", "age", "recommendation_id").rows() == [
        (1, 30, "rec_1"),
        (2, None, "rec_1"),
        (3, None, "rec_1"),
        (4, None, "rec_1"),
        (5, 30, None),
        (6, 30, None),
    ]


@by_both_routes
def test_default_schema_with_other_types_is_read(postgres_database: str, route: str) -> None:
    """UUIDs for ids, numeric ratings, integers for booleans, arrays for lists, an enum, times with a time zone."""
    execute(
        postgres_database,
        "CREATE TYPE frame AS ENUM ('1_week', '2_weeks')",
        "CREATE TABLE recommendation_records (id uuid, recommendation_id char(12), conditions_analyzed text[], "
        "rules_applied jsonb)",
        "CREATE TABLE profiles (id bigint, user_id uuid, age smallint)",
        "CREATE TABLE recommendation_feedbacks (id uuid, user_id uuid, analysis_id text, recommendation_id uuid, "
        "helpful_rating numeric(2,1), product_satisfaction real, routine_completion_pct smallint, "
        "would_recommend smallint, timeframe frame, created_at timestamptz)",
        f"INSERT INTO recommendation_records VALUES ('{UUID}', 'rec_1', ARRAY['a', 'b'], '[\"r\"]')",
        f"INSERT INTO profiles VALUES (1, '{UUID}', 30)",
        f"INSERT INTO recommendation_feedbacks VALUES ('{UUID}', '{UUID}', 'A-1', '{UUID}', 4, 3, 0, 0, '2_weeks', "
        "'2025-10-25 12:00:00+02')",
    )
    row = read(by(route, postgres_database)).row(0, named=True)
    assert row == {
        "feedback_id": UUID.lower(),
        "user_id": UUID.lower(),
        "analysis_id": "A-1",
        "recommendation_id": "rec_1",
        "helpful_rating": 4.0,
        "product_satisfaction": 3.0,
        "routine_completion_pct": 0,
        "would_recommend": False,
        "conditions_analyzed": '["a","b"]',
        "rules_applied": '["r"]',
        "timeframe": "2_weeks",
        "age": 30,
        "created_at": TIME,
    }


# Frames that another driver could give.


@pytest.mark.parametrize(
    ("column", "given_values", "expected"),
    [
        ("analysis_id", pl.Series([2**64 - 1, None], dtype=pl.UInt64), pl.UInt64),
        ("analysis_id", pl.Series([255, None], dtype=pl.UInt8), pl.Int64),
        ("analysis_id", pl.Series([-1, None], dtype=pl.Int8), pl.Int64),
        ("helpful_rating", pl.Series([4, None], dtype=pl.UInt8), pl.Int64),
        ("helpful_rating", pl.Series(["4.5", None]).cast(pl.Decimal(3, 1)), pl.Float64),
        ("would_recommend", pl.Series([1, None], dtype=pl.Int8), pl.Boolean),
        ("would_recommend", pl.Series([2, None], dtype=pl.Int8), pl.Int64),
        ("created_at", pl.Series([TIME, None], dtype=pl.Datetime("ns")), pl.Datetime("us")),
        ("created_at", pl.Series([TIME, None], dtype=pl.Datetime("ms", "UTC")), pl.Datetime("us")),
        ("created_at", pl.Series([TIME, None]).dt.replace_time_zone("Europe/Berlin"), pl.Datetime("us")),
    ],
    ids=str,
)
def test_frames_of_all_drivers_become_raw_frames(column: str, given_values: pl.Series, expected: pl.DataType) -> None:
    """With exact ids, and times in UTC."""
    nulls = {name: pl.Series([None, None]) for name in CLASSIC_SCHEMA.raw_columns}
    raw = to_raw(pl.DataFrame({**nulls, column: given_values}))
    assert raw.columns == list(CLASSIC_SCHEMA.raw_columns)
    assert raw.schema[column] == expected
    if column != "created_at":
        assert raw[column].cast(pl.Float64).to_list() == given_values.cast(pl.Float64).to_list()
    elif (zone := given_values.dtype.time_zone) == "Europe/Berlin":  # type: ignore[attr-defined]
        assert raw[column].to_list() == [datetime(2025, 10, 25, 8), None]
    else:
        assert (zone, raw[column].to_list()) == (zone, [TIME, None])


def test_all_wrong_dtypes_are_reported() -> None:
    """In the order of the columns, without a value."""
    nulls = {name: pl.Series([None, None]) for name in CLASSIC_SCHEMA.raw_columns}
    wrong = {"user_id": [0.5, 1.5], "timeframe": [1, 2], "created_at": [1, 2]}
    with pytest.raises(SourceError) as caught:
        to_raw(pl.DataFrame({**nulls, **wrong}))
    assert str(caught.value) == (
        "Columns of a wrong type: user_id is a floating-point number, expected an integer, a UUID or text; "
        "timeframe is int64, expected text; created_at is int64, expected a timestamp."
    )


def test_both_routes_return_equal_frames_of_typical_rows(database: Database) -> None:
    """To the dtype."""
    database.fill(
        records=[{"id": n, "recommendation_id": f"rec_{n}", "conditions_analyzed": ["a", "é"]} for n in range(3)],
        profiles=[{"id": n, "user_id": n, "age": 20 + n} for n in range(1, 4)],
        feedbacks=[
            {
                "id": n,
                "user_id": n % 4,
                "analysis_id": n * 2**31 if database.engine.dialect.name == "sqlite" else n,
                "recommendation_id": n % 3,
                "helpful_rating": n % 7 or None,
                "would_recommend": [True, False, None][n % 3],
                "timeframe": [None, "2_weeks"][n % 2],
                "created_at": TIME.replace(microsecond=n),
            }
            for n in range(30)
        ],
    )
    assert_frame_equal(read(by("sqlalchemy", database.url)), read(database.url))
