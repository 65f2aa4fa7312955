"""Give a type to the columns of a custom query that are NULL without one (`NULL AS age`)."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.raw_types import RawType, raw_types
from feedback_etl.database.relation import Column, SourceRelation
from feedback_etl.database.statements import fetch_rows

NULL_TYPE = "null"
"""The type name of a column that is NULL in every row (`column_types.type_name`)."""

_TYPES: dict[str, tuple[str, Any]] = {
    "int4": ("int", sa.Integer()),
    "timestamp": ("datetime", sa.DateTime()),
    "text": ("text", sa.Text()),
}
"""PostgreSQL's name of a type, MySQL's, and SQLAlchemy's type."""


def type_null_columns(source: DatabaseConnection, relation: SourceRelation) -> SourceRelation:
    """Return a relation whose untyped columns of nulls have a type that is expected.

    In a subquery of PostgreSQL such a column is text: a text column of a wrong type is one of nulls if no row has a
    value.
    """
    expected = raw_types(relation.schema)
    columns, types = dict(relation.columns), dict(relation.types)
    for name, type_ in relation.types.items():
        if name in expected.keys() & columns.keys() and (
            type_ == NULL_TYPE or _is_null_text(source, relation, name, expected[name])
        ):
            types[name], columns[name] = _typed_null(source.dialect, expected[name])
    return replace(relation, columns=columns, types=types)


def _is_null_text(source: DatabaseConnection, relation: SourceRelation, name: str, expected: RawType) -> bool:
    if source.dialect != "postgresql" or relation.type_name(name) != "text" or "text" in expected.postgresql:
        return False
    one: Column = sa.literal_column("1")
    has_value = sa.select(one).select_from(relation.rows).where(relation.columns[name].is_not(None))
    return not fetch_rows(source, relation.render(has_value.limit(1)))


def _typed_null(dialect: str, expected: RawType) -> tuple[str, Column]:
    name = next(name for name in _TYPES if name in expected.postgresql)
    mysql_name, type_ = _TYPES[name]
    return mysql_name if dialect == "mysql" else name, sa.cast(sa.null(), type_)
