"""Convert the columns of raw files to the types that are expected."""

from dataclasses import replace

import sqlalchemy as sa

from feedback_etl.database.raw_types import RawType, raw_types
from feedback_etl.database.relation import Column, SourceRelation

_TEXTS = ("varchar", "text")
_TIMES = ("timestamp_ns", "date")


def convert_columns(relation: SourceRelation) -> SourceRelation:
    """Return the relation of files whose columns of text, days and nanoseconds have the expected types."""
    expected = raw_types(relation.schema)
    columns, types = dict(relation.columns), dict(relation.types)
    for name in expected.keys() & columns.keys():
        if types[name] not in expected[name].postgresql:
            types[name], columns[name] = _convert(columns[name], types[name], expected[name], sa.literal(name))
    return replace(relation, columns=columns, types=types)


def _convert(column: Column, type_: str, expected: RawType, name: Column) -> tuple[str, Column]:
    """Return a column and the name of its type, unchanged if there is no conversion."""
    if type_ in _TIMES and "timestamp" in expected.postgresql:
        return "timestamp", sa.cast(column, sa.DateTime)
    if type_ not in _TEXTS:
        return type_, column
    if "timestamp" in expected.postgresql:
        return "timestamp", sa.func.text_to_time(column)
    if "float8" in expected.postgresql:
        return "float8", sa.func.text_to_number(column, name)
    if "bool" in expected.postgresql:
        return "int8", sa.func.text_to_boolean(column, name)
    return "int8", sa.func.text_to_integer(column, name)
