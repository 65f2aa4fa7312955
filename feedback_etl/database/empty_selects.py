"""Build statements that yield columns and no rows, to inspect their types and whether they can be read."""

from typing import Any

import sqlalchemy as sa

from feedback_etl.database import tables
from feedback_etl.database.custom_query import extract_select
from feedback_etl.database.relation import SourceRelation, label_columns


def empty_query_select(dialect: str, sql: str) -> str:
    """Return a statement that yields all columns of a custom query, and no rows."""
    return f"SELECT * FROM ({extract_select(dialect, sql)}\n) AS feedback LIMIT 0"  # noqa: S608  it is one SELECT


def empty_select(relation: SourceRelation) -> str:
    """Return a statement that yields the columns of a relation, and no rows."""
    return relation.render(sa.select(*label_columns(relation.columns)).select_from(relation.rows).limit(0))


def empty_table_select(table: str, db_schema: str | None) -> str:
    """Return a PostgreSQL statement that reads a table and yields no rows."""
    select: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(sa.table(table, schema=db_schema))
    return f"{select.compile(dialect=tables.DIALECTS['postgresql'])} LIMIT 0"


def empty_id_select(relation: SourceRelation, name: str) -> str:
    """Return a statement that yields a column as `id`, and no rows."""
    id_ = relation.columns[name].label("id")
    return relation.render(sa.select(id_).select_from(relation.feedback_table).limit(0))
