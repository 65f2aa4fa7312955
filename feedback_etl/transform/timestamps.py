"""Times that can be exported (the years 1 to 9999), and the placeholder for those that cannot.

Python, CSV readers and pandas end there; databases do not (PostgreSQL's `infinity` and the years before Christ).
"""

import polars as pl


def _moment(microseconds: int) -> pl.Expr:
    """Return a moment since 1970; unlike a literal of datetime, it starts none of Polars' threads at import."""
    return pl.lit(microseconds, pl.Int64).cast(pl.Datetime("us"))


_FIRST, _LAST = _moment(-62_135_596_800_000_000), _moment(253_402_300_799_999_999)
"""0001-01-01 00:00:00 and 9999-12-31 23:59:59.999999, `datetime.min` and `datetime.max`."""
UNREADABLE = _moment(253_402_300_800_000_000)
"""The first moment after the year 9999; in raw rows, a time that cannot be read. Null stands for no time."""


def is_unreadable(column: str | pl.Expr) -> pl.Expr:
    """Return whether a time lies outside of the years 1 to 9999; null for null.

    >>> from datetime import datetime
    >>> pl.select(pl.lit(datetime(2025, 10, 25)).alias("t"), UNREADABLE.alias("u")).select(
    ...     is_unreadable("t"), is_unreadable("u")
    ... ).row(0)
    (False, True)
    """
    time = pl.col(column) if isinstance(column, str) else column
    return ~time.cast(pl.Datetime("us")).is_between(_FIRST, _LAST)


def readable(column: str | pl.Expr) -> pl.Expr:
    """Replace times that cannot be read by null.

    >>> pl.select(UNREADABLE.alias("t")).select(readable("t")).item() is None
    True
    """
    time = pl.col(column) if isinstance(column, str) else column
    return pl.when(~is_unreadable(time)).then(time)
