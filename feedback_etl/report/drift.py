"""Drift between two exports, by the population stability index."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from feedback_etl.report.columns import Column, bin_values

MODERATE, LARGE = 0.1, 0.25
"""Usual thresholds: below 0.1 the change is small, from 0.25 it is large (Siddiqi 2006, Credit Risk Scorecards)."""

_MIN_BIN_ROWS = 5


class Drift(NamedTuple):
    """Drift of a column.

    Attributes:
        column: Name of the column.
        psi: Population stability index.
        by_chance: Its approximate value without any change, since the exports are samples: (bins - 1) x
            (1 / rows before + 1 / rows now) (Yurdakul and Naranjo 2020, Statistical properties of the
            population stability index).
    """

    column: str
    psi: float
    by_chance: float

    @property
    def is_uncertain(self) -> bool:
        """Return whether chance alone could cause what would be a drift otherwise."""
        return self.psi >= MODERATE and self.by_chance >= MODERATE

    @property
    def verdict(self) -> str:
        """Return the drift in words; none is reported where chance alone could cause it."""
        if self.psi < MODERATE:
            return "small"
        if self.is_uncertain:
            return "too few rows to compare"
        return "moderate" if self.psi < LARGE else "large"


def compute_psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the population stability index: the sum over all bins of (a - e) x ln(a / e) of the shares a and e.

    It is Jeffreys' divergence (1946), known under this name from credit scoring (Siddiqi 2006). It has no unit, is 0
    for equal shares and has no upper limit. An empty bin counts as half a row, since the logarithm of 0 is undefined.

    Args:
        expected: Rows in each bin, before.
        actual: Rows in the same bins, now.

    Returns:
        0 where one of them has no rows.

    >>> round(compute_psi([50, 50], [60, 40]), 4)
    0.0405
    >>> compute_psi([10, 20], [100, 200])
    0.0
    """
    before, now = sum(expected), sum(actual)
    if not before or not now:
        return 0.0
    shares = [(max(e, 0.5) / before, max(a, 0.5) / now) for e, a in zip(expected, actual, strict=True)]
    return math.fsum((a - e) * math.log(a / e) for e, a in shares)


def can_drift(column: Column) -> bool:
    """Return whether a column can be compared; pseudonyms and times always change."""
    return column.kind not in ("hidden", "time")


def measure_drift(before: pl.DataFrame, now: pl.DataFrame, columns: Sequence[Column]) -> list[Drift]:
    """Measure the drift of comparable columns, the largest first.

    Empty is a bin of its own; values in fewer than five rows are one bin; of lists the elements are counted.
    """
    return sorted((_measure_column_drift(before, now, column) for column in columns), key=lambda item: -item.psi)


def _measure_column_drift(before: pl.DataFrame, now: pl.DataFrame, column: Column) -> Drift:
    both = pl.concat(
        [frame.select(column.name, pl.lit(part).alias("part")) for part, frame in enumerate((before, now))]
    )
    bins = both.select("part", bin_values(column, both).alias("bin"))
    if column.is_list:
        bins = bins.explode("bin")
    rows_before = (pl.col("part") == 0).sum().alias("before")
    counts = bins.group_by("bin").agg(rows_before, pl.len().alias("rows"))
    rare = (pl.col("rows") < _MIN_BIN_ROWS) & pl.col("bin").is_not_null()
    counts = counts.group_by(pl.when(rare).then(pl.lit("rare")).otherwise(pl.lit("")), pl.when(~rare).then("bin")).sum()
    expected, total = counts["before"].to_list(), counts["rows"].to_list()
    actual = [rows - before_rows for rows, before_rows in zip(total, expected, strict=True)]
    chance = (len(total) - 1) * (1 / max(before.height, 1) + 1 / max(now.height, 1))
    return Drift(column.name, compute_psi(expected, actual), chance)
