"""How to reach a database: a URL, Engine, Connection or Session becomes a `Source`."""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from feedback_etl.errors import SourceError, UsageError

Database = str | sa.URL | sa.Engine | sa.Connection | Session
"""What every function of this package that reads a database takes."""

_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
_POSTGRESQL_OPTIONS = {"host", "port", "user", "password", "dbname", "sslmode", "application_name"}
"""The options of a URL that ConnectorX can be given too; with any other, SQLAlchemy reads."""


@dataclass(frozen=True)
class Source:
    """An open door to a database.

    Attributes:
        dialect: "postgresql" or "sqlite".
        connection: For looking at the tables, and for reading where ConnectorX cannot.
        connectorx_url: The same database for ConnectorX; None where only `connection` reaches it.
    """

    dialect: str
    connection: sa.Connection = field(repr=False)
    connectorx_url: str | None = field(repr=False)


@contextmanager
def open_source(database: Database, *, connect_timeout: float = 2.0) -> Iterator[Source]:
    """Connect, wait at most `connect_timeout` seconds, and close what was opened here in the end.

    Raises:
        UsageError: The URL cannot be understood, or its database is of a kind that is not supported.
        SourceError: The database cannot be reached.
    """
    bind = _bind(database)
    if isinstance(bind, sa.Connection):
        yield Source(_supported(bind.dialect.name), bind, None)
        return
    if isinstance(bind, sa.Engine) and not (_is_shared_by_url(bind.url) and _url_tells_all(bind)):
        with _connect(bind) as connection:
            yield Source(_supported(bind.dialect.name), connection, None)
        return
    url = _normal(bind.url if isinstance(bind, sa.Engine) else bind)
    engine = _engine(url, connect_timeout)
    try:
        with _connect(engine) as connection:
            yield Source(url.get_backend_name(), connection, _connectorx_url(url, connection))
    finally:
        engine.dispose()


def _bind(database: Database) -> sa.URL | sa.Engine | sa.Connection:
    """The URL, Engine or Connection behind what the caller gave."""
    bind: Any = getattr(database, "sync_session", None) or getattr(database, "sync_engine", database)
    if isinstance(bind, str):
        try:
            return sa.make_url(bind)
        except ArgumentError:
            raise UsageError(
                "The database URL cannot be understood; it looks like postgresql://user:password@host/name or "
                "sqlite:////absolute/path.db. Special characters of a password are percent-encoded."
            ) from None
    if hasattr(bind, "get_bind"):
        try:
            bind = bind.get_bind()
        except SQLAlchemyError:
            raise UsageError("The session is bound to no engine; pass the engine itself.") from None
    if isinstance(bind, sa.URL | sa.Engine | sa.Connection):
        return bind
    raise UsageError(
        f"A database is a URL, or an Engine, Connection or Session of SQLAlchemy, not {type(database).__name__}."
    )


def _supported(dialect: str) -> str:
    if dialect not in _DRIVERS:
        raise UsageError(f"Databases of the kind {dialect} cannot be read; PostgreSQL and SQLite can.")
    return dialect


def _normal(url: sa.URL) -> sa.URL:
    """The URL with the driver we use, whichever driver (psycopg2, asyncpg, aiosqlite) the application uses."""
    backend = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    url = url.set(drivername=_DRIVERS[_supported(backend)])
    if backend == "sqlite" and not _is_memory(url) and not Path(str(url.database)).is_file():
        raise SourceError(f"There is no SQLite file at {url.database}.")
    return url


def _is_memory(url: sa.URL) -> bool:
    database = url.database or ":memory:"
    return database == ":memory:" or database.startswith("file:")


def _is_shared_by_url(url: sa.URL) -> bool:
    """Whether somebody else who opens the same URL sees the same database; an in-memory SQLite is private."""
    return not (url.get_backend_name() == "sqlite" and _is_memory(url))


def _url_tells_all(engine: sa.Engine) -> bool:
    """Whether the engine connects by its URL alone: no `creator=`, `connect_args=` or `do_connect` hook."""
    if engine.dialect._has_events:
        return False
    cells = inspect.getclosurevars(getattr(engine.pool, "_creator", None) or _url_tells_all).nonlocals
    by_url = engine.dialect.create_connect_args(engine.url)[1]
    return {"cargs_tup", "cparams"} <= cells.keys() and dict(cells["cparams"]) == dict(by_url)


def _engine(url: sa.URL, connect_timeout: float) -> sa.Engine:
    """An engine of our own that only reads, and whose errors show no values."""
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": connect_timeout}
        prepare = ["PRAGMA query_only = ON"]
    else:
        arguments = {"connect_timeout": math.ceil(connect_timeout), "prepare_threshold": None}
        prepare = ["SET default_transaction_read_only = on", "SET TIME ZONE 'UTC'"]
    try:
        engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True, poolclass=sa.NullPool)
    except (NoSuchModuleError, ArgumentError, TypeError):
        raise UsageError("The database URL has parts that its driver does not know.") from None

    @sa.event.listens_for(engine, "connect")
    def read_only(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for statement in prepare:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    return engine


@contextmanager
def _connect(engine: sa.Engine) -> Iterator[sa.Connection]:
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise SourceError(f"Cannot connect to {_place(engine.url)}: {_why(error)}.") from None
    with connection:
        yield connection


def _place(url: sa.URL) -> str:
    """The database in words, without user and password."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite file {url.database}"
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL at {host}{port}, database {url.database or '(none named)'}"


_REASONS = {
    "timeout expired": "it did not answer in time (connect_timeout in the settings)",
    "timed out": "it did not answer in time (connect_timeout in the settings)",
    "refused": "the connection was refused; is the server running, and are host and port right",
    "resolve": "there is no host of that name",
    "translate host name": "there is no host of that name",
    "password": "user or password is wrong or missing",
    "no pg_hba.conf entry": "the server does not let this user in from here (pg_hba.conf)",
    'database "': "there is no database of that name",
    'role "': "there is no user of that name",
    "too many": "the server has no connection left",
    "No such file": "there is no socket of that server",
    "not a database": "it is not an SQLite database",
    "locked": "another program holds a lock on it",
    "unable to open": "the file cannot be opened",
    "SSL": "the TLS settings do not fit the server's",
    "invalid": "its options are not understood",
}
"""What drivers say, and what we say instead: their texts can hold what a log should not."""


def _why(error: SQLAlchemyError) -> str:
    text = str(getattr(error, "orig", None) or error)
    return next((reason for sign, reason in _REASONS.items() if sign in text), type(error).__name__)


def _connectorx_url(url: sa.URL, connection: sa.Connection) -> str | None:
    """The URL as ConnectorX reads it, or None where it would not read the same database."""
    if url.get_backend_name() == "sqlite":
        if _is_memory(url) or url.query:
            return None
        return f"sqlite://{quote(str(Path(str(url.database)).absolute()))}"
    if not url.query.keys() <= _POSTGRESQL_OPTIONS:
        return None
    # What the driver found also in its environment and password file.
    found: Any = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
    return sa.URL.create(
        "postgresql",
        username=found.user,
        password=found.password or None,
        host=quote(found.host, safe="") if found.host.startswith("/") else found.host,
        port=found.port,
        database=found.dbname,
        query={name: value for name, value in url.query.items() if name in {"sslmode", "application_name"}},
    ).render_as_string(hide_password=False)
