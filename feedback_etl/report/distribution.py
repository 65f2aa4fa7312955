"""Value counts of a column, with rare values grouped so that they identify no one."""

import re
from typing import NamedTuple

import polars as pl

from feedback_etl.plurals import pluralize
from feedback_etl.privacy.risk_measures import SMALL_CLASS
from feedback_etl.report.columns import Column, bin_values

MAX_BINS = 15
"""Bins shown one by one, empty among them; the others are grouped."""

_NUMBER = re.compile(r"(?<!\d)-?\d+(?:\.\d+)?")  # the hyphen of 18-25 is not a sign


class Share(NamedTuple):
    """A value, or a group of values, and its number of rows."""

    label: str
    rows: int


class _Count(NamedTuple):
    """Rows and people of a bin; empty is a bin of its own, without a label."""

    label: str | None
    rows: int
    people: int


class Distribution(NamedTuple):
    """Distribution of a column's values.

    Attributes:
        column: The column.
        rows: Rows of the table.
        empty: Rows without a value; None if they are rare, and so grouped with the others.
        distinct: Distinct values; of lists, distinct elements.
        shares: Values that are not rare, then all others as one group; empty for a hidden column.
    """

    column: Column
    rows: int
    empty: int | None
    distinct: int
    shares: list[Share]


def compute_distribution(frame: pl.DataFrame, column: Column, *, person: str) -> Distribution:
    """Count the values of a column.

    Args:
        frame: Rows, all columns text.
        column: Column of the frame.
        person: Column that best identifies the person of a row.

    >>> values = ["1_week"] * 6 + ["2_weeks"] * 6 + ["9_weeks"]
    >>> rows = pl.DataFrame({"timeframe": values, "who": [str(number) for number in range(13)]})
    >>> weeks = Column("timeframe", "Time since.", "text", "label", ordered=True)
    >>> compute_distribution(rows, weeks, person="who").shares
    [Share(label='1_week', rows=6), Share(label='other (2 values)', rows=7)]
    """
    shown, grouped = _split_rare(_count_bins(frame, column, person))
    rare = any(count.label is None for count in grouped)
    values = frame.get_column(column.name).drop_nulls()
    return Distribution(
        column,
        frame.height,
        None if rare else frame.height - len(values),
        _count_distinct(values, column),
        [] if column.kind == "hidden" else [*_list_shares(shown, column), *_group_rare(grouped)],
    )


def _count_distinct(values: pl.Series, column: Column) -> int:
    """Count the distinct values, or elements of lists."""
    if not column.is_list:
        return values.n_unique()
    return values.to_frame().select(bin_values(column, values.to_frame())).to_series().explode().n_unique()


def _count_bins(frame: pl.DataFrame, column: Column, person: str) -> list[_Count]:
    """Count rows and people of all bins, empty first, then the most frequent."""
    bins = frame.select(bin_values(column, frame).alias("bin"), pl.col(person).alias("person"))
    if column.is_list:
        bins = bins.explode("bin")
    counts = bins.group_by("bin").agg(pl.len().alias("rows"), pl.col("person").n_unique().alias("people"))
    counts = counts.sort(pl.col("bin").is_not_null(), "rows", "bin", descending=[False, True, False])
    return [_Count(*row) for row in counts.iter_rows()]


def _split_rare(counts: list[_Count]) -> tuple[list[_Count], list[_Count]]:
    """Return the bins with enough people, and the grouped others; a group that is too small takes one more bin."""
    shown = [count for count in counts if count.people >= SMALL_CLASS][:MAX_BINS]
    grouped = [count for count in counts if count not in shown]
    if shown and grouped and (len(grouped) == 1 or sum(count.people for count in grouped) < SMALL_CLASS):
        grouped.append(shown.pop())
    return shown, grouped


def _list_shares(counts: list[_Count], column: Column) -> list[Share]:
    shares = [Share(label, rows) for label, rows, _ in counts if label is not None]
    return sorted(shares, key=lambda share: _split_numbers(share.label)) if column.ordered else shares


def _group_rare(counts: list[_Count]) -> list[Share]:
    """Return grouped bins as one share; an empty list for no bins."""
    label = f"other ({pluralize(len(counts), 'value')})"
    if any(count.label is None for count in counts):
        label = "other or empty"
    return [Share(label, sum(count.rows for count in counts))] if counts else []


def _split_numbers(label: str) -> tuple[list[float], str]:
    """Return a sort key that puts 2_weeks before 10_weeks, and <18 before 18-25.

    >>> sorted(["10_weeks", "2_weeks", "50+", "18-25", "<18"], key=_split_numbers)
    ['2_weeks', '10_weeks', '<18', '18-25', '50+']
    """
    return [float(number) for number in _NUMBER.findall(label)], label
