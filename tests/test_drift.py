"""How far an export is from the one before: the population stability index."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_etl.report.columns import Column
from feedback_etl.report.drift import Drift, can_drift, compute_psi, measure_drift

RATING = Column("helpful_rating", "How helpful.", "whole number", "number", ordered=True, bounds=(1, 5))
CONDITIONS = Column("conditions_detected", "Conditions.", "text", "list")
TIMEFRAME = Column("timeframe", "Time since.", "text", "label")
HASH = Column("analysis_hash", "Pseudonym.", "text", "hidden")
TIME = Column("feedback_timestamp", "When.", "time", "time", ordered=True)
counts = st.lists(st.integers(1, 10_000), min_size=1, max_size=8)


def ratings(**rows: int) -> pl.DataFrame:
    """So many rows of each rating, `r5=10` being ten of five."""
    return pl.DataFrame({"helpful_rating": [name[1:] for name, count in rows.items() for _ in range(count)]})


class TestIndex:
    """The figure."""

    def test_it_is_the_sum_over_the_bins(self) -> None:
        """Worked out by hand: 0.1 ln 1.5, twice 0; -0.1 ln 0.75."""
        expected = 0.1 * math.log(0.3 / 0.2) + -0.1 * math.log(0.3 / 0.4)
        assert compute_psi([200, 400, 400], [300, 300, 400]) == pytest.approx(expected)

    def test_an_empty_bin_counts_as_half_a_row(self) -> None:
        """So that it is finite."""
        before, now = [50, 50], [100, 0]
        assert compute_psi(before, now) == pytest.approx(0.5 * math.log(2) + (0.005 - 0.5) * math.log(0.005 / 0.5))

    @given(counts, st.data())
    def test_it_is_never_negative_and_the_same_both_ways(self, before: list[int], data: st.DataObject) -> None:
        """And 0 for equal shares, however many rows there are."""
        now = data.draw(st.lists(st.integers(1, 10_000), min_size=len(before), max_size=len(before)))
        assert compute_psi(before, now) >= -1e-12
        assert compute_psi(before, now) == pytest.approx(compute_psi(now, before))
        assert compute_psi(before, [7 * rows for rows in before]) == pytest.approx(0, abs=1e-12)

    def test_without_rows_there_is_none(self) -> None:
        """On either side."""
        assert compute_psi([], []) == compute_psi([1], [0]) == compute_psi([0], [1]) == 0


class TestColumns:
    """Between two frames."""

    def test_a_column_that_moved_comes_first(self) -> None:
        """With its verdict."""
        before = ratings(r1=500, r5=500).with_columns(timeframe=pl.lit("1_week"))
        now = ratings(r1=900, r5=100).with_columns(timeframe=pl.lit("1_week"))
        first, second = measure_drift(before, now, [TIMEFRAME, RATING])
        assert (first.column, first.verdict) == ("helpful_rating", "large")
        assert first.psi == pytest.approx(0.4 * math.log(1.8) - 0.4 * math.log(0.2))
        assert second == Drift("timeframe", 0.0, 0.0)

    def test_empty_is_a_bin_of_its_own(self) -> None:
        """Ratings that no longer occur are a drift."""
        before, now = (
            ratings(r5=1_000),
            ratings(r5=600).vstack(
                pl.DataFrame({"helpful_rating": [None] * 400}, schema={"helpful_rating": pl.String})
            ),
        )
        assert measure_drift(before, now, [RATING])[0].verdict == "large"

    def test_elements_of_lists_are_compared(self) -> None:
        """Not their combinations."""
        before = pl.DataFrame({"conditions_detected": ["acne,dry"] * 100})
        now = pl.DataFrame({"conditions_detected": ["dry", "acne"] * 50})
        assert measure_drift(before, now, [CONDITIONS])[0].psi == 0

    def test_rare_values_are_one_bin(self) -> None:
        """A thousand values of one row each are not a drift."""
        before, now = (pl.DataFrame({"timeframe": [f"{part}{number}" for number in range(1_000)]}) for part in "ab")
        assert measure_drift(before, now, [TIMEFRAME])[0].psi == 0

    def test_few_rows_are_distinguished_from_drift(self) -> None:
        """What chance alone makes is not called one."""
        found = measure_drift(ratings(r1=5, r2=5, r3=5, r4=5, r5=5), ratings(r1=2, r2=9, r3=3, r4=6, r5=5), [RATING])[0]
        assert found.by_chance == pytest.approx(4 * (1 / 25 + 1 / 25))
        assert found.verdict == "too few rows to compare"

    def test_pseudonyms_and_times_are_not_compared(self) -> None:
        """They always move."""
        columns = (RATING, CONDITIONS, TIMEFRAME, HASH, TIME)
        assert [column for column in columns if not can_drift(column)] == [HASH, TIME]
