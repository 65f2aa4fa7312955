"""Reading on a connection: read-only, in UTC, one state of the database; then all is as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.connection_errors import connection_error
from feedback_etl.errors import UsageError

SNAPSHOT = "REPEATABLE READ"
"""The isolation in which a transaction sees one state of the database from its first statement to its last."""

READ_ONLY = (
    "SET TRANSACTION READ ONLY",
    "SET LOCAL TIME ZONE 'UTC'",
    "SET LOCAL standard_conforming_strings = on",
    "SET LOCAL idle_in_transaction_session_timeout = 0",  # it waits for a slow writer, or for the readers
)
"""What a PostgreSQL transaction of ours begins with, and what ends with it: a pooled connection keeps nothing.

The server's limits for work stay (statement_timeout, lock_timeout, transaction_timeout); idle_session_timeout does not
count in a transaction.
"""

EVERY_ROW = "SET LOCAL row_security = off"
"""Makes PostgreSQL refuse a query of which row-level security would hide rows, instead of leaving them out."""

_MYSQL_SETTINGS = {
    "time_zone": "'+00:00'",
    "sql_mode": "''",  # backslashes and double quotes mean in a --query what `custom_query` takes them for
    "sql_select_limit": "18446744073709551615",  # no limit
    "net_write_timeout": "86400",  # seconds that the server waits for a slow reader; a minute is usual
    "wait_timeout": "86400",  # seconds between two statements: a folder may be locked, or rows be written slowly
}
_MARIADB_SETTINGS = dict.fromkeys(
    ("idle_transaction_timeout", "idle_readonly_transaction_timeout", "idle_write_transaction_timeout"), "0"
)
"""Limits for the pauses of a transaction, which MySQL does not have."""


def _assign(assignment: str) -> str:
    """Write a SET statement of all settings; MySQL takes what MariaDB alone knows for a comment."""
    ours, mariadb = (
        ", ".join(assignment.format(name=name, value=value) for name, value in settings.items())
        for settings in (_MYSQL_SETTINGS, _MARIADB_SETTINGS)
    )
    return f"SET {ours} /*M!100300 , {mariadb} */"


MYSQL_SESSION = _assign("SESSION {name} = {value}")
"""What holds while we read MySQL or MariaDB. Its sessions have no settings that end with a transaction."""

_KEEP = _assign("@feedback_etl_{name} = @@SESSION.{name}")
_GIVE_BACK = _assign("SESSION {name} = @feedback_etl_{name}")
_FORGET = _assign("@feedback_etl_{name} = NULL")

Brackets = tuple[tuple[str, ...], tuple[str, ...]]


@contextmanager
def read_only_session(connection: sa.Connection, settings: Sequence[str] = ()) -> Iterator[None]:
    """Read-only and in UTC for a while; then the connection and its transaction are as they were.

    Args:
        connection: The caller's, or one of ours.
        settings: Further statements that hold until the end of PostgreSQL's transaction or savepoint.

    Raises:
        SourceError: The connection is closed, or its transaction has failed.
        UsageError: Text cannot be read through it as it is.
    """
    was_idle = not connection.in_transaction()
    end: tuple[str, ...] = ()
    try:
        try:
            begin, end = _BRACKETS[connection.dialect.name](connection, was_idle)
            for statement in (*begin, *settings):
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        except SQLAlchemyError as error:
            raise connection_error(connection.engine.url, error) from None
        yield
    finally:
        for statement in end:
            with suppress(SQLAlchemyError):
                connection.exec_driver_sql(statement)
        with suppress(SQLAlchemyError):
            if was_idle:
                connection.rollback()


def _of_sqlite(_: sa.Connection, __: bool) -> Brackets:
    """A SELECT of it cannot write; this looks whether it can be read at all."""
    return ("PRAGMA schema_version",), ()


def _of_postgresql(connection: sa.Connection, was_idle: bool) -> Brackets:
    driver: Any = connection.connection.dbapi_connection
    begun = getattr(getattr(driver, "info", None), "transaction_status", 0)
    if connection.dialect.detect_autocommit_setting(driver) and not begun:
        return ("BEGIN", *READ_ONLY), ("ROLLBACK",)
    if was_idle:  # the transaction that begins here is rolled back
        return READ_ONLY, ()
    savepoint = "SAVEPOINT feedback_etl"
    return (savepoint, *READ_ONLY), (f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}")


_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS of the protocol


def _of_mysql(connection: sa.Connection, was_idle: bool) -> Brackets:
    """In a transaction of the caller's nothing can be forbidden, and what a function wrote is rolled back."""
    charset, mode = connection.exec_driver_sql("SELECT @@character_set_results, @@sql_mode").fetchall()[0]
    if charset != "utf8mb4":
        raise UsageError(f"This connection reads text as {charset}, which loses some; open it with charset=utf8mb4.")
    if "ANSI_QUOTES" in mode:  # SQLAlchemy has taken that in, and would go on with it
        raise UsageError("This connection has the sql_mode ANSI_QUOTES, with which it is not read; give its URL.")
    driver: Any = connection.connection.dbapi_connection
    begun = getattr(driver, "server_status", _IN_TRANSACTION) & _IN_TRANSACTION
    settings, back = (_KEEP, MYSQL_SESSION), (_GIVE_BACK, _FORGET)
    if was_idle or (connection.dialect.detect_autocommit_setting(driver) and not begun):
        isolation = f"SET TRANSACTION ISOLATION LEVEL {SNAPSHOT}"
        start = "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT"
        return (*settings, "ROLLBACK", isolation, start), ("ROLLBACK", *back)
    savepoint = "SAVEPOINT feedback_etl"
    return (*settings, savepoint), (f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}", *back)


def _of_duckdb(_: sa.Connection, was_idle: bool) -> Brackets:
    """In a transaction of the caller's, what stands in brackets cannot write there either."""
    return (("ROLLBACK", "BEGIN TRANSACTION READ ONLY"), ("ROLLBACK",)) if was_idle else ((), ())


_BRACKETS = {
    "postgresql": _of_postgresql,
    "mysql": _of_mysql,
    "mariadb": _of_mysql,
    "sqlite": _of_sqlite,
    "duckdb": _of_duckdb,
}
"""The statements around reading, by the dialect."""
