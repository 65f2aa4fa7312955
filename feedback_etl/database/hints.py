"""Suggest the index that would speed up reading, and the cursor that follows changes."""

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.cursor import is_edited
from feedback_etl.database.cursor_name import UPDATED_AT
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import count_rows
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import ReflectedIndex

_MAX_INDEXED_SHARE = 0.5
"""The share of a table above which a full scan is faster than an index."""


def suggest_index(source: DatabaseConnection, relation: SourceRelation, window: Window) -> str:
    """Return a sentence with the statement that creates a missing index; "" if none is missing, or none would help.

    Rows are found by created_at, or by the cursor of a series. An index does not help for a window that contains most
    of the table, nor on DuckDB; a custom query is not analysed.
    """
    reads_all = window.start is None and relation.changed_since is None
    table = _find_table(relation, "created_at")
    if table is None or reads_all or source.dialect == "duckdb":
        return ""
    with suppress(SQLAlchemyError, SourceError):  # a hint must not fail an export
        columns = dict.fromkeys(("created_at", relation.cursor if relation.changed_since else "created_at"))
        statements = (build_index_statement(source, relation, column) for column in columns)
        if statement := next(filter(None, statements), ""):
            everything = replace(relation, changed_since=None)
            table_rows = fetch_count(source, count_rows(everything, Window(None, window.end)))
            if fetch_count(source, count_rows(relation, window)) < _MAX_INDEXED_SHARE * table_rows:
                return f"the database read all of {table.name} to find the window; an index helps: {statement}"
    return ""


def build_index_statement(source: DatabaseConnection, relation: SourceRelation, name: str = "created_at") -> str | None:
    """Return the statement that creates the index on a raw column; "" if it exists, None if rows are not in a table.

    Raises:
        SQLAlchemyError: The indexes cannot be listed.
    """
    inspector, table = sa.inspect(source.connection), _find_table(relation, name)
    if table is None or table.name not in inspector.get_table_names(table.schema):
        return None
    column: Any = relation.columns[name]
    indexes = inspector.get_indexes(table.name, schema=table.schema)
    if any(index["column_names"][:1] == [column.name] and _covers_ranges(index) for index in indexes):
        return ""
    quote = source.connection.dialect.identifier_preparer.quote
    schema = f"{quote(table.schema)}." if table.schema and source.dialect != "sqlite" else ""
    index_name = "CONCURRENTLY" if source.dialect == "postgresql" else quote(f"{table.name}_{column.name}")
    return f"CREATE INDEX {index_name} ON {schema}{quote(table.name)} ({quote(column.name)});"


def _covers_ranges(index: "ReflectedIndex") -> bool:
    """Return whether an index has all rows, and finds ranges of them."""
    options = index.get("dialect_options", {})
    is_partial = any(name.endswith("_where") for name in options)
    return not is_partial and options.get("postgresql_using") != "hash"


def suggest_cursor(source: DatabaseConnection, relation: SourceRelation) -> str:
    """Return a sentence on the cursor that follows changes; "" if no row was changed after it was created.

    Only the default tables are analysed.
    """
    if not count_edited(source, relation, limit=1):
        return ""
    return (
        "rows were changed after they were created, and this series does not export them again: a series with --cursor "
        "updated_at does"
    )


def count_edited(source: DatabaseConnection, relation: SourceRelation, *, limit: int | None = None) -> int | None:
    """Return the number of rows of the default table that were changed after they were created, at most `limit`.

    None if it is unknown.
    """
    if relation.profiles is None:
        return None
    with suppress(SQLAlchemyError, SourceError):  # a hint must not fail an export
        relation = inspect_source(source, cursor=UPDATED_AT)
        row: sa.Select[Any] = sa.select(sa.literal_column("1").label("row"))
        edited = row.select_from(relation.feedback_table).where(is_edited(relation)).limit(limit).subquery("edited")
        return fetch_count(source, relation.render(sa.select(sa.func.count()).select_from(edited)))
    return None


def _find_table(relation: SourceRelation, name: str) -> sa.TableClause | None:
    """Return the table or view of a raw column; None if the column is an expression or of a query."""
    table = getattr(getattr(relation.columns[name], "table", None), "element", None)
    return table if isinstance(table, sa.TableClause) else None
