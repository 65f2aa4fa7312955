"""Read the clock, parse durations, and convert times to naive UTC, the representation used inside the package."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from feedback_etl.errors import UsageError


def resolve_now(now: datetime | None = None) -> datetime:
    """Return the time of a run as naive UTC: `now`, or the current time if it is None.

    Raises:
        UsageError: `now` is not a datetime, or lies outside the years 1 to 9999 in UTC.
    """
    if now is not None and not isinstance(now, datetime):
        raise UsageError("`now` must be a datetime; without a time zone it is interpreted as UTC.")
    return to_naive_utc(datetime.now(UTC) if now is None else now)


def to_naive_utc(time: datetime) -> datetime:
    """Convert a time to naive UTC; a time without an offset is interpreted as UTC."""
    try:
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except OverflowError:
        raise UsageError("A time must lie in the years 1 to 9999, also in UTC.") from None


def parse_duration(duration: str | timedelta, option: str = "lookback") -> timedelta:
    """Parse the duration of an option: a timedelta, or text such as 30m, 2h or 1d.

    Raises:
        UsageError: It is neither, or negative.

    >>> parse_duration("90m")
    datetime.timedelta(seconds=5400)
    """
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    span = duration
    if isinstance(span, str) and span[-1:] in units and span[:-1].isascii() and span[:-1].isdigit():
        with suppress(OverflowError, ValueError):  # int() refuses thousands of digits by a ValueError
            span = timedelta(**{units[span[-1]]: int(span[:-1])})
    if not isinstance(span, timedelta) or span < timedelta(0):
        raise UsageError(f"`{option}` must be a duration such as 30m, 2h or 1d, not negative.")
    return span
