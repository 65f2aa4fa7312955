"""How far the values of one export are from those of the export before it: the population stability index."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from feedback_etl.report.columns import Column, binned

MODERATE, LARGE = 0.1, 0.25
"""The usual thresholds: under 0.1 little has changed, from 0.25 on much has (Siddiqi 2006, Credit Risk Scorecards)."""

_LEAST_IN_A_BIN = 5


class Drift(NamedTuple):
    """How far a column has moved.

    Attributes:
        column: Its name.
        psi: The population stability index.
        by_chance: What it would be about if nothing had changed, since the exports are samples: (bins - 1) x
            (1 / rows of the one + 1 / rows of the other) (Yurdakul and Naranjo 2020, Statistical properties of the
            population stability index).
    """

    column: str
    psi: float
    by_chance: float

    @property
    def verdict(self) -> str:
        """In a word; where chance alone could make a drift, none is called one."""
        if self.psi < MODERATE:
            return "little"
        if self.by_chance >= MODERATE:
            return "too few rows to tell"
        return "moderate" if self.psi < LARGE else "large"


def psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """The population stability index: the sum over all bins of (a - e) x ln(a / e), a and e being shares of the rows.

    It is Jeffreys' divergence (1946), known under this name from credit scoring (Siddiqi 2006). It has no unit, is 0
    for equal shares and has no upper limit. An empty bin counts as half a row, since the logarithm of 0 is none.

    Args:
        expected: Rows in each bin, before.
        actual: Rows in the same bins, now.

    Returns:
        0 where one of them has no rows.

    >>> round(psi([50, 50], [60, 40]), 4)
    0.0405
    >>> psi([10, 20], [100, 200])
    0.0
    """
    before, now = sum(expected), sum(actual)
    if not before or not now:
        return 0.0
    shares = [(max(e, 0.5) / before, max(a, 0.5) / now) for e, a in zip(expected, actual, strict=True)]
    return math.fsum((a - e) * math.log(a / e) for e, a in shares)


def can_drift(column: Column) -> bool:
    """Whether a column can be compared; pseudonyms and times always move."""
    return column.kind not in ("hidden", "time")


def drift(before: pl.DataFrame, now: pl.DataFrame, columns: Sequence[Column]) -> list[Drift]:
    """How far each of some columns that can be compared has moved, the farthest first.

    Empty is a bin of its own; values of fewer than five rows are one bin; of lists the elements count.
    """
    return sorted((_drift(before, now, each) for each in columns), key=lambda each: -each.psi)


def _drift(before: pl.DataFrame, now: pl.DataFrame, column: Column) -> Drift:
    both = pl.concat(
        [frame.select(column.name, pl.lit(part).alias("part")) for part, frame in enumerate((before, now))]
    )
    bins = both.select("part", binned(column, both).alias("bin"))
    if column.kind == "list":
        bins = bins.explode("bin")
    one = (pl.col("part") == 0).sum().alias("before")
    counts = bins.group_by("bin").agg(one, pl.len().alias("rows"))
    rare = (pl.col("rows") < _LEAST_IN_A_BIN) & pl.col("bin").is_not_null()
    counts = counts.group_by(pl.when(rare).then(pl.lit("rare")).otherwise(pl.lit("")), pl.when(~rare).then("bin")).sum()
    expected, total = counts["before"].to_list(), counts["rows"].to_list()
    actual = [rows - one for rows, one in zip(total, expected, strict=True)]
    chance = (len(total) - 1) * (1 / max(before.height, 1) + 1 / max(now.height, 1))
    return Drift(column.name, psi(expected, actual), chance)
