"""No query can write, by either route, on opened connections and on those of callers."""

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from databases import make_engine, new_postgres_database
from reading import ROUTES, by, execute, fetch, read, select
from sqlalchemy.orm import Session

from feedback_etl.database.batches import list_session_statements
from feedback_etl.database.connect import open_connection
from feedback_etl.database.reader_client import Reader, ReaderJob
from feedback_etl.errors import SourceError, UsageError

ESCAPES = [
    pytest.param("{}; DROP TABLE canary", id="second statement"),
    pytest.param("{}; DROP TABLE canary; SELECT 1", id="third statement"),
    pytest.param("{}) q; DROP TABLE canary; --", id="bracket and comment"),
    pytest.param("{}) q; DROP TABLE canary; SELECT * FROM (SELECT 1", id="brackets that fit"),
    pytest.param(
        "{}) q; COMMIT; BEGIN; DROP TABLE canary; COMMIT; SELECT * FROM (SELECT 1", id="transaction of its own"
    ),
    pytest.param("{} -- \r) q; DROP TABLE canary; SELECT * FROM (SELECT 1 --", id="carriage return"),
    pytest.param("{}, '\\') q; DROP TABLE canary; SELECT * FROM (SELECT 1 --'", id="backslash"),
    pytest.param("{}, E'\\'') q; DROP TABLE canary; SELECT * FROM (SELECT 1 --'", id="E string"),
    pytest.param("{}, E'a'\n'\\'' ) q; DROP TABLE canary; SELECT * FROM (SELECT 1 --'", id="E string in two lines"),
    pytest.param("{}, 1 AS a$$ ) q; DROP TABLE canary; SELECT * FROM (SELECT 1 --$$", id="dollars"),
    pytest.param("{}, $a$ $b$) q; DROP TABLE canary; SELECT * FROM (SELECT 1 --$a$", id="dollar quote"),
    pytest.param("{} /* /* */ ) q; DROP TABLE canary; SELECT * FROM (SELECT 1 -- */", id="nested comment"),
    pytest.param("{} /* ) q; DROP TABLE canary; --", id="comment left open"),
    pytest.param("{} \x00; DROP TABLE canary", id="null character"),
    pytest.param("DROP TABLE canary", id="drop"),
    pytest.param("DELETE FROM canary RETURNING *", id="delete"),
    pytest.param("INSERT INTO canary {}", id="insert"),
    pytest.param("CREATE TABLE another AS {}", id="create"),
    pytest.param("UPDATE canary SET a = 2", id="update"),
    pytest.param("EXPLAIN {}", id="explain"),
    pytest.param("WITH gone AS (DELETE FROM canary RETURNING a) {} FROM gone", id="WITH delete"),
    pytest.param("WITH new AS (INSERT INTO canary VALUES (3) RETURNING a) {} FROM new", id="WITH insert"),
    pytest.param("WITH new AS (UPDATE canary SET a = 3 RETURNING a) {} FROM new", id="WITH update"),
    pytest.param("(WITH gone AS (DELETE FROM canary RETURNING a) {} FROM gone)", id="WITH delete in brackets"),
]


@pytest.fixture(scope="module")
def writable(postgres_admin: sa.Engine) -> Iterator[str]:
    """A database with a table "canary", a sequence and functions that write."""
    body = "LANGUAGE plpgsql AS $$ BEGIN {} INSERT INTO canary VALUES (2); RETURN 1; END $$"
    configure = "PERFORM set_config('transaction_read_only', 'off', false);"
    with new_postgres_database(postgres_admin) as url:
        execute(
            url,
            "CREATE TABLE canary (a int)",
            "INSERT INTO canary VALUES (1)",
            "CREATE SEQUENCE numbers",
            f"CREATE FUNCTION writes() RETURNS int {body.format('')}",
            f"CREATE FUNCTION sets() RETURNS int {body.format('SET LOCAL transaction_read_only = off;')}",
            f"CREATE FUNCTION configures() RETURNS int {body.format(configure)}",
            f"CREATE FUNCTION looks_innocent() RETURNS int IMMUTABLE {body.format('')}",
        )
        yield url


@pytest.fixture
def postgres(writable: str) -> Iterator[str]:
    """That database; the test must not change it."""
    yield writable
    assert fetch(writable, "SELECT a FROM canary") == [(1,)]
    assert fetch(writable, "SELECT last_value, is_called FROM numbers") == [(1, False)]
    assert fetch(writable, "SELECT count(*) FROM pg_class WHERE relname = 'another'") == [(0,)]


@contextlib.contextmanager
def bound(url: str, *, autocommit: bool = False, session: bool = False) -> Iterator[Any]:
    """A connection of the caller in a transaction, committed afterwards."""
    options = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    with make_engine(url).execution_options(**options).connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        yield Session(connection) if session else connection
        connection.commit()


@contextlib.contextmanager
def created(url: str, **options: Any) -> Iterator[sa.Engine]:
    """An engine of the caller with a `creator`."""
    plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    yield sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(plain), poolclass=sa.NullPool, **options
    )


Opened = Callable[[str], contextlib.AbstractContextManager[Any]]
ON_POSTGRES: list[Any] = [
    *(pytest.param(lambda url, route=route: contextlib.nullcontext(by(route, url)), id=route) for route in ROUTES),
    pytest.param(bound, id="bound connection"),
    pytest.param(functools.partial(bound, session=True), id="bound session"),
    pytest.param(functools.partial(bound, autocommit=True), id="autocommit connection"),
    pytest.param(created, id="creator"),
    pytest.param(functools.partial(created, isolation_level="AUTOCOMMIT"), id="autocommit creator"),
]


@pytest.mark.sample("autocommit connection", "bound session", "connectorx")
@pytest.mark.parametrize("opened", ON_POSTGRES)
def test_injected_statements_do_not_write_on_postgresql(postgres: str, opened: Opened) -> None:
    """All of them are refused, and the table is unchanged."""
    for escape in ESCAPES:
        (text,) = escape.values
        with opened(postgres) as database, pytest.raises((SourceError, UsageError)):
            read(database, query=str(text).format(select(postgres)))


@pytest.mark.parametrize("opened", ON_POSTGRES)
def test_functions_do_not_write_on_postgresql(postgres: str, opened: Opened) -> None:
    """Whether called for a row or to count those without consent."""
    functions = ["writes()", "sets()", "configures()", "looks_innocent()"]
    for call in (*functions, "nextval('numbers')", "setval('numbers', 9)", "lo_create(0)::int"):
        for query in (select(postgres, user_id=call), select(postgres, consent=f"{call} = 1")):
            message = r"all sessions are read-only|cannot execute|not allowed"
            with opened(postgres) as database, pytest.raises(SourceError, match=message):
                read(database, query=query)


def test_reader_process_cannot_write_on_postgresql(postgres: str) -> None:
    """The statements that begin its connection are its only protection."""
    with open_connection(postgres) as source:
        job = ReaderJob(str(source.connectorx_url), list_session_statements(source), ["SELECT writes()"], 100)
        with pytest.raises(SourceError, match="all sessions are read-only"), Reader(job, read_timeout=60) as reader:
            list(reader.next_stream())


@pytest.mark.parametrize("opened", ON_POSTGRES)
def test_locking_query_is_refused_on_postgresql(postgres: str, opened: Opened) -> None:
    """FOR UPDATE would block the application's writers."""
    with opened(postgres) as database, pytest.raises(SourceError):
        read(database, query=select(postgres, "FROM canary FOR UPDATE"))


@pytest.mark.parametrize("opened", ON_POSTGRES[:2])
def test_backslash_setting_of_database_is_overridden(postgres: str, opened: Opened) -> None:
    """With standard_conforming_strings off, a backslash would hide the quote after it."""
    setting = f"ALTER DATABASE {sa.make_url(postgres).database} {{}} standard_conforming_strings"
    execute(postgres, setting.format("SET") + " TO off")
    query = select(postgres, timeframe="'\\', ''") + ", '') q; DROP TABLE canary; SELECT * FROM (SELECT 1 --' AS b"
    with opened(postgres) as database, pytest.raises((SourceError, UsageError)):
        read(database, query=query)
    execute(postgres, setting.format("RESET"))


@pytest.fixture
def sqlite(sqlite_path: Path) -> Iterator[str]:
    """A file with a table "canary", which is byte for byte as it was after the test."""
    with contextlib.closing(sqlite3.connect(sqlite_path)) as connection:
        connection.executescript("CREATE TABLE canary (a int); INSERT INTO canary VALUES (1);")
    before = sqlite_path.read_bytes()
    yield f"sqlite:///{sqlite_path}"
    assert sqlite_path.read_bytes() == before
    assert [path.name for path in sqlite_path.parent.iterdir()] == [sqlite_path.name]


ON_SQLITE: list[Any] = [*ON_POSTGRES[:2], pytest.param(bound, id="bound connection")]


@pytest.mark.parametrize("opened", ON_SQLITE)
def test_injected_statements_do_not_write_on_sqlite(sqlite: str, opened: Opened) -> None:
    """All of them are refused, and the file is unchanged."""
    others = ["PRAGMA user_version = 3", "ATTACH 'another.db' AS another", "VACUUM", "REPLACE INTO canary VALUES (2)"]
    others += ["{}, load_extension('x')", "{} FROM canary AS [']) q; DROP TABLE canary; --'", "{}, writefile('a', 'b')"]
    escapes = [str(escape.values[0]) for escape in ESCAPES if escape.id != "carriage return"]  # to SQLite a comment
    for text in (*others, *escapes):
        with opened(sqlite) as database, pytest.raises((SourceError, UsageError)):
            read(database, query=text.format(select(sqlite)))


@pytest.mark.parametrize("opened", ON_SQLITE)
def test_reading_does_not_change_the_file(sqlite: str, opened: Opened) -> None:
    """No byte of the file changes."""
    with opened(sqlite) as database:
        assert read(database, query=select(sqlite, "FROM canary")).height == 1


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_opened_connections_are_read_only(request: pytest.FixtureRequest, kind: str) -> None:
    """Also if a write is executed on them directly."""
    url = request.getfixturevalue("postgres" if kind == "postgresql" else "sqlite")
    with open_connection(url) as source, pytest.raises(sa.exc.DBAPIError, match=r"read-only|readonly"):
        source.connection.exec_driver_sql("DELETE FROM canary")
