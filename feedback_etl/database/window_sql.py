"""Windows as conditions of SQL: which rows are read, and which are feedback_table.

A row is in a window by its time; one whose time cannot be read is in every window, and one without a time in those
without a start. WindowRanges of a window (`DatedWindow`, and `UndatedWindow` for the rest) have each row once.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from feedback_etl.database import text_times
from feedback_etl.database.relation import Column, SourceRelation
from feedback_etl.database.window import DatedWindow, UndatedWindow, Window

# Times of SQLite are text. Whole days on either side take in every form and offset; the reader cuts exactly.
_TEXT_TIME_SLACK = timedelta(days=2)

_CALENDAR_BEGINS: Column = sa.literal_column("'0001-01-01 00:00:00'")
_CALENDAR_ENDS: Column = sa.literal_column("'10000-01-01 00:00:00'")

Condition = sa.ColumnElement[bool]


def is_unreadable(relation: SourceRelation, time: Column) -> Condition:
    """Return whether there is a time and no driver can read it: it lies outside of the years 1 to 9999.

    On SQLite, whether a text is no ISO time; there, nothing is compared where `inspect` has found no such text.
    """
    if relation.dialect == "sqlite":
        return text_times.is_unreadable(time) if relation.has_unreadable_times else sa.false()
    if relation.dialect == "mysql":  # whose years end with 9999
        return time < _CALENDAR_BEGINS
    return sa.or_(time < _CALENDAR_BEGINS, time >= _CALENDAR_ENDS)


def is_read(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row is read for a window. On SQLite, some rows from around it are too."""
    time = relation.columns["created_at"]
    if relation.dialect != "sqlite":
        return is_in(relation, window)
    return sa.true() if window.start is None else sa.or_(_is_near(time, window), is_unreadable(relation, time))


def is_in(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row is in a window."""
    time = relation.columns["created_at"]
    unreadable = is_unreadable(relation, time)
    undated = unreadable if window.start else sa.or_(_is_missing(relation, time), unreadable)
    if isinstance(window, UndatedWindow):
        return undated
    dated = is_dated(relation, window)
    return dated if isinstance(window, DatedWindow) else sa.or_(dated, undated)


def is_counted(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row is in this window and in no adjoining one: those whose time cannot be read are in none."""
    dated = is_dated(relation, window)
    return dated if window.start else sa.or_(dated, _is_missing(relation, relation.columns["created_at"]))


def is_dated(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row's time can be read and lies in a window."""
    time = relation.columns["created_at"]
    if relation.dialect == "sqlite":
        exactly = _is_between(text_times.instant(time), window, shortest)
        near = _is_near(time, window) if window.start else sa.true()
        return sa.and_(near, exactly, sa.not_(is_unreadable(relation, time)))
    zone = "+00:00" if relation.type_name("created_at") == "timestamptz" else ""
    return _is_between(time, window, lambda bound: f"{shortest(bound)}{zone}")


def _is_missing(relation: SourceRelation, time: Column) -> Condition:
    missing = time.is_(sa.null())
    return sa.or_(missing, time == sa.literal_column("''")) if relation.dialect == "sqlite" else missing


def _is_near(time: Column, window: Window) -> Condition:
    """Compare texts as they are, which an index can: true for all that lie in a window, and some from around it."""
    first = max(window.start or datetime.min, datetime.min + _TEXT_TIME_SLACK) - _TEXT_TIME_SLACK
    last = min(window.end, datetime.max - _TEXT_TIME_SLACK) + _TEXT_TIME_SLACK
    return sa.and_(time >= sa.literal(str(first.date())), time < sa.literal(str(last.date())))


def _is_between(time: Column, window: Window, written: Callable[[datetime], str]) -> Condition:
    first = sa.literal(written(window.start)) if window.start else _CALENDAR_BEGINS
    return sa.and_(time >= first, time < sa.literal(written(window.end)))


def shortest(time: datetime) -> str:
    """Return a time as text that compares with other texts, without zeros at its end."""
    text = time.isoformat(sep=" ")
    return text.rstrip("0") if time.microsecond else text
