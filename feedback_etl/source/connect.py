"""How to reach a database: a URL, Engine, Connection or Session becomes a `Source`."""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session

from feedback_etl.errors import UsageError
from feedback_etl.source.address import (
    connectorx_url,
    is_memory,
    parse_url,
    supported,
    why_not,
    with_our_driver,
)

Database = str | sa.URL | sa.Engine | sa.Connection | Session | scoped_session[Any]
"""What every function of this package that reads a database takes."""

SNAPSHOT = "REPEATABLE READ"
"""The isolation in which a transaction sees one state of the database from its first statement to its last."""

READ_ONLY = ("SET TRANSACTION READ ONLY", "SET LOCAL TIME ZONE 'UTC'", "SET LOCAL standard_conforming_strings = on")
"""What a PostgreSQL transaction of ours begins with, and what ends with it: a pooled connection keeps nothing."""

_HOOKS = {"sqlalchemy.engine.create", "sqlalchemy.engine.default", "sqlalchemy.util.langhelpers"}
"""Where SQLAlchemy's own hooks on connections are defined."""


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

    What the caller owns is left as it was found: transactions, what they have not committed, and settings.

    Raises:
        UsageError: The URL cannot be understood, or its database is of a kind that is not supported.
        SourceError: The database cannot be reached.
    """
    bind = _bind(database)
    url = None
    if isinstance(bind, sa.URL) or (isinstance(bind, sa.Engine) and _is_told_by_url(bind)):
        url = with_our_driver(bind if isinstance(bind, sa.URL) else bind.url)
        bind = _engine(url, connect_timeout)
    elif bind.dialect.is_async:
        raise UsageError("This asynchronous engine cannot be read by its URL alone; pass a synchronous one.")
    supported(bind.dialect.name)
    with _connection(bind) as connection, _only_reading(connection):
        yield Source(bind.dialect.name, connection, connectorx_url(url, connection) if url is not None else None)


def _bind(database: Any) -> sa.URL | sa.Engine | sa.Connection:
    """The URL, Engine or Connection behind what the caller gave."""
    if isinstance(database, str):
        return parse_url(database)
    bind = database() if hasattr(database, "registry") else database  # a scoped session
    for name in ("sync_session", "sync_connection", "sync_engine"):
        bind = getattr(bind, name, bind)
    if isinstance(bind, Session):
        bind = _bind_of(bind)
    if isinstance(bind, sa.URL | sa.Engine | sa.Connection):
        return bind
    raise UsageError(
        f"A database is a URL, or an Engine, Connection or Session of SQLAlchemy, not {type(database).__name__}."
    )


def _bind_of(session: Session) -> sa.Engine | sa.Connection:
    try:
        bind = session.get_bind()
        # An in-memory database has one connection, and closing it a second time would roll the session back.
        return session.connection() if session.in_transaction() and is_memory(bind.engine.url) else bind
    except SQLAlchemyError:
        raise UsageError("The session is bound to no engine, or broken; pass the engine itself.") from None


def _is_told_by_url(engine: sa.Engine) -> bool:
    """Whether its URL alone leads to the same database: no `creator=`, `connect_args=` or hook, not in memory."""
    hooks = chain(
        engine.dialect.dispatch.do_connect,
        engine.pool.dispatch.connect,
        engine.pool.dispatch.checkout,
        engine.dispatch.engine_connect,
    )
    if any(getattr(hook, "__module__", None) not in _HOOKS for hook in hooks):
        return False
    creator = engine.pool._creator
    cells = inspect.getclosurevars(creator).nonlocals if inspect.isfunction(creator) else {}
    by_url = engine.dialect.create_connect_args(engine.url)[1]
    return not is_memory(engine.url) and dict(cells.get("cparams") or {}) == dict(by_url) and "cargs_tup" in cells


def _engine(url: sa.URL, connect_timeout: float) -> sa.Engine:
    """An engine of our own, which keeps no connection and whose errors show no values."""
    if not 0 < connect_timeout < math.inf:
        raise UsageError("connect_timeout must be a number of seconds above 0.")
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": connect_timeout}
    else:
        arguments = {"connect_timeout": math.ceil(connect_timeout), "prepare_threshold": None}
    isolation = {} if url.get_backend_name() == "sqlite" else {"isolation_level": SNAPSHOT}
    try:
        engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True, poolclass=sa.NullPool, **isolation)
    except (NoSuchModuleError, ArgumentError, TypeError, ValueError):
        raise UsageError("The database URL has options that its driver does not know.") from None
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    return engine


@contextmanager
def _connection(bind: sa.Engine | sa.Connection) -> Iterator[sa.Connection]:
    """A connection, closed in the end unless it is the caller's."""
    if isinstance(bind, sa.Connection):
        yield bind
        return
    try:
        connection = bind.connect()
    except (SQLAlchemyError, ValueError, OSError) as error:
        raise why_not(bind.url, error) from None
    try:
        yield connection
    finally:
        with suppress(SQLAlchemyError):  # it may be lost by now, and then it is closed
            connection.close()


@contextmanager
def _only_reading(connection: sa.Connection) -> Iterator[None]:
    """Read-only and in UTC for a while; then the connection and its transaction are as they were."""
    was_idle = not connection.in_transaction()
    end: tuple[str, ...] = ()
    try:
        try:
            begin, end = _brackets(connection, was_idle)
            for statement in begin:
                connection.exec_driver_sql(statement)
        except SQLAlchemyError as error:
            raise why_not(connection.engine.url, error) from None
        yield
    finally:
        with suppress(SQLAlchemyError):
            for statement in end:
                connection.exec_driver_sql(statement)
        with suppress(SQLAlchemyError):
            if was_idle:
                connection.rollback()


def _brackets(connection: sa.Connection, was_idle: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The statements around reading."""
    if connection.dialect.name == "sqlite":  # a SELECT of it cannot write; this looks whether it can be read at all
        return ("PRAGMA schema_version",), ()
    driver: Any = connection.connection.dbapi_connection
    begun = getattr(getattr(driver, "info", None), "transaction_status", 0)
    if connection.dialect.detect_autocommit_setting(driver) and not begun:
        return ("BEGIN", *READ_ONLY), ("ROLLBACK",)
    if was_idle:  # the transaction that begins here is rolled back
        return READ_ONLY, ()
    savepoint = "SAVEPOINT feedback_etl"
    return (savepoint, *READ_ONLY), (f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}")
