"""Make a connection read-only, in UTC and in one snapshot, and restore its state afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.connection_errors import build_connection_error
from feedback_etl.errors import UsageError

SNAPSHOT = "REPEATABLE READ"
"""The isolation level in which all statements of a transaction see one snapshot."""

READ_ONLY = (
    "SET TRANSACTION READ ONLY",
    "SET LOCAL TIME ZONE 'UTC'",
    "SET LOCAL standard_conforming_strings = on",
    "SET LOCAL idle_in_transaction_session_timeout = 0",  # it may wait for a slow writer or for the readers
)
"""Statements that begin a PostgreSQL transaction; their settings end with it, so a pooled connection is unchanged.

The server's limits for statements stay (statement_timeout, lock_timeout, transaction_timeout); idle_session_timeout
does not apply within a transaction.
"""

EVERY_ROW = "SET LOCAL row_security = off"
"""Makes PostgreSQL refuse a query from which row-level security would hide rows, instead of hiding them."""

_MYSQL_SETTINGS = {
    "time_zone": "'+00:00'",
    "sql_mode": "''",  # backslashes and double quotes in a --query have the meaning that `custom_query` assumes
    "sql_select_limit": "18446744073709551615",  # no limit
    "net_write_timeout": "86400",  # seconds that the server waits for a slow reader; the default is a minute
    "wait_timeout": "86400",  # seconds between statements: a folder may be locked, or rows written slowly
}
_MARIADB_SETTINGS = dict.fromkeys(
    ("idle_transaction_timeout", "idle_readonly_transaction_timeout", "idle_write_transaction_timeout"), "0"
)
"""Idle limits of transactions, which MySQL does not have."""


def _assign(assignment: str) -> str:
    """Return a SET statement of all settings; MySQL reads the part for MariaDB as a comment."""
    common, mariadb = (
        ", ".join(assignment.format(name=name, value=value) for name, value in settings.items())
        for settings in (_MYSQL_SETTINGS, _MARIADB_SETTINGS)
    )
    return f"SET {common} /*M!100300 , {mariadb} */"


MYSQL_SESSION = _assign("SESSION {name} = {value}")
"""The session settings for reading MySQL or MariaDB, where no settings end with a transaction."""

_SAVE_SETTINGS = _assign("@feedback_etl_{name} = @@SESSION.{name}")
_RESTORE_SETTINGS = _assign("SESSION {name} = @feedback_etl_{name}")
_CLEAR_SAVED_SETTINGS = _assign("@feedback_etl_{name} = NULL")

Statements = tuple[tuple[str, ...], tuple[str, ...]]


@contextmanager
def read_only_session(connection: sa.Connection, settings: Sequence[str] = ()) -> Iterator[None]:
    """Make a connection read-only and in UTC within the context; restore its state afterwards.

    Args:
        connection: The caller's, or one that was opened here.
        settings: Additional statements, in effect until the end of PostgreSQL's transaction or savepoint.

    Raises:
        SourceError: The connection is closed, or its transaction has failed.
        UsageError: The connection's settings would change the text that is read.
    """
    was_idle = not connection.in_transaction()
    end: tuple[str, ...] = ()
    try:
        try:
            begin, end = _build_session_statements(connection, was_idle=was_idle)
            for statement in (*begin, *settings):
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        except SQLAlchemyError as error:
            raise build_connection_error(connection.engine.url, error) from None
        yield
    finally:
        for statement in end:
            with suppress(SQLAlchemyError):
                connection.exec_driver_sql(statement)
        with suppress(SQLAlchemyError):
            if was_idle:
                connection.rollback()


def _build_session_statements(connection: sa.Connection, *, was_idle: bool) -> Statements:
    """Return the statements to execute before and after reading."""
    match connection.dialect.name:
        case "postgresql":
            return _build_postgresql_statements(connection, was_idle=was_idle)
        case "mysql" | "mariadb":
            return _build_mysql_statements(connection, was_idle=was_idle)
        case "duckdb" if was_idle:
            return ("ROLLBACK", "BEGIN TRANSACTION READ ONLY"), ("ROLLBACK",)
        case "duckdb":  # in the caller's transaction: a subquery cannot write
            return (), ()
        case _:  # SQLite: test that the file can be read; a SELECT cannot write
            return ("PRAGMA schema_version",), ()


def _build_postgresql_statements(connection: sa.Connection, *, was_idle: bool) -> Statements:
    driver: Any = connection.connection.dbapi_connection
    in_transaction = getattr(getattr(driver, "info", None), "transaction_status", 0)
    if connection.dialect.detect_autocommit_setting(driver) and not in_transaction:
        return ("BEGIN", *READ_ONLY), ("ROLLBACK",)
    if was_idle:  # the transaction that begins here is rolled back
        return READ_ONLY, ()
    savepoint = "SAVEPOINT feedback_etl"
    return (savepoint, *READ_ONLY), (f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}")


_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS of the protocol


def _build_mysql_statements(connection: sa.Connection, *, was_idle: bool) -> Statements:
    """Roll back to a savepoint in a caller's transaction, which cannot be made read-only."""
    charset, mode = connection.exec_driver_sql("SELECT @@character_set_results, @@sql_mode").fetchall()[0]
    if charset != "utf8mb4":
        raise UsageError(
            f"This connection reads text as {charset}, which loses characters; open it with charset=utf8mb4."
        )
    if "ANSI_QUOTES" in mode:  # SQLAlchemy has read the setting, and would keep using it
        raise UsageError("This connection has the sql_mode ANSI_QUOTES, which is not supported; pass its URL.")
    driver: Any = connection.connection.dbapi_connection
    in_transaction = getattr(driver, "server_status", _IN_TRANSACTION) & _IN_TRANSACTION
    settings, restore = (_SAVE_SETTINGS, MYSQL_SESSION), (_RESTORE_SETTINGS, _CLEAR_SAVED_SETTINGS)
    if was_idle or (connection.dialect.detect_autocommit_setting(driver) and not in_transaction):
        isolation = f"SET TRANSACTION ISOLATION LEVEL {SNAPSHOT}"
        start = "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT"
        return (*settings, "ROLLBACK", isolation, start), ("ROLLBACK", *restore)
    savepoint = "SAVEPOINT feedback_etl"
    return (*settings, savepoint), (f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}", *restore)
