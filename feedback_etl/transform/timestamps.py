"""Times that can be exported (the years 1 to 9999), and the placeholder for unreadable times.

Python's datetime is limited to these years. Databases are not: PostgreSQL has `infinity` and years before Christ.
"""

import polars as pl


def _from_microseconds(microseconds: int) -> pl.Expr:
    """Return a time from microseconds since 1970; a datetime literal would start threads of Polars at import."""
    return pl.lit(microseconds, pl.Int64).cast(pl.Datetime("us"))


_FIRST, _LAST = _from_microseconds(-62_135_596_800_000_000), _from_microseconds(253_402_300_799_999_999)
"""0001-01-01 00:00:00 and 9999-12-31 23:59:59.999999, `datetime.min` and `datetime.max`."""
UNREADABLE = _from_microseconds(253_402_300_800_000_000)
"""The first microsecond after the year 9999, which replaces unreadable times in raw rows; null means no time."""


def is_unreadable(column: str | pl.Expr) -> pl.Expr:
    """Return whether a time lies outside the years 1 to 9999; null stays null.

    >>> from datetime import datetime
    >>> pl.select(pl.lit(datetime(2025, 10, 25)).alias("t"), UNREADABLE.alias("u")).select(
    ...     is_unreadable("t"), is_unreadable("u")
    ... ).row(0)
    (False, True)
    """
    time = pl.col(column) if isinstance(column, str) else column
    return ~time.cast(pl.Datetime("us")).is_between(_FIRST, _LAST)


def readable(column: str | pl.Expr) -> pl.Expr:
    """Replace times outside the years 1 to 9999 by null.

    >>> pl.select(UNREADABLE.alias("t")).select(readable("t")).item() is None
    True
    """
    time = pl.col(column) if isinstance(column, str) else column
    return pl.when(~is_unreadable(time)).then(time)
