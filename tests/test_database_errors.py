"""Errors of databases while rows are read: one sentence without any row's value, by both routes."""

import contextlib
import gc
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import make_engine, new_postgres_database
from reading import CANARY, by, by_both_routes, execute, fetch, read, read_slowly, select

from feedback_etl.database.connect import open_connection
from feedback_etl.database.reader_client import Reader, ReaderJob
from feedback_etl.database.statements import fetch_count
from feedback_etl.errors import SourceError
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.export import export_feedback
from feedback_etl.schema.column_types import ExtraColumn


@pytest.fixture(scope="module")
def postgres(postgres_admin: sa.Engine) -> Iterator[str]:
    """A database with ten rows; the seventh holds a canary where the others hold numbers."""
    with new_postgres_database(postgres_admin) as url:
        execute(
            url,
            "CREATE TABLE people (id int, score text)",
            f"INSERT INTO people SELECT n, CASE n WHEN 7 THEN '{CANARY}' ELSE '5' END FROM generate_series(1, 10) AS n",
            "CREATE FUNCTION tells(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF length($1) > 3 THEN RAISE "
            "'it was %', $1 USING ERRCODE = 'P0042'; END IF; RETURN 5; END $$",
            "CREATE FUNCTION peeks() RETURNS int LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_read_file('/etc/passwd'); RETURN 1; END $$",
        )
        yield url


@contextlib.contextmanager
def with_setting(url: str, name: str, value: str) -> Iterator[None]:
    """A setting of the database, for new connections."""
    change = f"ALTER DATABASE {sa.make_url(url).database}"
    execute(url, f"{change} SET {name} TO '{value}'")
    try:
        yield
    finally:
        execute(url, f"{change} RESET {name}")


def read_error(url: str, query: str) -> str:
    """Return the message of a query that fails while rows are read."""
    with pytest.raises(SourceError) as caught:
        read(url, query=query)
    text = str(caught.value)
    assert CANARY not in text
    assert "\n" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


AFTER = "Nothing was exported."


# After a lost connection SQLAlchemy does not close the cursor, and psycopg warns when it is deleted.
loses_the_connection = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.sample(
    "1 / (id - 5)-*-sqlalchemy",
    "score::int-*-connectorx",
    "tells(score)-*-connectorx",
)
@loses_the_connection
@by_both_routes
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("1 / (id - 5)", "it divides by zero in some row"),
        ("score::int", "a value of some row cannot be converted as requested"),
        ("(id * 1000000000)::int", "a value of some row cannot be converted as requested"),
        ("tells(score)", "it failed while it read rows ("),
        (
            "CASE WHEN pg_cancel_backend(pg_backend_pid()) AND pg_sleep(5)::text = '' THEN 1 END",
            "it was cancelled by another session",
        ),
        (
            "CASE WHEN pg_terminate_backend(pg_backend_pid()) AND pg_sleep(5)::text = '' THEN 1 END",
            "connection was lost",
        ),
    ],
)
def test_postgresql_error_does_not_contain_the_row(
    postgres: str, canary_stays_secret: None, route: str, sql: str, reason: str
) -> None:
    """The message names the kind of error, for rows and for the count of rows without consent."""
    url = by(route, postgres)
    for query in (
        select(postgres, "FROM people", feedback_id="id", helpful_rating=sql),
        select(postgres, "FROM people", feedback_id="id", consent=f"({sql}) = 5"),
    ):
        text = read_error(url, query)
        assert reason in text
        assert text.startswith("The database stopped the query: ")
        assert text.endswith(AFTER)
    gc.collect()


@by_both_routes
def test_numeric_beyond_double_is_infinite(postgres: str, route: str) -> None:
    """The server refuses to convert it; a number that rounds to zero is 0."""
    long = "repeat('9', 400)::numeric"
    numbers = f"(VALUES (1, {long}), (2, -{long}), (3, '1e-400'), (4, 'NaN'), (5, 'Infinity'), (6, 4.5), (7, NULL))"
    query = select(postgres, f"FROM {numbers} AS long (id, n)", feedback_id="id", helpful_rating="n", age="n")
    rows = read(by(route, postgres), query=query)
    for column in ("helpful_rating", "age"):
        assert [str(value) for value in rows[column]] == ["inf", "-inf", "0.0", "nan", "inf", "4.5", "None"]


def test_row_with_numeric_beyond_double_is_rejected(postgres: str, tmp_path: Path) -> None:
    """As a rating and in a declared column; an age is left empty, as any implausible one."""
    values = [f"{n + 1}, {', '.join('1e400' if n == column else '1' for column in range(3))}" for n in range(4)]
    rows = f"FROM (VALUES ({'), ('.join(values)})) AS long (id, rating, age, weight)"
    changed = {"feedback_id": "id", "recommendation_id": "id::text", "helpful_rating": "rating", "age": "age"}
    report = export_feedback(
        postgres,
        query=select(postgres, rows, **changed, weight="weight"),
        extra_columns=[ExtraColumn("weight", type="number")],
        output_dir=tmp_path,
        days_back=-1,
        unkeyed=True,
    )
    assert (report.exported_records, report.implausible_ages) == (2, 1)
    assert report.rejected_reasons == {
        "helpful_rating_out_of_range": 1,
        "weight_not_finite": 1,
    }


@pytest.mark.parametrize("column", ["feedback_id", "user_id", "analysis_id", "recommendation_id"])
def test_numeric_id_is_refused_with_column_name(postgres: str, column: str) -> None:
    """Only integers and text are exact."""
    text = (
        f"Columns of a wrong type: {column} is numeric, expected an integer, a UUID or text. Cast them in a query "
        "(--query, or that of [source])."
    )
    assert str(refused_query(postgres, select(postgres, **{column: "repeat('9', 400)::numeric"}))) == text
    read(postgres, query=select(postgres, **{column: "repeat('9', 400)"}))


def refused_query(url: str, query: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(url, query=query)
    return caught.value


@loses_the_connection
@by_both_routes
def test_recovery_conflict_of_standby_is_reported(postgres: str, route: str) -> None:
    """A function raises the errors of a standby: for a cancelled statement and for an ended connection."""
    for text in ("canceling statement", "terminating connection"):
        execute(
            postgres,
            "CREATE OR REPLACE FUNCTION conflicts() RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE '{text} due to conflict with recovery' USING ERRCODE = '40001'; END $$",
        )
        message = read_error(by(route, postgres), select(postgres, age="conflicts()"))
        assert (
            "the server is a standby and replayed changes to rows that the query still needed; run it again" in message
        )


@by_both_routes
def test_utf8_text_of_sql_ascii_database_is_read(
    postgres_admin: sa.Engine, canary_stays_secret: None, route: str
) -> None:
    """A database with the encoding SQL_ASCII accepts any bytes."""
    name = f"feedback_etl_test_{uuid.uuid4().hex}"
    url = postgres_admin.url.set(database=name).render_as_string(hide_password=False)
    text = "convert_from(decode('c3a4{}', 'hex'), 'SQL_ASCII')"
    with postgres_admin.connect() as admin:
        admin.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        try:
            query = select(url, timeframe=text.format(""))
            assert read(by(route, url), query=query)["timeframe"].item() == "\N{LATIN SMALL LETTER A WITH DIAERESIS}"
            message = read_error(by(route, url), select(url, timeframe=text.format("ff")))
            assert "the text of some column is not valid UTF-8 in some row" in message
        finally:
            admin.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@loses_the_connection
@by_both_routes
def test_full_server_disk_is_reported(postgres: str, route: str) -> None:
    """Sorting needs disk, which an administrator may limit."""
    query = select(postgres, "FROM people, generate_series(1, 200000) AS n ORDER BY md5(n::text)", feedback_id="id")
    with with_setting(postgres, "temp_file_limit", "1MB"), with_setting(postgres, "work_mem", "64kB"):
        assert "the server has no disk space left to sort the rows" in read_error(by(route, postgres), query)


@by_both_routes
def test_statement_timeout_is_reported(postgres: str, route: str) -> None:
    """A role or database may have a statement_timeout."""
    query = select(postgres, age="(SELECT 1 FROM pg_sleep(20))")
    with with_setting(postgres, "statement_timeout", "100ms"):
        assert "longer than the server's statement_timeout allows" in read_error(by(route, postgres), query)


@loses_the_connection
def test_transaction_timeout_is_reported(postgres: str) -> None:
    """Since PostgreSQL 17; the server ends the connection."""
    if fetch(postgres, "SHOW server_version_num") < [("170000",)]:
        pytest.skip("only PostgreSQL 17 and later have transaction_timeout")
    query = select(postgres, age="(SELECT 1 FROM pg_sleep(20))")
    with with_setting(postgres, "transaction_timeout", "2s"):
        assert "longer than the server's transaction_timeout allows" in read_error(by("sqlalchemy", postgres), query)
    gc.collect()


@pytest.mark.sample("connectorx")
@by_both_routes
def test_idle_timeout_does_not_end_slow_export(postgres: str, route: str) -> None:
    """The cursor waits between two batches, and the connection that holds the snapshot waits for the readers."""
    query = select(postgres, "FROM people", feedback_id="id")
    with with_setting(postgres, "idle_in_transaction_session_timeout", "1s"):
        assert read_slowly(by(route, postgres), query, 1.3) == 10


def test_idle_timeout_of_caller_is_restored(postgres: str) -> None:
    """The caller's transaction has its own limit afterwards."""
    with make_engine(postgres).connect() as connection:
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = '1s'")
        assert read_slowly(connection, select(postgres, "FROM people", feedback_id="id"), 1.3) == 10
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar() == "1s"


@by_both_routes
def test_lock_timeout_is_reported(postgres: str, route: str) -> None:
    """Another session locks the table for longer than the lock timeout."""
    with with_setting(postgres, "lock_timeout", "100ms"), make_engine(postgres).connect() as other:
        other.exec_driver_sql("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
        assert "holds a lock" in read_error(by(route, postgres), select(postgres, "FROM people"))


@loses_the_connection
@by_both_routes
def test_lost_connection_is_reported(postgres: str, route: str) -> None:
    """For example by an administrator, or because the server stops."""
    reading = "datname = current_database() AND wait_event = 'PgSleep'"
    terminated = threading.Event()

    def administrator() -> None:
        while not terminated.wait(0.05):
            if fetch(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {reading}"):
                return

    thread = threading.Thread(target=administrator)
    thread.start()
    try:
        query = select(postgres, "FROM pg_sleep(30)")
        assert "the connection was lost" in read_error(by(route, postgres), query)
    finally:
        terminated.set()
        thread.join()
        gc.collect()


@by_both_routes
def test_missing_permission_while_reading_is_reported(postgres: str, postgres_tcp_url: str, route: str) -> None:
    """A function called by the query reads a file without permission."""
    url = sa.make_url(postgres_tcp_url).set(database=sa.make_url(postgres).database)
    text = read_error(by(route, url.render_as_string(hide_password=False)), select(postgres, age="peeks()"))
    assert "this user may not read all of the tables" in text


@pytest.fixture
def sqlite(sqlite_path: Path) -> str:
    """A file with ten rows; the seventh contains a canary instead of JSON, and bytes that are not UTF-8."""
    with contextlib.closing(sqlite3.connect(sqlite_path)) as connection, connection:
        connection.execute("CREATE TABLE people (id INTEGER, score TEXT, name TEXT)")
        people = [
            (n, CANARY if n == 7 else "[5]", f"{CANARY}".encode() + (b"\xff" if n == 7 else b"")) for n in range(10)
        ]
        connection.executemany("INSERT INTO people VALUES (?, ?, CAST(? AS TEXT))", people)
    return f"sqlite:///{sqlite_path}"


@pytest.mark.sample(
    "age-*-connectorx",
    "age-*-sqlalchemy",
    "timeframe-name-*-connectorx",
    "timeframe-name-*-sqlalchemy",
)
@by_both_routes
@pytest.mark.parametrize(
    ("column", "sql", "reason"),
    [
        ("helpful_rating", "json_extract(score, '$[0]')", "a value of some row cannot be converted as requested"),
        ("timeframe", "name", "the text of timeframe is not valid UTF-8 in some row; correct it there, or exclude"),
        ("recommendation_id", "name", "the text of recommendation_id is not valid UTF-8 in some row"),
        ("age", "abs(-9223372036854775807 - (id = 7))", "it failed while it read rows (OperationalError)"),
        ("consent", "json_extract(score, '$[0]') = 5", "a value of some row cannot be converted as requested"),
        (
            "created_at",
            "json_extract(replace(score, '5', '\"2025-10-25\"'), '$[0]')",
            "a value of some row cannot be converted as requested",
        ),
    ],
)
def test_sqlite_error_does_not_contain_the_row(
    sqlite: str, canary_stays_secret: None, route: str, column: str, sql: str, reason: str
) -> None:
    """The message names the kind of error."""
    text = read_error(by(route, sqlite), select(sqlite, "FROM people", feedback_id="id", **{column: sql}))
    assert reason in text
    assert text.endswith(AFTER)


def test_remedy_for_invalid_utf8_works(sqlite: str) -> None:
    """The query selects NULL instead of the column."""
    query = select(sqlite, "FROM people", feedback_id="id", timeframe="NULL")
    assert read(sqlite, query=query)["timeframe"].to_list() == [None] * 10


@by_both_routes
def test_file_locked_while_reading_is_reported(sqlite: str, sqlite_path: Path, route: str) -> None:
    """Another program locks the file before the rows are read."""
    with (
        open_connection(by(route, sqlite), ReadOptions(connect_timeout=0.1)) as source,
        contextlib.closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match="another program holds a lock on the database"):
            fetch_count(source, "SELECT count(*) FROM people")


def test_panic_of_connectorx_is_a_source_error(postgres: str) -> None:
    """A panic is a BaseException, which callers do not expect; types that cause one are refused earlier."""
    with open_connection(postgres) as source:
        assert source.connectorx_url
        job = ReaderJob(source.connectorx_url, [], ["SELECT interval '1 day'"], batch_size=10)
        with pytest.raises(SourceError, match="PanicException"), Reader(job, read_timeout=60) as reader:
            list(reader.next_stream())
