"""Recognize SQLite's text times whose order as texts is their order in time, which an index has already.

They are if equal times have equal texts, each of one of a few spellings. A writer of another spelling may come between
the inspection and the reading; hence the order of the rows is verified as they are read.
"""

from collections.abc import Set
from typing import Any

import polars as pl
import sqlalchemy as sa

from feedback_etl.transform.timestamps import is_unreadable

Column = sa.ColumnElement[Any]

_SECONDS, _MILLISECONDS, _MICROSECONDS, _ZERO, _OTHER = "seconds", "milliseconds", "microseconds", "zero", "other"
_PLAIN = (
    {_SECONDS, _MICROSECONDS},  # Python's `isoformat(" ")`
    {_MICROSECONDS, _ZERO},  # SQLAlchemy
    {_MILLISECONDS},  # `strftime('%Y-%m-%d %H:%M:%f')`
)


def spelling(time: Column) -> Column:
    """Return the name of a text's spelling, `other` for any but those in `_PLAIN`; null for null."""
    time = sa.type_coerce(time, sa.Text)
    wall, no_days = sa.func.substr(time, _sql("1"), _sql("19")), _sql("'+0 days'")  # with it, SQLite checks the day
    # The first is faster, but rounds .9996 up to the next second.
    is_wall = sa.or_(_is(sa.func.datetime(time, no_days), wall), _is(sa.func.datetime(wall, no_days), wall))
    has_zeros = sa.func.substr(time, _sql("21")) == _sql("'000000'")
    return sa.case(
        (time.is_(sa.null()), sa.null()),
        (sa.not_(sa.and_(is_wall, time >= _sql("'0001-'"))), _sql(f"'{_OTHER}'")),
        (sa.func.length(time) == _sql("19"), _sql(f"'{_SECONDS}'")),
        (_has_digits(time, 6), sa.case((has_zeros, _sql(f"'{_ZERO}'")), else_=_sql(f"'{_MICROSECONDS}'"))),
        (_has_digits(time, 3), _sql(f"'{_MILLISECONDS}'")),
        else_=_sql(f"'{_OTHER}'"),
    )


def are_plain(spellings: Set[str]) -> bool:
    """Return whether times of these spellings sort as texts.

    >>> are_plain({"seconds", "microseconds"}), are_plain({"seconds", "zero"})
    (True, False)
    """
    return any(spellings <= plain for plain in _PLAIN)


def are_in_order(rows: pl.DataFrame) -> bool:
    """Return whether rows that were sorted by `text` are in the order of `time`, and equal times have equal texts.

    Rows without a time (an empty text) come last; an unreadable time is in no order.
    """
    time, text = pl.col("time"), pl.col("text")
    follows = (text == "") | (text == text.shift()) | (time > time.shift()).fill_null(False)
    return bool(rows.select(follows.slice(1).all() & ~is_unreadable(time).any()).item())


def _is(left: Column, right: Column) -> sa.ColumnElement[bool]:
    return left.is_not_distinct_from(right)


def _has_digits(time: Column, count: int) -> sa.ColumnElement[bool]:
    return time.op("GLOB")(_sql(f"'{'?' * 19}.{'[0-9]' * count}'"))


def _sql(constant: str) -> Column:
    return sa.literal_column(constant)
