"""Convert the columns of queries, declarations and raw files to the types that are expected, where that is possible.

A column of a query that is NULL without a type (`NULL AS age`) gets one; texts, days and nanoseconds of raw files
become the values that they stand for.
"""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.raw_types import RawType, list_raw_types
from feedback_etl.database.relation import Column, SourceRelation
from feedback_etl.database.statements import fetch_rows

_NULLS: dict[str, tuple[str, Any]] = {
    "int4": ("int", sa.Integer()),
    "timestamp": ("datetime", sa.DateTime()),
    "text": ("text", sa.Text()),
}
"""PostgreSQL's name of the type of a null, MySQL's, and SQLAlchemy's type."""


def convert_columns(source: DatabaseConnection, relation: SourceRelation) -> SourceRelation:
    """Return the relation with columns of expected types; those that cannot be converted stay as they are."""
    expected = list_raw_types(relation.schema)
    columns, types = dict(relation.columns), dict(relation.types)
    for name in [name for name in types if name in expected and name in columns]:
        if _is_null(source, relation, name, expected[name]):
            types[name], columns[name] = _type_null(source.dialect, expected[name])
        elif source.has_files and types[name] not in expected[name].postgresql:
            types[name], columns[name] = _convert(columns[name], types[name], expected[name], sa.literal(name))
    return replace(relation, columns=columns, types=types)


def _is_null(source: DatabaseConnection, relation: SourceRelation, name: str, expected: RawType) -> bool:
    """Return whether a column is NULL in every row.

    In a subquery of PostgreSQL such a column is text: a text column of a wrong type is one of nulls if no row has a
    value.
    """
    type_ = relation.type_name(name)
    if source.dialect != "postgresql" or type_ != "text" or "text" in expected.postgresql:
        return type_ == "null"
    one: Column = sa.literal_column("1")
    has_value = sa.select(one).select_from(relation.rows).where(relation.columns[name].is_not(None))
    return not fetch_rows(source, relation.render(has_value.limit(1)))


def _type_null(dialect: str, expected: RawType) -> tuple[str, Column]:
    name = next(name for name in _NULLS if name in expected.postgresql)
    mysql_name, type_ = _NULLS[name]
    return mysql_name if dialect == "mysql" else name, sa.cast(sa.null(), type_)


def _convert(column: Column, type_: str, expected: RawType, name: Column) -> tuple[str, Column]:
    """Return a column of a raw file and the name of its type, unchanged if there is no conversion."""
    if type_ in ("timestamp_ns", "date") and "timestamp" in expected.postgresql:
        return "timestamp", sa.cast(column, sa.DateTime)
    if type_ not in ("varchar", "text"):
        return type_, column
    if "timestamp" in expected.postgresql:
        return "timestamp", sa.func.text_to_time(column)
    if "float8" in expected.postgresql:
        return "float8", sa.func.text_to_number(column, name)
    if "bool" in expected.postgresql:
        return "int8", sa.func.text_to_boolean(column, name)
    return "int8", sa.func.text_to_integer(column, name)
