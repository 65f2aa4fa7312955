"""How often the values of a column occur, told so that nobody is found by a rare one."""

import re
from typing import NamedTuple

import polars as pl

from feedback_etl.privacy.risk import SMALL
from feedback_etl.report.columns import Column, binned

MOST_VALUES = 14
"""Shown of a column; the others are told together."""


_NUMBER = re.compile(r"(?<!\d)-?\d+(?:\.\d+)?")  # the dash of 18-25 is no sign


class Share(NamedTuple):
    """A value, or several together, and how many rows hold it."""

    label: str
    rows: int


class Distribution(NamedTuple):
    """What may be told of a column's values.

    Attributes:
        column: Which.
        rows: Of the table.
        empty: Rows without a value.
        different: Different values.
        shares: The values that are not rare, then all others as one; none of a hidden column.
    """

    column: Column
    rows: int
    empty: int
    different: int
    shares: list[Share]


def distribution(frame: pl.DataFrame, column: Column, *, person: str) -> Distribution:
    """How often a column's values occur.

    Args:
        frame: The rows, all columns text.
        column: Of the frame.
        person: The column that comes nearest to telling who a row is of.

    >>> told = ["1_week"] * 6 + ["2_weeks"] * 6 + ["9_weeks"]
    >>> rows = pl.DataFrame({"timeframe": told, "who": [str(number) for number in range(13)]})
    >>> weeks = Column("timeframe", "Time since.", "text", "label", ordered=True)
    >>> distribution(rows, weeks, person="who").shares
    [Share(label='1_week', rows=6), Share(label='other (2 values)', rows=7)]
    """
    values = frame.get_column(column.name)
    counts = [] if column.kind == "hidden" else _counts(frame, column, person)
    return Distribution(
        column, frame.height, values.null_count(), values.drop_nulls().n_unique(), _told(counts, column)
    )


def _counts(frame: pl.DataFrame, column: Column, person: str) -> list[tuple[str, int, int]]:
    """Each bin with its rows and its people, the most frequent first."""
    bins = frame.select(binned(column, frame).alias("bin"), pl.col(person).alias("person")).drop_nulls("bin")
    if column.kind == "list":
        bins = bins.explode("bin")
    counts = bins.group_by("bin").agg(pl.len().alias("rows"), pl.col("person").n_unique().alias("people"))
    return counts.sort("rows", "bin", descending=[True, False]).rows()


def _told(counts: list[tuple[str, int, int]], column: Column) -> list[Share]:
    """The values that enough people share; where a rare one could be told from the rest, one more goes with it."""
    shown = [each for each in counts if each[2] >= SMALL][:MOST_VALUES]
    hidden = [each for each in counts if each not in shown]
    if shown and hidden and (len(hidden) == 1 or sum(people for *_, people in hidden) < SMALL):
        hidden.append(shown.pop())
    if column.ordered:
        shown.sort(key=lambda each: _natural(each[0]))
    shares = [Share(label, rows) for label, rows, _ in shown]
    others = f"other ({len(hidden):,} value{'' if len(hidden) == 1 else 's'})"
    return [*shares, Share(others, sum(rows for _, rows, _ in hidden))] if hidden else shares


def _natural(label: str) -> tuple[list[float], str]:
    """An order in which 2_weeks comes before 10_weeks, and <18 before 18-25.

    >>> sorted(["10_weeks", "2_weeks", "50+", "18-25", "<18"], key=_natural)
    ['2_weeks', '10_weeks', '<18', '18-25', '50+']
    """
    return [float(number) for number in _NUMBER.findall(label)], label
