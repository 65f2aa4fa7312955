"""Times that can be exported, and the stand-in for those that cannot: the years 1 to 9999 are the calendar.

Python, CSV readers and pandas end there; databases do not (PostgreSQL's `infinity` and the years before Christ).
"""

import polars as pl


def _moment(microseconds: int) -> pl.Expr:
    """Return a moment since 1970; unlike a literal of datetime, it starts none of Polars' threads at import."""
    return pl.lit(microseconds, pl.Int64).cast(pl.Datetime("us"))


_FIRST, _LAST = _moment(-62_135_596_800_000_000), _moment(253_402_300_799_999_999)
"""0001-01-01 00:00:00 and 9999-12-31 23:59:59.999999, `datetime.min` and `datetime.max`."""
UNREADABLE = _moment(253_402_300_800_000_000)
"""The first moment after the calendar: in raw rows, there is a time and it cannot be read. A null is no time."""


def is_unreadable(column: str | pl.Expr) -> pl.Expr:
    """Return whether a time lies outside of the calendar; null where there is none.

    >>> from datetime import datetime
    >>> pl.select(pl.lit(datetime(2025, 10, 25)).alias("t"), UNREADABLE.alias("u")).select(
    ...     is_unreadable("t"), is_unreadable("u")
    ... ).row(0)
    (False, True)
    """
    time = pl.col(column) if isinstance(column, str) else column
    return ~time.cast(pl.Datetime("us")).is_between(_FIRST, _LAST)


def readable(column: str | pl.Expr) -> pl.Expr:
    """Return the time itself; null where it cannot be read.

    >>> pl.select(UNREADABLE.alias("t")).select(readable("t")).item() is None
    True
    """
    time = pl.col(column) if isinstance(column, str) else column
    return pl.when(~is_unreadable(time)).then(time)
