"""Suggest the index that would speed up reading."""

from contextlib import suppress
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database import tables
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import count_rows
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError

_MAX_INDEXED_SHARE = 0.5
"""The share of a table above which a full scan is faster than an index."""

_TABLE = tables.recommendation_feedbacks.name


def suggest_index(source: DatabaseConnection, relation: SourceRelation, window: Window) -> str:
    """Return a sentence with the statement that creates the index that is missing; "" if none is, or none would help.

    Rows are found by created_at, or by the cursor of a series. An index does not help for a window that contains most
    of the table, nor on DuckDB; a custom query is not analysed.
    """
    reads_all = window.start is None and relation.changed_since is None
    if relation.custom_query is not None or reads_all or source.dialect == "duckdb":
        return ""
    with suppress(SQLAlchemyError, SourceError):  # a hint must not fail an export
        columns = dict.fromkeys(("created_at", relation.cursor if relation.changed_since else "created_at"))
        if statement := next(filter(None, (missing_index_statement(source, column) for column in columns)), ""):
            everything = replace(relation, changed_since=None)
            table_rows = fetch_count(source, count_rows(everything, Window(None, window.end)))
            if fetch_count(source, count_rows(relation, window)) < _MAX_INDEXED_SHARE * table_rows:
                return f"the database read all of {_TABLE} to find the window; an index helps: {statement}"
    return ""


def missing_index_statement(source: DatabaseConnection, column: str = "created_at") -> str | None:
    """Return the statement that creates the index on a column; "" if it exists, None for a view.

    Raises:
        SQLAlchemyError: The indexes cannot be listed.
    """
    inspector = sa.inspect(source.connection)
    indexes = inspector.get_indexes(_TABLE, schema=source.db_schema)
    is_table = _TABLE in inspector.get_table_names(source.db_schema)
    if not is_table:
        return None
    if any(index["column_names"][:1] == [column] for index in indexes):
        return ""
    quote = source.connection.dialect.identifier_preparer.quote
    table = f"{quote(source.db_schema)}.{_TABLE}" if source.db_schema and source.dialect != "sqlite" else _TABLE
    name = "CONCURRENTLY" if source.dialect == "postgresql" else f"{_TABLE}_{column}"
    return f"CREATE INDEX {name} ON {table} ({quote(column)});"
