"""Every form in which a database can be passed; connections of callers stay unchanged."""

import contextlib
import functools
import logging
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from conftest import AWKWARD_PASSWORD
from databases import Database, create_schema, fill, make_engine, new_mysql_database, new_postgres_database, opened
from polars.testing import assert_frame_equal
from reading import NOW, by, execute, fetch, read, select, takes_connectorx
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from feedback_etl.database.batches import open_batches
from feedback_etl.database.connect import open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError, UsageError
from feedback_etl.options.read import ReadOptions

Make = Callable[[str], Any]
FEEDBACK = {"id": 1, "user_id": 7, "analysis_id": 8, "recommendation_id": 1, "helpful_rating": 5}
RECORD = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}
ROWS: dict[str, Any] = {
    "records": [RECORD, {"id": 2, "recommendation_id": "rec_2", "rules_applied": ["r1", "é, 'x'"]}],
    "profiles": [{"id": 1, "user_id": 7, "age": 30}, {"id": 2, "user_id": 7, "age": 99}],
    "feedbacks": [
        {
            **FEEDBACK,
            "would_recommend": True,
            "timeframe": "2_weeks",
            "created_at": datetime(2025, 10, 25, 10, 0, 0, 5),
        },
        {**FEEDBACK, "id": 2, "would_recommend": False, "recommendation_id": 2, "created_at": datetime(2025, 10, 24)},
        {"id": 3, "created_at": datetime(2025, 10, 24)},
        {"id": 4, "routine_completion_pct": 0},
    ],
}
ADD_UNCOMMITTED = sa.text("INSERT INTO recommendation_feedbacks (id, created_at) VALUES (99, '2025-10-25 10:00:00')")


def with_hook(engine: sa.Engine, name: str) -> sa.Engine:
    """The engine, with a hook that does nothing."""
    sa.event.listen(engine, name, lambda *_: None)
    return engine


def scoped(url: str) -> scoped_session[Session]:
    """A scoped session, as web frameworks hand out."""
    return scoped_session(sessionmaker(make_engine(url)))


def begin_transaction(session: Session) -> Session:
    """The session in a transaction, as after any query of its application."""
    session.execute(sa.text("SELECT 1"))
    return session


def psycopg_creator(url: str) -> Callable[[], Any]:
    """A function for `creator=`, which opens connections itself."""
    plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return lambda: psycopg.connect(plain)


def renamed(url: str, driver: str) -> str:
    """The URL with another driver's name, as applications write it."""
    return driver + url[url.index(":") :]


BY_CONNECTORX: dict[str, Make] = {
    "URL as text": lambda url: url,
    "URL as text with white space around": lambda url: f" {url}\n",
    "URL": sa.make_url,
    "Engine": make_engine,
    "Engine with options": lambda url: make_engine(url).execution_options(isolation_level="AUTOCOMMIT"),
    "Engine that was used": lambda url: connect_once(sa.create_engine(url, poolclass=sa.NullPool)),
    "Session": lambda url: Session(make_engine(url)),
    "scoped Session": scoped,
    "Session in a transaction": lambda url: begin_transaction(Session(make_engine(url))),
}
BY_SQLALCHEMY: dict[str, Make] = {
    "Connection": lambda url: make_engine(url).connect(),
    "Session bound to a Connection": lambda url: Session(make_engine(url).connect()),
    "Engine with a do_connect hook": lambda url: with_hook(make_engine(url), "do_connect"),
    "Engine with a connect hook": lambda url: with_hook(make_engine(url), "connect"),
    "Engine with a checkout hook": lambda url: with_hook(make_engine(url), "checkout"),
    "Engine with an engine_connect hook": lambda url: with_hook(make_engine(url), "engine_connect"),
    "URL with an option only the driver knows": functools.partial(by, "sqlalchemy"),
}
POSTGRES_BY_CONNECTORX: dict[str, Make] = {
    "postgres://": lambda url: renamed(url, "postgres"),
    "postgresql://": lambda url: renamed(url, "postgresql"),
    "asyncpg": lambda url: renamed(url, "postgresql+asyncpg") + "&ssl=prefer",
    "psycopg2": lambda url: renamed(url, "postgresql+psycopg2") + "&application_name=feedback",
}
POSTGRES_BY_SQLALCHEMY: dict[str, Make] = {
    "creator": lambda url: sa.create_engine(
        "postgresql+psycopg://", creator=psycopg_creator(url), poolclass=sa.NullPool
    ),
    "connect_args": lambda url: sa.create_engine(url, connect_args={"keepalives": 1}, poolclass=sa.NullPool),
    "AUTOCOMMIT Connection": lambda url: make_engine(url).execution_options(isolation_level="AUTOCOMMIT").connect(),
    "options": lambda url: f"{url}&options=-cstatement_timeout%3D60s",
}
SQLITE_BY_CONNECTORX: dict[str, Make] = {"aiosqlite": lambda url: renamed(url, "sqlite+aiosqlite")}
SQLITE_BY_SQLALCHEMY: dict[str, Make] = {
    "creator": lambda url: sa.create_engine(
        "sqlite://", creator=functools.partial(sqlite3.connect, sa.make_url(url).database), poolclass=sa.NullPool
    ),
    "connect_args": lambda url: sa.create_engine(url, connect_args={"timeout": 1}, poolclass=sa.NullPool),
    "file URI": lambda url: f"sqlite:///file:{sa.make_url(url).database}?mode=ro&uri=true",
    "file URI that may write": lambda url: f"sqlite:///file:{sa.make_url(url).database}?uri=true",
}


def connect_once(engine: sa.Engine) -> sa.Engine:
    """The engine after its first connection, which initialises the dialect."""
    with engine.connect():
        return engine


def cases(expected: bool, *makes: dict[str, Make]) -> list[Any]:
    return [pytest.param(make, expected, id=name) for group in makes for name, make in group.items()]


@pytest.fixture
def filled(database: Database) -> Database:
    """A database of each kind with a few rows, for one test."""
    database.fill(**ROWS)
    return database


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mysql"])
def shared_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database of each kind with the same rows, for tests that only read."""
    if request.param == "sqlite":
        context: Any = contextlib.nullcontext(f"sqlite:///{tmp_path_factory.mktemp('shared')}/a.db")
    elif request.param == "mysql":
        context = new_mysql_database(request.getfixturevalue("mysql_admin"))
    else:
        context = new_postgres_database(request.getfixturevalue("postgres_admin"))
    with context as url, opened(url) as database:
        database.fill(**ROWS)
        yield database


@pytest.fixture
def opened_databases() -> Iterator[list[Any]]:
    """The databases that a test opens, closed after it."""
    databases: list[Any] = []
    yield databases
    for database in databases:
        bind = database.get_bind() if isinstance(database, Session | scoped_session) else None
        for closable in (database, bind):
            if isinstance(closable, Session | scoped_session | sa.Connection):
                closable.close()


@pytest.mark.sample(
    "mysql-Engine with a connect hook",
    "mysql-Session in a transaction",
    "mysql-URL",
    "postgresql-Connection",
    "postgresql-Session bound to a Connection",
    "postgresql-URL",
    "sqlite-Connection",
    "sqlite-Engine",
    "sqlite-Engine that was used",
    "sqlite-Engine with a checkout hook",
    "sqlite-Engine with a connect hook",
    "sqlite-Engine with a do_connect hook",
    "sqlite-Engine with an engine_connect hook",
    "sqlite-Engine with options",
    "sqlite-Session",
    "sqlite-Session bound to a Connection",
    "sqlite-Session in a transaction",
    "sqlite-URL",
    "sqlite-URL as text",
    "sqlite-URL as text with white space around",
    "sqlite-URL with an option only the driver knows",
    "sqlite-scoped Session",
)
@pytest.mark.parametrize(
    ("make", "by_connectorx"), cases(True, BY_CONNECTORX) + cases(False, BY_SQLALCHEMY)
)  # fmt: skip
def test_every_form_of_database_is_read(
    shared_database: Database, opened_databases: list[Any], make: Make, by_connectorx: bool
) -> None:
    """The rows are the same in every form; ConnectorX reads them if the URL alone describes the database."""
    given = make(shared_database.url)
    opened_databases.append(given)
    assert takes_connectorx(given) == by_connectorx
    frame = read(given)
    assert_frame_equal(frame, read(shared_database.url))
    assert frame.height == 4


@pytest.mark.parametrize(
    ("make", "by_connectorx"), cases(True, POSTGRES_BY_CONNECTORX) + cases(False, POSTGRES_BY_SQLALCHEMY)
)
def test_every_form_of_postgresql_is_read(
    postgres_url: str, opened_databases: list[Any], make: Make, by_connectorx: bool
) -> None:
    """The drivers' names that applications use mean the same database, read by our driver."""
    given = make(postgres_url)
    opened_databases.append(given)
    query = select(postgres_url)
    assert takes_connectorx(given) == by_connectorx
    assert_frame_equal(read(given, query=query), read(postgres_url, query=query))


@pytest.mark.parametrize(
    ("make", "by_connectorx"), cases(True, SQLITE_BY_CONNECTORX) + cases(False, SQLITE_BY_SQLALCHEMY)
)
def test_every_form_of_sqlite_is_read(
    sqlite_database: Database, opened_databases: list[Any], make: Make, by_connectorx: bool
) -> None:
    """Also as an engine that opens its connections by itself."""
    sqlite_database.fill(**ROWS)
    given = make(sqlite_database.url)
    opened_databases.append(given)
    assert takes_connectorx(given) == by_connectorx
    assert_frame_equal(read(given), read(sqlite_database.url))


@pytest.mark.parametrize("pool", [sa.StaticPool, sa.SingletonThreadPool])
@pytest.mark.parametrize("given", [lambda engine: engine, Session, lambda engine: scoped_session(sessionmaker(engine))])
def test_in_memory_database_is_read_through_its_engine(pool: type[sa.Pool], given: Callable[[sa.Engine], Any]) -> None:
    """Another connection by its URL would open another, empty database."""
    engine = sa.create_engine("sqlite://", poolclass=pool)
    create_schema(engine)
    fill(engine, **ROWS)
    database = given(engine)
    assert not takes_connectorx(database)
    assert read(database)["feedback_id"].to_list() == [2, 3, 1, 4]
    if hasattr(database, "close"):
        database.close()
    engine.dispose()


@pytest.mark.parametrize("pool", [sa.StaticPool, sa.SingletonThreadPool])
def test_uncommitted_rows_of_in_memory_session_are_kept(pool: type[sa.Pool]) -> None:
    """The database has a single connection, which reads and is not rolled back."""
    engine = sa.create_engine("sqlite://", poolclass=pool)
    create_schema(engine)
    with Session(engine) as session:
        session.execute(ADD_UNCOMMITTED)
        assert read(session).height == 1
        assert session.in_transaction()
        session.commit()
        assert session.scalar(sa.text("SELECT count(*) FROM recommendation_feedbacks")) == 1
    engine.dispose()


def test_uncommitted_rows_of_session_are_not_read(filled: Database) -> None:
    """A new connection reads; the session can continue its transaction."""
    committed = read(filled.url)
    with Session(filled.engine) as session:
        # On SQLite a reader would wait for a writer that has begun to write to the file.
        session.execute(ADD_UNCOMMITTED)
        assert_frame_equal(read(session), committed)
        assert session.in_transaction()
        session.commit()
    assert read(filled.url).height == committed.height + 1


def state(connection: sa.Connection) -> tuple[Any, ...]:
    """The settings of a connection that reading must not change."""
    if connection.dialect.name == "sqlite":
        return (connection.exec_driver_sql("PRAGMA query_only").scalar(),)
    if connection.dialect.name == "mysql":
        names = ("time_zone", "sql_mode", "sql_select_limit", "net_write_timeout", "tx_read_only")
        ours = connection.exec_driver_sql("SELECT @feedback_etl_time_zone IS NULL AND @feedback_etl_sql_mode IS NULL")
        return (
            *(connection.exec_driver_sql(f"SELECT @@SESSION.{name}").scalar() for name in names),
            ours.scalar(),
        )
    settings = ["transaction_read_only", "default_transaction_read_only", "TimeZone", "standard_conforming_strings"]
    settings += ["row_security", "search_path", "role"]
    return tuple(connection.exec_driver_sql(f"SHOW {name}").scalar() for name in settings)


@pytest.mark.parametrize("query", [None, "SELECT nonsense"], ids=["read", "refused"])
def test_transaction_of_caller_is_read_and_unchanged(filled: Database, query: str | None) -> None:
    """Uncommitted rows are read; the caller can write and commit afterwards, also after an error."""
    with filled.engine.connect() as connection:
        connection.execute(ADD_UNCOMMITTED)
        before = state(connection)
        if query is None:
            assert 99 in read(Session(connection))["feedback_id"]
        else:
            with pytest.raises(SourceError):
                read(connection, query=query)
        assert connection.in_transaction()
        assert state(connection) == before
        connection.execute(sa.text("UPDATE recommendation_feedbacks SET helpful_rating = 3 WHERE id = 99"))
        connection.commit()
    assert fetch(filled.url, "SELECT helpful_rating FROM recommendation_feedbacks WHERE id = 99") == [(3,)]


@pytest.mark.parametrize("query", [None, "SELECT nonsense"], ids=["read", "refused"])
def test_idle_connection_is_idle_afterwards(filled: Database, query: str | None) -> None:
    """The caller can begin one."""
    with filled.engine.connect() as connection:
        if query is None:
            assert read(connection).height == 4
        else:
            with pytest.raises(SourceError):
                read(connection, query=query)
        assert not connection.in_transaction()
        with connection.begin():
            connection.execute(ADD_UNCOMMITTED)
    assert read(filled.url).height == 5


@pytest.mark.parametrize("in_transaction", [False, True], ids=["idle", "in a transaction of SQLAlchemy's"])
def test_autocommit_connection_stays_autocommit(postgres_database: str, in_transaction: bool) -> None:
    """The rows are read in a transaction that ends with the reading."""
    execute(postgres_database, "CREATE TABLE canary (a int)")
    with sa.create_engine(
        postgres_database, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    ).connect() as connection:
        before = state(connection)
        if not in_transaction:
            connection.rollback()
        assert read(connection, query=select(postgres_database)).height == 1
        assert connection.in_transaction() == in_transaction
        assert state(connection) == before
        connection.exec_driver_sql("INSERT INTO canary VALUES (1)")
        assert fetch(postgres_database, "SELECT * FROM canary") == [(1,)]


def test_manually_begun_transaction_is_not_ended(postgres_database: str) -> None:
    """On a connection that otherwise commits each statement."""
    execute(postgres_database, "CREATE TABLE canary (a int)")
    with make_engine(postgres_database).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("INSERT INTO canary VALUES (1)")
        query = select(postgres_database, "FROM canary")
        assert read(connection, query=query).height == 1
        assert fetch(postgres_database, "SELECT * FROM canary") == []
        connection.exec_driver_sql("COMMIT")
    assert fetch(postgres_database, "SELECT * FROM canary") == [(1,)]


def test_pooled_connection_keeps_its_settings(postgres_database: str) -> None:
    """The next user of the connection has the previous time zone and can write."""
    execute(postgres_database, "CREATE TABLE canary (a int)")
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=psycopg_creator(postgres_database), pool_size=1, max_overflow=0
    )
    with engine.connect() as connection:
        before, pid = state(connection), connection.scalar(sa.text("SELECT pg_backend_pid()"))
    assert read(engine, query=select(postgres_database)).height == 1
    with engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == pid
        assert state(connection) == before
        connection.exec_driver_sql("INSERT INTO canary VALUES (1)")
    engine.dispose()


def test_failed_transaction_is_reported(postgres_url: str) -> None:
    """PostgreSQL refuses further statements; the caller has to roll back."""
    with make_engine(postgres_url).connect() as connection:
        with pytest.raises(sa.exc.DBAPIError):
            connection.exec_driver_sql("SELECT nonsense")
        with pytest.raises(SourceError, match="its transaction has failed; roll it back first"):
            read(connection)


def test_unreadable_connection_is_idle_afterwards(sqlite_path: Path) -> None:
    """Its caller can try again."""
    sqlite_path.write_text("no database " * 1000)
    with make_engine(f"sqlite:///{sqlite_path}").connect() as connection:
        with pytest.raises(SourceError, match="it is not an SQLite database"):
            read(connection)
        assert not connection.in_transaction()


def test_closed_connection_is_reported(shared_database: Database) -> None:
    """Nothing can be read from it."""
    connection = shared_database.engine.connect()
    connection.close()
    with pytest.raises(SourceError, match="the connection is closed"):
        read(connection)


@pytest.mark.parametrize("nothing", [None, 3, b"sqlite://", Path("a.db"), object(), sessionmaker])
def test_other_types_are_refused_as_database(nothing: Any) -> None:
    """The message names the type and the accepted types."""
    with pytest.raises(UsageError, match="Engine, Connection or Session of SQLAlchemy, not"):
        read(nothing)


def test_session_without_engine_is_refused() -> None:
    """There is nothing to read."""
    with pytest.raises(UsageError, match="The session is bound to no engine"):
        read(Session())


def test_asynchronous_engine_is_read_by_its_url(postgres_url: str) -> None:
    """If the URL alone is not sufficient, the message asks for a synchronous engine."""
    url = renamed(postgres_url, "postgresql+psycopg_async")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    assert takes_connectorx(engine)
    assert read(engine, query=select(url)).height == 1
    with pytest.raises(UsageError, match="pass a synchronous one"):
        read(sa.create_engine(url, poolclass=sa.NullPool, connect_args={"keepalives": 1}))


def test_async_engine_and_async_session_are_read(postgres_url: str) -> None:
    """The engine of an AsyncEngine or AsyncSession is read."""
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(postgres_url)
    for given in (engine, AsyncSession(engine)):
        assert takes_connectorx(given)  # type: ignore[arg-type]
        assert read(given, query=select(postgres_url)).height == 1  # type: ignore[arg-type]


# Users, passwords, sockets and options.


def test_password_with_special_characters_works_by_both_routes(postgres_tcp_url: str) -> None:
    """Over TCP, where the server requires a password."""
    query = select(postgres_tcp_url)
    assert takes_connectorx(postgres_tcp_url)
    assert_frame_equal(read(postgres_tcp_url, query=query), read(by("sqlalchemy", postgres_tcp_url), query=query))


def test_password_file_is_used_by_connectorx(
    postgres_tcp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver reads PGPASSFILE; ConnectorX gets the password in its URL."""
    url = sa.make_url(postgres_tcp_url)
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{AWKWARD_PASSWORD.replace(':', chr(92) + ':')}\n")
    passwords.chmod(stat.S_IRUSR | stat.S_IWUSR)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    bare = sa.URL.create("postgresql", url.username, None, url.host, url.port, url.database)
    assert takes_connectorx(bare)
    assert read(bare, query=select(postgres_tcp_url)).height == 1


def test_environment_variables_are_used_by_connectorx(postgres_tcp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver reads PGHOST, PGPORT, PGUSER and PGPASSWORD; ConnectorX gets them in its URL."""
    url = sa.make_url(postgres_tcp_url)
    for name, value in (("HOST", url.host), ("PORT", url.port), ("USER", url.username), ("PASSWORD", url.password)):
        monkeypatch.setenv(f"PG{name}", str(value))
    bare = f"postgresql:///{url.database}"
    assert takes_connectorx(bare)
    assert read(bare, query=select(postgres_tcp_url)).height == 1


@pytest.mark.parametrize(("name", "value"), [("PGOPTIONS", "-c work_mem=5MB"), ("PGSSLMODE", "allow")])
def test_unsupported_environment_variables_prevent_connectorx(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """ConnectorX would connect in another way than the driver."""
    monkeypatch.setenv(name, value)
    assert not takes_connectorx(postgres_url)
    assert read(postgres_url, query=select(postgres_url)).height == 1


def test_connection_sends_keepalives(postgres_tcp_url: str) -> None:
    """Firewalls drop idle connections after minutes: keepalives are sent each minute, or as the URL says."""
    for option, seconds in (("", "60"), ("?keepalives_idle=7", "7")):
        with open_connection(f"{postgres_tcp_url}{option}") as source:
            driver: Any = source.connection.connection.driver_connection
            assert driver.info.get_parameters()["keepalives_idle"] == seconds


def test_repr_of_connection_contains_no_password(postgres_tcp_url: str) -> None:
    """The repr contains neither the password nor the connection."""
    with open_connection(postgres_tcp_url) as source:
        assert repr(source) == "DatabaseConnection(dialect='postgresql')"


@pytest.mark.parametrize("name", ["a b.db", "a%b.db", "a#b.db", "a?b.db", "é日.db", "a+b&c=d.db", "a'b\".db"])
def test_file_with_special_characters_is_read_by_connectorx(tmp_path: Path, name: str) -> None:
    """In a URL, special characters are percent-encoded."""
    url = sa.URL.create("sqlite", database=str(tmp_path / name))
    with closing(sqlite3.connect(tmp_path / name)):
        pass
    (tmp_path / name).touch()
    for given in (url, url.render_as_string()):
        assert takes_connectorx(given)
        assert read(given, query=select("sqlite://")).height == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_relative_path_starts_from_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as with SQLAlchemy."""
    monkeypatch.chdir(tmp_path)
    Path("application.db").touch()
    assert read("sqlite:///application.db", query=select("sqlite://")).height == 1


# The routes.


def test_both_routes_return_the_same_frame(shared_database: Database) -> None:
    """Including the dtypes."""
    assert_frame_equal(read(shared_database.url), read(by("sqlalchemy", shared_database.url)))


def test_reading_with_sqlalchemy_is_logged(shared_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Reading with ConnectorX is not logged."""
    caplog.set_level(logging.INFO, logger="feedback_etl.database")
    read(shared_database.url)
    assert not caplog.messages
    read(by("sqlalchemy", shared_database.url))
    assert caplog.messages == ["reading with SQLAlchemy: ConnectorX cannot read this database"]


def test_sqlalchemy_reads_in_bounded_batches(shared_database: Database) -> None:
    """Each batch is a raw frame; together they contain all rows in order."""
    window = Window(None, NOW)
    with open_connection(by("sqlalchemy", shared_database.url)) as source:
        relation = inspect_source(source)
        with open_batches(source, relation, window, ReadOptions(batch_size=3)) as batches:
            ids = [batch["feedback_id"].to_list() for batch in batches]
    assert ids == [[2, 3, 1], [4]]


def test_sqlalchemy_uses_server_side_cursors(shared_database: Database) -> None:
    """The other cursors of these drivers fetch all rows at once; SQLite's fetches one at a time anyhow."""
    cursors: dict[str, str] = {}
    with make_engine(shared_database.url).connect() as connection:
        sa.event.listen(
            connection.engine,
            "before_cursor_execute",
            lambda _, cursor, sql, *__: cursors.update({sql: type(cursor).__name__}),
        )
        read(connection)
    (reading,) = [name for sql, name in cursors.items() if "ORDER BY" in sql and "created_at" in sql]
    assert reading == {"sqlite": "Cursor", "postgresql": "ServerCursor", "mysql": "SSCursor"}[connection.dialect.name]
