"""The window: a half-open range of creation times that selects the feedback of an export."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from feedback_etl.clock import to_naive_utc
from feedback_etl.errors import UsageError

Time = str | date | datetime
"""A point in time as callers give it: ISO 8601 text, a date (its first instant), or a datetime."""

EVERYTHING = -1
_DAYS_ALLOWED = "a whole number of days, 1 or more, or -1 for everything"


class Window(NamedTuple):
    """Select rows with `start <= created_at < end`, naive UTC; without a start, all before `end` or without a time.

    A row whose time cannot be read is in every window.
    """

    start: datetime | None
    end: datetime

    def __str__(self) -> str:
        start = f"{self.start:%Y-%m-%d %H:%M:%S}" if self.start else "the beginning"
        return f"{start} to {self.end:%Y-%m-%d %H:%M:%S} UTC"


def parse_window(ends: Sequence[str | None]) -> Window | None:
    """Return the window of a manifest, whose ends are ISO 8601 texts; None without an end, where it is unknown."""
    start, end = (datetime.fromisoformat(time) if time else None for time in ends)
    return Window(start, end) if end else None


class DatedWindow(Window):
    """Select only rows whose time is in the range: a part of a window."""

    __slots__ = ()


class UndatedWindow(Window):
    """Select rows whose time is missing or cannot be read: the rest of a window split into `DatedWindow` ranges."""

    __slots__ = ()


def parse_time(time: Time, name: str = "A time") -> datetime:
    """Return an ISO 8601 date or time as naive UTC; a date is its first instant.

    Raises:
        UsageError: The text is neither; the message begins with `name`.

    >>> parse_time("2025-10-25T12:00:00+02:00")
    datetime.datetime(2025, 10, 25, 10, 0)
    """
    try:
        if isinstance(time, date) and not isinstance(time, datetime):
            return datetime(time.year, time.month, time.day)
        return to_naive_utc(time if isinstance(time, datetime) else datetime.fromisoformat(time))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} must be an ISO 8601 date or time such as 2025-10-25 or 2025-10-25T12:00.") from None


def window_of_days(days_back: int, *, now: datetime) -> Window:
    """Return the window of `days_back` times 24 hours before `now` (naive UTC); -1 is everything before `now`.

    Raises:
        UsageError: `days_back` is not an int, is 0, below -1, or reaches before the year 1.

    >>> window_of_days(1, now=datetime(2025, 10, 25, 12))[0]
    datetime.datetime(2025, 10, 24, 12, 0)
    """
    if not isinstance(days_back, int) or isinstance(days_back, bool) or days_back < -1 or days_back == 0:
        raise UsageError(f"`days_back` must be {_DAYS_ALLOWED}.")
    if days_back == EVERYTHING:
        return Window(None, now)
    max_days = (now - datetime.min).days
    if days_back > max_days:
        raise UsageError(f"`days_back` must be {_DAYS_ALLOWED}; {max_days} is the maximum.")
    return Window(now - timedelta(days=days_back), now)


def window_between(since: Time | None, until: Time | None, *, now: datetime) -> Window:
    """Return the window from `since`, if given, up to but not including `until`, or up to `now` (naive UTC).

    Raises:
        UsageError: `until` lies in the future, or not after `since`.
    """
    start = None if since is None else parse_time(since, "`since`")
    end = now if until is None else parse_time(until, "`until`")
    if end > now:
        raise UsageError("`until` is in the future; times are UTC.")
    if start is not None and start >= end:
        raise UsageError("`since` must be before the end of the window.")
    return Window(start, end)
