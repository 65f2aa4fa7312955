"""How often the values of a column occur, told so that nobody is found by a rare one."""

import re
from typing import NamedTuple

import polars as pl

from feedback_etl.privacy.risk import SMALL_CLASS
from feedback_etl.report.columns import Column, binned

MOST_BINS = 15
"""Told one by one of a column, empty among them; the others are told together."""


_NUMBER = re.compile(r"(?<!\d)-?\d+(?:\.\d+)?")  # the dash of 18-25 is no sign


class Share(NamedTuple):
    """A value, or several together, and how many rows hold it."""

    label: str
    rows: int


class _Count(NamedTuple):
    """How many rows have a bin, and how many people these are of; empty is a bin of its own, without a label."""

    label: str | None
    rows: int
    people: int


class Distribution(NamedTuple):
    """What may be told of a column's values.

    Attributes:
        column: Which.
        rows: Of the table.
        empty: Rows without a value; None if they are rare, and so among the others.
        different: Different values; of lists, different elements.
        shares: The values that are not rare, then all others as one; none of a hidden column.
    """

    column: Column
    rows: int
    empty: int | None
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
    alone, together = _apart(_counts(frame, column, person))
    rare = any(each.label is None for each in together)
    values = frame.get_column(column.name).drop_nulls()
    return Distribution(
        column,
        frame.height,
        None if rare else frame.height - len(values),
        (values.str.split(",").explode() if column.kind == "list" else values).n_unique(),
        [] if column.kind == "hidden" else [*_shares(alone, column), *_others(together)],
    )


def _counts(frame: pl.DataFrame, column: Column, person: str) -> list[_Count]:
    """All bins, empty first, then the most frequent."""
    bins = frame.select(binned(column, frame).alias("bin"), pl.col(person).alias("person"))
    if column.kind == "list":
        bins = bins.explode("bin")
    counts = bins.group_by("bin").agg(pl.len().alias("rows"), pl.col("person").n_unique().alias("people"))
    counts = counts.sort(pl.col("bin").is_not_null(), "rows", "bin", descending=[False, True, False])
    return [_Count(*row) for row in counts.iter_rows()]


def _apart(counts: list[_Count]) -> tuple[list[_Count], list[_Count]]:
    """The bins that enough people share, and the others; where one could be told from the rest, one more goes along."""
    alone = [each for each in counts if each.people >= SMALL_CLASS][:MOST_BINS]
    together = [each for each in counts if each not in alone]
    if alone and together and (len(together) == 1 or sum(each.people for each in together) < SMALL_CLASS):
        together.append(alone.pop())
    return alone, together


def _shares(counts: list[_Count], column: Column) -> list[Share]:
    shares = [Share(label, rows) for label, rows, _ in counts if label is not None]
    return sorted(shares, key=lambda each: _natural(each.label)) if column.ordered else shares


def _others(counts: list[_Count]) -> list[Share]:
    """What is told together, as one; nothing where nothing is."""
    told = f"other ({len(counts):,} value{'' if len(counts) == 1 else 's'})"
    if any(each.label is None for each in counts):
        told = "other or empty"
    return [Share(told, sum(each.rows for each in counts))] if counts else []


def _natural(label: str) -> tuple[list[float], str]:
    """An order in which 2_weeks comes before 10_weeks, and <18 before 18-25.

    >>> sorted(["10_weeks", "2_weeks", "50+", "18-25", "<18"], key=_natural)
    ['2_weeks', '10_weeks', '<18', '18-25', '50+']
    """
    return [float(number) for number in _NUMBER.findall(label)], label
