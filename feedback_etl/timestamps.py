"""Times that can be exported, and the stand-in for those that cannot: the years 1 to 9999 are the calendar.

Python, CSV readers and pandas end there; databases do not (PostgreSQL's `infinity` and the years before Christ).
"""

from datetime import datetime

import polars as pl

UNREADABLE = pl.lit(253_402_300_800_000_000, pl.Int64).cast(pl.Datetime("us"))
"""The first moment after the calendar: in raw rows, there is a time and it cannot be read. A null is no time."""


def is_unreadable(column: str | pl.Expr) -> pl.Expr:
    """Return whether a time lies outside of the calendar; null where there is none.

    >>> pl.select(pl.lit(datetime(2025, 10, 25)).alias("t"), UNREADABLE.alias("u")).select(
    ...     is_unreadable("t"), is_unreadable("u")
    ... ).row(0)
    (False, True)
    """
    time = pl.col(column) if isinstance(column, str) else column
    return ~time.cast(pl.Datetime("us")).is_between(datetime.min, datetime.max)


def readable(column: str | pl.Expr) -> pl.Expr:
    """Return the time itself; null where it cannot be read.

    >>> pl.select(UNREADABLE.alias("t")).select(readable("t")).item() is None
    True
    """
    time = pl.col(column) if isinstance(column, str) else column
    return pl.when(~is_unreadable(time)).then(time)
