"""Reflect the columns of a table by SQLAlchemy or, if its dialect cannot, by a query that reads no row."""

import warnings
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SAWarning

from feedback_etl.database.column_types import type_name


def reflect_columns(inspector: sa.Inspector, table: str, db_schema: str | None) -> dict[str, Any]:
    """Return the columns of a table or view, with their types of SQLAlchemy."""
    if inspector.dialect.name == "duckdb":
        return _describe_columns(inspector, table, db_schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # about types that SQLAlchemy does not know
        return {str(column["name"]): column["type"] for column in inspector.get_columns(table, schema=db_schema)}


def _describe_columns(inspector: sa.Inspector, table: str, db_schema: str | None) -> dict[str, Any]:
    empty: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(sa.table(table, schema=db_schema)).limit(0)
    connection: Any = inspector.bind
    with connection.execute(empty) as result:
        return {str(name): _to_sqlalchemy_type(code) for name, code, *_ in result.cursor.description}


def _to_sqlalchemy_type(code: Any) -> Any:
    name = type_name("duckdb", code)
    return sa.Boolean() if name == "bool" else sa.Integer() if name.startswith("int") else sa.Text()
