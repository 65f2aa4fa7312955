"""Connect to a database: a URL, Engine, Connection or Session becomes a `DatabaseConnection`."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from feedback_etl.database.connection_errors import build_connection_error
from feedback_etl.database.files import find_pattern, view_files
from feedback_etl.database.read_only import EVERY_ROW, MYSQL_SESSION, SNAPSHOT, read_only_session
from feedback_etl.database.session_view import (
    NOT_BOUND,
    copy_session_settings,
    has_same_view,
    is_defined_by_url,
    open_binds,
    unwrap,
)
from feedback_etl.database.urls import (
    build_connectorx_url,
    find_product,
    is_memory,
    normalize_dialect,
    parse_url,
    set_driver,
)
from feedback_etl.errors import UsageError
from feedback_etl.options.read import ReadOptions


class SessionLike(Protocol):
    """Describe a Session or a scoped session of SQLAlchemy, whose import takes 30 ms: most databases are URLs."""

    def get_bind(self) -> sa.Engine | sa.Connection:
        """Return the database of the session."""


Database = str | sa.URL | sa.Engine | sa.Connection | SessionLike
"""The types that identify a database."""


@dataclass(frozen=True)
class DatabaseConnection:
    """Hold an open, read-only connection to a database.

    Attributes:
        dialect: "postgresql", "mysql" (MariaDB too), "sqlite" or "duckdb".
        connection: For inspection, and for reading where ConnectorX cannot.
        connectorx_url: The same database for ConnectorX; None if only `connection` reaches it.
        db_schema: The schema of the default tables; None for the default schema.
        settings: Statements that every PostgreSQL transaction on this database executes first.
        has_files: Whether the database shows raw files (`files`).
    """

    dialect: str
    connection: sa.Connection = field(repr=False)
    connectorx_url: str | None = field(repr=False)
    db_schema: str | None = field(default=None, repr=False)
    settings: tuple[str, ...] = field(default=(), repr=False)
    has_files: bool = field(default=False, repr=False)

    @property
    def allows_row_security(self) -> bool:
        """Whether row-level security may hide rows."""
        return self.dialect == "postgresql" and EVERY_ROW not in self.settings


@contextmanager
def open_connection(
    database: Database,
    options: ReadOptions = ReadOptions(),  # noqa: B008  immutable
) -> Iterator[DatabaseConnection]:
    """Connect within `connect_timeout` seconds; connections that are opened here are closed at the end.

    The caller's connections keep their transactions, uncommitted changes and settings.

    A Session or Connection determines the view (`session_view`).

    Raises:
        UsageError: The URL is not valid, or its database is not supported.
        SourceError: The database cannot be reached.
    """
    connect_timeout = options.connect_timeout
    has_query = options.query is not None or options.source is not None
    settings = () if options.allow_row_security else (EVERY_ROW,)
    with open_binds(unwrap(database)) as (own, other, bind_options):
        db_schema = _translate_schema(options, bind_options.get("schema_translate_map") or {})
        if own is not None and other is not None:
            with _open_bind(other, connect_timeout, (*settings, *copy_session_settings(own)), db_schema) as source:
                if has_same_view(own, source.connection, db_schema, has_query=has_query):
                    yield source
                    return
        bind: Any = own if own is not None else other  # one of them exists
        with _open_bind(bind, connect_timeout, settings, db_schema) as source:
            yield source


def find_dialect(database: Database) -> str:
    """Return the dialect of a database without connecting, as `DatabaseConnection` names it.

    Raises:
        UsageError: The URL is not valid, the database is not supported, or a session is bound to no engine.
    """
    return normalize_dialect(find_url(database).get_backend_name())


def find_url(database: Database) -> sa.URL:
    """Return the URL of a database without connecting; it may contain a password.

    Raises:
        UsageError: The URL is not valid, or a session is bound to no engine.
    """
    bind = unwrap(database)
    try:
        if isinstance(bind, sa.URL):
            return bind
        return (bind if isinstance(bind, sa.Engine | sa.Connection) else bind.get_bind()).engine.url
    except SQLAlchemyError:
        raise UsageError(NOT_BOUND) from None


def is_files(database: Database) -> bool:
    """Return whether a database is a URL of raw files."""
    url = parse_url(database) if isinstance(database, str) else database
    return isinstance(url, sa.URL) and find_pattern(url) is not None


@contextmanager
def _open_bind(
    bind: sa.URL | sa.Engine | sa.Connection, connect_timeout: float, settings: tuple[str, ...], db_schema: str | None
) -> Iterator[DatabaseConnection]:
    url, pattern = None, find_pattern(bind) if isinstance(bind, sa.URL) else None
    if isinstance(bind, sa.URL) or (isinstance(bind, sa.Engine) and is_defined_by_url(bind)):
        url = set_driver(bind if isinstance(bind, sa.URL) else bind.url)
        bind = _create_engine(url, connect_timeout)
    elif bind.dialect.is_async:
        raise UsageError("This asynchronous engine cannot be read by its URL alone; pass a synchronous one.")
    dialect = normalize_dialect(bind.dialect.name)
    settings = settings if dialect == "postgresql" else ()
    with (
        _open_connection(bind) as connection,
        view_files(connection, pattern),
        read_only_session(connection, settings),
    ):
        yield DatabaseConnection(
            dialect,
            connection,
            build_connectorx_url(url, connection) if url is not None else None,
            db_schema,
            settings,
            has_files=pattern is not None,
        )


def _translate_schema(options: ReadOptions, schema_translate_map: Mapping[str | None, str | None]) -> str | None:
    """Return the schema of the default tables, translated by the caller's schema_translate_map."""
    if schema_translate_map and options.query is not None:
        raise UsageError(
            "The schema_translate_map does not apply to the text of a query: name the schemas in the query, and pass "
            "an engine without the map."
        )
    return schema_translate_map.get(options.db_schema, options.db_schema)


def _create_engine(url: sa.URL, connect_timeout: float) -> sa.Engine:
    """Create an engine that pools no connection and whose errors show no values."""
    if not 0 < connect_timeout < math.inf:
        raise UsageError("`connect_timeout` must be a number of seconds above 0.")
    options = _build_engine_options(url, connect_timeout)
    if find_pattern(url) is not None:
        url = url.set(query={})
    try:
        engine = sa.create_engine(url, hide_parameters=True, poolclass=sa.NullPool, **options)
    except (ModuleNotFoundError, NoSuchModuleError):
        extra = normalize_dialect(url.get_backend_name())
        raise UsageError(
            f'{find_product(url)} needs a driver that is not installed: pip install "feedback-etl[{extra}]".'
        ) from None
    except (ArgumentError, TypeError, ValueError) as error:
        raise build_connection_error(url, error) from None
    prepare = {"sqlite": _prepare_sqlite, "mysql": _prepare_mysql, "duckdb": _prepare_duckdb}
    if (dialect := normalize_dialect(url.get_backend_name())) in prepare:
        sa.event.listen(engine, "connect", prepare[dialect])
    return engine


def _build_engine_options(url: sa.URL, connect_timeout: float) -> dict[str, Any]:
    """Return the options of an engine that depend on the database."""
    seconds = math.ceil(connect_timeout)
    options: dict[str, dict[str, Any]] = {
        "postgresql": {
            # A connection that holds a snapshot is idle for hours; firewalls drop such connections after minutes.
            "connect_args": {
                "connect_timeout": seconds,
                "prepare_threshold": None,
                "client_encoding": "utf8",  # psycopg returns bytes from a server whose encoding is SQL_ASCII
                "keepalives_idle": url.query.get("keepalives_idle", 60),
            },
            "isolation_level": SNAPSHOT,
        },
        "mysql": {  # SQLAlchemy reads the settings of the first connection
            "connect_args": {"connect_timeout": seconds, "read_timeout": seconds, "init_command": MYSQL_SESSION},
            "isolation_level": SNAPSHOT,
        },
        "sqlite": {"connect_args": {"timeout": connect_timeout}},
        "duckdb": {"connect_args": {"read_only": not is_memory(url)}},
    }
    return options[normalize_dialect(url.get_backend_name())]


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.execute("PRAGMA query_only = ON")


def _prepare_mysql(connection: Any, _: object) -> None:
    connection._read_timeout = None  # it was set for connecting; PyMySQL has no public way to change it
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")


def _prepare_duckdb(connection: Any, _: object) -> None:
    connection.execute("SET TimeZone = 'UTC'")


@contextmanager
def _open_connection(bind: sa.Engine | sa.Connection) -> Iterator[sa.Connection]:
    """Yield a connection, and close it unless it is the caller's."""
    if isinstance(bind, sa.Connection):
        yield bind
        return
    try:
        connection = bind.connect()
    except (SQLAlchemyError, AttributeError, OSError, TypeError, ValueError) as error:
        raise build_connection_error(bind.url, error) from None
    try:
        yield connection
    finally:
        with suppress(SQLAlchemyError):  # a lost connection is closed already
            connection.close()
