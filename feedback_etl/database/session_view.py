"""Determine the view of a SQLAlchemy Session or Engine, and whether a new connection has the same.

A Session in a transaction can have its own search path, role, settings or temporary tables. Rows are read on a new
connection if that provably shows the same tables: ConnectorX reads them, and only committed ones. On PostgreSQL, search
path and role are copied. Otherwise the Session's own connection is read.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import MissingGreenlet, SQLAlchemyError

from feedback_etl.database import tables
from feedback_etl.database.connection_errors import build_connection_error
from feedback_etl.database.quoting import quote_text
from feedback_etl.database.urls import is_memory, parse_url
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

Rows = list[tuple[Any, ...]]

NOT_BOUND = "The session is bound to no engine, or unusable; pass the engine itself."
"""The message for a session that has no connection to read from."""

_TABLES = tuple(tables.metadata.tables)
"""The tables of the default application schema."""


class Binds(NamedTuple):
    """Hold the connections through which a database can be read.

    Attributes:
        own: The caller's connection, whose view is to be read; None if a new one has the same view.
        other: How a new connection is opened; None if it would have another view.
        options: The execution options of either.
    """

    own: sa.Connection | None
    other: sa.URL | sa.Engine | None
    options: dict[str, Any]


def unwrap(database: Any) -> "sa.URL | sa.Engine | sa.Connection | Session":
    """Return the object behind a URL text, a scoped or asynchronous session, or an asynchronous engine.

    Raises:
        UsageError: It is no database, or the URL is not valid.
    """
    if isinstance(database, str):
        return parse_url(database)
    unwrapped = database() if hasattr(database, "registry") else database  # a scoped session
    for name in ("sync_session", "sync_connection", "sync_engine"):
        unwrapped = getattr(unwrapped, name, unwrapped)
    if isinstance(unwrapped, sa.URL | sa.Engine | sa.Connection):
        return unwrapped
    from sqlalchemy.orm import Session

    if isinstance(unwrapped, Session):
        return unwrapped
    raise UsageError(
        f"A database is a URL, or an Engine, Connection or Session of SQLAlchemy, not {type(database).__name__}."
    )


@contextmanager
def open_binds(database: "sa.URL | sa.Engine | sa.Connection | Session") -> Iterator[Binds]:
    """Provide the connections through which a database can be read; restore a Session's transactions afterwards.

    Raises:
        UsageError: The session is bound to no engine, or unusable.
    """
    if isinstance(database, sa.URL):
        yield Binds(None, database, {})
    elif isinstance(database, sa.Engine):
        yield Binds(None, database, {**database.get_execution_options()})
    elif isinstance(database, sa.Connection):
        yield Binds(database, None, {**database.get_execution_options()})
    else:
        was_idle = not database.in_transaction()
        try:
            binds = _get_session_binds(database)
        except SQLAlchemyError:
            raise UsageError(NOT_BOUND) from None
        try:
            yield binds
        finally:
            transaction = database.get_transaction()
            if was_idle and transaction is not None:  # a rollback would expire the caller's objects
                transaction.close()


def _get_session_binds(session: "Session") -> Binds:
    bind = session.get_bind()
    options = {**bind.get_execution_options(), **session.execution_options}
    if session.dispatch.do_orm_execute:
        logger.warning("filters that the session adds to ORM queries (do_orm_execute) do not apply to exports")
    if isinstance(bind, sa.Connection):
        return Binds(bind, None, options)
    transaction = session.get_transaction()
    is_connected = transaction is not None and bind in transaction._connections
    if not is_connected and not session.dispatch.after_begin:
        return Binds(None, bind, options)
    own = session.connection()
    other = bind if is_connected and not session.dispatch.after_begin and is_defined_by_url(bind) else None
    return Binds(own, other, {**own.get_execution_options()})


def copy_session_settings(own: sa.Connection) -> tuple[str, ...]:
    """Return the statements that copy a PostgreSQL connection's search path and role to another transaction."""
    if own.dialect.name != "postgresql":
        return ()
    settings = _fetch_rows(own, "SELECT name, current_setting(name) FROM unnest(ARRAY['search_path', 'role']) AS name")
    return tuple(f"SELECT set_config('{name}', {quote_text(value)}, true)" for name, value in settings)


def has_same_view(own: sa.Connection, other: sa.Connection, db_schema: str | None, *, has_query: bool) -> bool:
    """Return whether two connections provably read the same committed rows.

    They do for ordinary tables. Views, policies and custom queries may depend on any setting (`app.tenant`), and
    settings cannot be listed.
    """
    if own.dialect.name == "sqlite":  # the same, unless databases are attached, or there are temporary tables or views
        attached = {name for _, name, *_ in _fetch_rows(own, "PRAGMA database_list")} - {"main", "temp"}
        return not attached and not _fetch_rows(own, "SELECT 1 FROM sqlite_temp_master LIMIT 1")
    if has_query:
        return False
    find_view = _read_postgresql_view if own.dialect.name == "postgresql" else _read_mysql_view
    return find_view(own, db_schema) == find_view(other, db_schema) is not None


_PLAIN_KINDS = {"r", "p", "m"}
"""Tables, partitioned tables, and materialised views."""

_POSTGRESQL_TABLES = f"""
SELECT CAST(c.relname AS text), CAST(c.oid AS bigint), CAST(c.relkind AS text), row_security_active(c.oid)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname IN ({", ".join(map(quote_text, _TABLES))}) AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
AND CASE WHEN CAST(:db_schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :db_schema END
ORDER BY 1
"""  # noqa: S608  constant names


def _read_postgresql_view(connection: sa.Connection, db_schema: str | None) -> Rows | None:
    """Return the users and the default tables that a connection resolves; None if a table is a view or has policies."""
    existing = _fetch_rows(connection, _POSTGRESQL_TABLES, db_schema=db_schema)
    if any(kind not in _PLAIN_KINDS or has_policies for _, _, kind, has_policies in existing):
        return None
    return _fetch_rows(connection, "SELECT CAST(session_user AS text), CAST(current_user AS text)") + existing


_NO_SUCH_TABLE = 1146


def _read_mysql_view(connection: sa.Connection, db_schema: str | None) -> Rows | None:
    """Return the user and the database of a connection; None if a default table is a view or temporary."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    prefix = f"{quote(db_schema)}." if db_schema else ""
    for name in _TABLES:
        try:
            ((_, definition, *_),) = connection.exec_driver_sql(f"SHOW CREATE TABLE {prefix}{name}").fetchall()
        except SQLAlchemyError as error:
            if getattr(error, "orig", error).args[:1] != (_NO_SUCH_TABLE,):
                return None
        else:
            if not str(definition).startswith("CREATE TABLE"):
                return None
    return _fetch_rows(connection, "SELECT DATABASE(), CURRENT_USER(), CURRENT_ROLE()")


def _fetch_rows(connection: sa.Connection, sql: str, **values: Any) -> Rows:
    try:
        return [tuple(row) for row in connection.execute(sa.text(sql), values)]
    except SQLAlchemyError as error:
        if isinstance(getattr(error, "orig", error), MissingGreenlet):
            raise UsageError(
                "The view of an AsyncSession in a transaction cannot be queried from here: call the export with "
                "session.run_sync, or pass the engine."
            ) from None
        raise build_connection_error(connection.engine.url, error) from None


_SQLALCHEMY = {"sqlalchemy.engine.create", "sqlalchemy.engine.default", "sqlalchemy.util.langhelpers"}
"""The modules that define SQLAlchemy's own hooks on connections."""

_TRACERS = {"ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk"}
"""Packages whose hooks only observe statements."""


def is_defined_by_url(engine: sa.Engine) -> bool:
    """Return whether the URL alone gives the same view: no `creator=`, `connect_args=` or hook, not in memory.

    False for DuckDB: a process can open a file with one configuration only, and the engine has its own.
    """
    if engine.dialect.name == "duckdb" or _has_hooks(engine):
        return False
    creator = engine.pool._creator
    cells = inspect.getclosurevars(creator).nonlocals if inspect.isfunction(creator) else {}
    by_url = engine.dialect.create_connect_args(engine.url)[1]
    return not is_memory(engine.url) and dict(cells.get("cparams") or {}) == dict(by_url) and "cargs_tup" in cells


def _has_hooks(engine: sa.Engine) -> bool:
    """Return whether the application has hooks on connections, transactions or statements."""
    hooks = chain(
        engine.dialect.dispatch.do_connect,
        engine.dialect.dispatch.do_execute,
        engine.dialect.dispatch.do_execute_no_params,
        engine.pool.dispatch.connect,
        engine.pool.dispatch.checkout,
        engine.dispatch.engine_connect,
        engine.dispatch.begin,
        engine.dispatch.before_execute,
        engine.dispatch.before_cursor_execute,
    )
    return not all(_only_observes(hook) for hook in hooks)


def _only_observes(hook: Any) -> bool:
    if inspect.isfunction(hook):  # SQLAlchemy wraps a hook that returns nothing
        hook = inspect.getclosurevars(hook).nonlocals.get("orig_fn", hook)
    module = str(getattr(hook, "__module__", None))
    return module in _SQLALCHEMY or module.partition(".")[0] in _TRACERS
