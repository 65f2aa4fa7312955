"""What the columns of a table are, as SQLAlchemy finds out or, where its dialect cannot, a query that reads no row."""

import warnings
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SAWarning

from feedback_etl.database.column_types import type_name


def reflect_columns(inspector: sa.Inspector, table: str, db_schema: str | None) -> dict[str, Any]:
    """The columns of a table or view, with their types as SQLAlchemy's."""
    if inspector.dialect.name == "duckdb":
        return _described(inspector, table, db_schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # of types that SQLAlchemy does not know
        return {str(column["name"]): column["type"] for column in inspector.get_columns(table, schema=db_schema)}


def _described(inspector: sa.Inspector, table: str, db_schema: str | None) -> dict[str, Any]:
    nothing: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(sa.table(table, schema=db_schema)).limit(0)
    connection: Any = inspector.bind
    with connection.execute(nothing) as found:
        return {str(name): _type(code) for name, code, *_ in found.cursor.description}


def _type(code: Any) -> Any:
    name = type_name("duckdb", code)
    return sa.Boolean() if name == "bool" else sa.Integer() if name.startswith("int") else sa.Text()
