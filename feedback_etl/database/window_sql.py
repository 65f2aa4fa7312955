"""Express windows as conditions in SQL: which rows are read, and which are counted.

A row belongs to a window by its time. A row whose time cannot be read belongs to every window, a row without a time to
every window without a start. The ranges of a window (`DatedWindow`, and one `UndatedWindow`) are disjoint.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from feedback_etl.database import text_times
from feedback_etl.database.relation import Column, SourceRelation
from feedback_etl.database.window import DatedWindow, UndatedWindow, Window

# Times of SQLite are text. Two days on either side cover every form and offset; `filter_window` is exact.
_TEXT_TIME_SLACK = timedelta(days=2)

_CALENDAR_START: Column = sa.literal_column("'0001-01-01 00:00:00'")
_CALENDAR_END: Column = sa.literal_column("'10000-01-01 00:00:00'")

Condition = sa.ColumnElement[bool]


def is_unreadable(relation: SourceRelation, time: Column) -> Condition:
    """Return whether a row has a time that no driver can read: one outside of the years 1 to 9999.

    On SQLite, a text that is not an ISO time; the condition is `false` if `inspection` found no such text.
    """
    if relation.dialect == "sqlite":
        return text_times.is_unreadable(time) if relation.has_unreadable_times else sa.false()
    if relation.dialect == "mysql":  # its last year is 9999
        return time < _CALENDAR_START
    return sa.or_(time < _CALENDAR_START, time >= _CALENDAR_END)


def instant(relation: SourceRelation, time: Column) -> Column:
    """Return a time in a form that sorts by time; on SQLite a text."""
    return text_times.instant(time) if relation.dialect == "sqlite" and not relation.has_plain_times else time


def is_read(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row is read for a window. On SQLite, some rows around it are read too."""
    time = relation.columns["created_at"]
    if relation.dialect != "sqlite":
        return is_in(relation, window)
    is_near = sa.true() if window.start is None else sa.or_(_is_near(time, window), is_unreadable(relation, time))
    return sa.and_(is_near, _is_changed(relation))


def is_in(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row is in a window."""
    time = relation.columns["created_at"]
    unreadable = is_unreadable(relation, time)
    undated = unreadable if window.start else sa.or_(_is_missing(relation, time), unreadable)
    if isinstance(window, UndatedWindow):
        return sa.and_(undated, _is_changed(relation))
    dated = is_dated(relation, window)
    in_window = dated if isinstance(window, DatedWindow) else sa.or_(dated, undated)
    return sa.and_(in_window, _is_changed(relation))


def _is_changed(relation: SourceRelation) -> Condition:
    """Return whether a row was created or changed since `changed_since`, in a form that can use two indexes."""
    if relation.changed_since is None:
        return sa.true()
    since = Window(relation.changed_since, datetime.max)
    times = {name: relation.columns[name] for name in ("created_at", relation.cursor)}
    return sa.or_(
        *(_is_since(relation, since, time, relation.type_name(name)) for name, time in times.items()),
        is_unreadable(relation, relation.columns["created_at"]),
    )


def _is_since(relation: SourceRelation, since: Window, time: Column, type_name: str) -> Condition:
    if relation.dialect == "sqlite":
        return sa.and_(_is_near(time, since), text_times.instant(time) >= sa.literal(_format_start(since, "")))
    return time >= sa.literal(_format_start(since, "+00:00" if type_name == "timestamptz" else ""))


def _format_start(window: Window, zone: str) -> str:
    return f"{format_time(window.start or datetime.min)}{zone}"


def is_counted(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row belongs to this window and no adjoining one; rows with an unreadable time belong to none."""
    dated = is_dated(relation, window)
    return dated if window.start else sa.or_(dated, _is_missing(relation, relation.columns["created_at"]))


def is_dated(relation: SourceRelation, window: Window) -> Condition:
    """Return whether a row's time can be read and is in a window."""
    time = relation.columns["created_at"]
    if relation.dialect == "sqlite":
        exactly = _is_between(instant(relation, time), window, format_time)
        near = _is_near(time, window) if window.start else sa.true()
        return sa.and_(near, exactly, sa.not_(is_unreadable(relation, time)))
    zone = "+00:00" if relation.type_name("created_at") == "timestamptz" else ""
    return _is_between(time, window, lambda bound: f"{format_time(bound)}{zone}")


def _is_missing(relation: SourceRelation, time: Column) -> Condition:
    missing = time.is_(sa.null())
    return sa.or_(missing, time == sa.literal_column("''")) if relation.dialect == "sqlite" else missing


def _is_near(time: Column, window: Window) -> Condition:
    """Return whether a text is in a window or near it, in a form that can use an index."""
    first = max(window.start or datetime.min, datetime.min + _TEXT_TIME_SLACK) - _TEXT_TIME_SLACK
    last = min(window.end, datetime.max - _TEXT_TIME_SLACK) + _TEXT_TIME_SLACK
    return sa.and_(time >= sa.literal(str(first.date())), time < sa.literal(str(last.date())))


def _is_between(time: Column, window: Window, format_bound: Callable[[datetime], str]) -> Condition:
    first = sa.literal(format_bound(window.start)) if window.start else _CALENDAR_START
    return sa.and_(time >= first, time < sa.literal(format_bound(window.end)))


def format_time(time: datetime) -> str:
    """Return a time as text that compares with other texts, without trailing zeros."""
    text = time.isoformat(sep=" ")
    return text.rstrip("0") if time.microsecond else text
