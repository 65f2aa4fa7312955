"""Execute statements, and test whether row-level security may hide rows from one."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.driver_errors import build_query_error, get_query_reason, is_row_security_error
from feedback_etl.database.read_only import EVERY_ROW


def execute(source: DatabaseConnection, sql: str) -> sa.CursorResult[Any]:
    """Execute a statement as it is, without parameters."""
    return source.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def describe(source: DatabaseConnection, sql: str) -> list[Any]:
    """Return the driver's description of the columns that a statement yields."""
    with execute(source, sql) as result:
        return [*(result.cursor.description if result.cursor else ())]


def iterate_rows(source: DatabaseConnection, sql: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a statement.

    Raises:
        SourceError: The database stopped it.
    """
    try:
        yield from map(tuple, execute(source, sql))
    except SQLAlchemyError as error:
        raise build_query_error(get_query_reason(error)) from None


def fetch_rows(source: DatabaseConnection, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement that yields few; raises as `iterate_rows`."""
    return list(iterate_rows(source, sql))


def fetch_count(source: DatabaseConnection, sql: str) -> int:
    """Return the single number that a statement yields; raises as `iterate_rows`."""
    return int(fetch_rows(source, sql)[0][0])


def hides_rows(source: DatabaseConnection, sql: str) -> bool:
    """Return whether row-level security may hide rows from a statement.

    Args:
        source: The database; the result is False unless it was opened with row-level security allowed.
        sql: A statement that yields no row.

    Raises:
        SQLAlchemyError: The database refuses the statement for another reason.
    """
    if not source.allows_row_security:
        return False
    execute(source, "SAVEPOINT feedback_etl_probe")
    try:
        execute(source, EVERY_ROW)
        execute(source, sql).close()
    except SQLAlchemyError as error:
        if not is_row_security_error(error):
            raise
        return True
    finally:  # released too: a snapshot cannot be exported within a savepoint
        execute(source, "ROLLBACK TO feedback_etl_probe")
        execute(source, "RELEASE feedback_etl_probe")
    return False
