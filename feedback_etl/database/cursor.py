"""The cursor of a series as a column, and relations by each of their times."""

from collections.abc import Iterator
from dataclasses import replace

import sqlalchemy as sa

from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.relation import Column, SourceRelation
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import FeedbackSchema


def iter_time_relations(relation: SourceRelation) -> Iterator[SourceRelation]:
    """Yield the relation by its creation times, then by its cursor; each can use the index on its column."""
    everything = replace(relation, changed_since=None)
    for name in dict.fromkeys((CREATED_AT, relation.cursor)):
        yield _with_time(everything, relation.columns[name], relation.type_name(name))


def is_edited(relation: SourceRelation) -> sa.ColumnElement[bool]:
    """Return whether a row was changed after it was created: a second later at least, by the cursor.

    Applications that set both times when they insert a row may take them from two readings of the clock.
    """
    times = [relation.columns[name] for name in (CREATED_AT, relation.cursor)]
    if relation.dialect == "sqlite":
        created, changed = map(sa.func.julianday, times)
        return changed - created > sa.literal_column("1.0 / 86400")
    types = [relation.type_name(name) for name in (CREATED_AT, relation.cursor)]
    if len({*types}) > 1:
        times = [_to_naive_utc(time, type_name) for time, type_name in zip(times, types, strict=True)]
    return times[1] > times[0] + sa.literal_column("INTERVAL '1' SECOND")


def _to_naive_utc(time: Column, type_name: str) -> Column:
    return sa.func.timezone(sa.literal_column("'UTC'"), time) if type_name == "timestamptz" else time


def _with_time(relation: SourceRelation, time: Column, type_name: str) -> SourceRelation:
    return replace(
        relation,
        columns={**relation.columns, CREATED_AT: time},
        types={**relation.types, CREATED_AT: type_name} if relation.types else {},
    )


def with_cursor(schema: FeedbackSchema, cursor: str) -> FeedbackSchema:
    """Return a schema whose raw rows have the cursor: as an extra column, unless it is a raw column already."""
    if cursor in schema.raw_columns:
        return schema
    return schema.with_extra_columns((*schema.extra_columns, ExtraColumn(cursor, type="time")))
