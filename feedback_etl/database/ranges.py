"""Plan the ranges in which a window is read: the whole window, or time ranges of about equal row counts.

Ranges bound what the database has to sort at once, and can be read in parallel. They are disjoint, half-open and in
the order of time; together they cover the window.
"""

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from feedback_etl.clock import to_naive_utc
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.relation import SourceRelation, sample_table
from feedback_etl.database.sql import count_rows, explain_rows, select_histogram, select_time_range
from feedback_etl.database.statements import fetch_count, fetch_rows
from feedback_etl.database.window import DatedWindow, UndatedWindow, Window

if TYPE_CHECKING:
    import polars as pl

MAX_RANGE_ROWS = 20_000_000
"""Rows per range: sorting them takes the database about 3 GB of disk; smaller ranges repeat the joins more often."""

PARALLEL_RANGE_ROWS = 500_000
"""Rows per range that is read in parallel with others; smaller, since several are sorted at once."""

SAMPLE_ROWS = 1_000_000
"""Rows to sample for the histogram of a window that has more than ten times as many."""

SAMPLE_ROWS_PER_RANGE = 500
"""About eight pages: a sample consists of pages, on which neighbouring rows have similar times."""

MAX_SAMPLE_SHARE = 0.1
"""The share of a table above which a sample costs as much as counting all rows."""

_MIN_BINS = 2_000
_BINS_PER_RANGE = 4
"""Bins per range; more make the sizes of ranges more equal."""


class HistogramBin(NamedTuple):
    """Count the rows between two times.

    Attributes:
        first: The first time among the rows; None for rows without a readable time.
        rows: Their number.
    """

    first: datetime | None
    rows: int


class Histogram(NamedTuple):
    """Count the rows of a window by time.

    Attributes:
        bins: In the order of time; empty if all rows with a time have the same one.
        is_sample: Whether the counts are extrapolated from a sample.
    """

    bins: list[HistogramBin]
    is_sample: bool = False

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(bin_.rows for bin_ in self.bins)


class WindowRanges(NamedTuple):
    """Hold the ranges in which a window is read.

    Attributes:
        windows: In the order of time; each row is in exactly one.
        rows: Their row counts, extrapolated from a sample for a large window; None if rows were not counted.
    """

    windows: list[Window]
    rows: list[int] | None = None

    @property
    def middle(self) -> Window:
        """The range that contains the median of the rows that have a time."""
        ranges = zip(self.windows, self.rows or [1], strict=True)
        dated = [(window, rows) for window, rows in ranges if not isinstance(window, UndatedWindow)]
        cumulative = list(accumulate(rows for _, rows in dated))
        return next(window for (window, _), rows in zip(dated, cumulative, strict=True) if 2 * rows >= cumulative[-1])


def plan_ranges(
    source: DatabaseConnection,
    relation: SourceRelation,
    window: Window,
    *,
    parallel: int | None = None,
    min_rows: int = 1,
) -> WindowRanges:
    """Return the ranges in which to read a window: a single one, unless it is large or read in parallel.

    Only PostgreSQL shares a snapshot between connections; on other databases there is a single range. `parallel` is how
    many ranges are read in parallel, and also their minimum number unless they had fewer than `min_rows` rows.
    """
    if source.dialect != "postgresql":
        return WindowRanges([window])
    range_rows = MAX_RANGE_ROWS if parallel is None else PARALLEL_RANGE_ROWS
    estimate = estimate_rows(source, relation, window)
    if parallel is None and estimate <= 1.5 * range_rows:
        return WindowRanges([window])
    histogram = sample_histogram(source, relation, window, estimate=estimate, range_rows=range_rows)
    if not histogram.bins:
        return WindowRanges([window])
    ranges = max(math.ceil(histogram.rows / range_rows), min(parallel or 0, histogram.rows // min_rows))
    return split_histogram(window, histogram, ranges)


def estimate_rows(source: DatabaseConnection, relation: SourceRelation, window: Window) -> int:
    """Return how many rows PostgreSQL's planner expects in a window."""
    plan = fetch_rows(source, explain_rows(relation, window))[0][0]
    return int(plan[0]["Plan"]["Plan Rows"])


def sample_histogram(
    source: DatabaseConnection, relation: SourceRelation, window: Window, *, estimate: int, range_rows: int
) -> Histogram:
    """Return the rows of a window by time, from a sample if the window is large (PostgreSQL).

    Half-open ranges contain each row exactly once wherever their edges are, so a sample affects their sizes only. The
    planner expects `estimate` rows; `range_rows` are intended per range.
    """
    first, last = fetch_rows(source, select_time_range(relation, window))[0]
    if first is None or first == last:
        return Histogram([])
    share = _choose_sample_share(source, relation, estimate, range_rows)
    sampled = relation if share == 1 else sample_table(relation, share)
    extent, bins = (to_naive_utc(first), to_naive_utc(last)), max(_MIN_BINS, _BINS_PER_RANGE * estimate // range_rows)
    rows = fetch_rows(source, select_histogram(sampled, window, extent=extent, bins=bins))
    return Histogram(
        [HistogramBin(start and to_naive_utc(start), round(count / share)) for start, count in rows],
        is_sample=share < 1,
    )


def _choose_sample_share(source: DatabaseConnection, relation: SourceRelation, estimate: int, range_rows: int) -> float:
    """Return the share of a table's pages to sample; 1 if all rows are to be counted.

    A sample is always of the whole table; the rows of a small window are counted faster by the index.
    """
    share = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_RANGE * estimate // range_rows) / max(estimate, 1)
    if share > MAX_SAMPLE_SHARE or not _is_table(source, relation):
        return 1
    table_rows = estimate_rows(source, relation, Window(None, datetime.max))
    return share if share * table_rows < estimate / 4 else 1


def _is_table(source: DatabaseConnection, relation: SourceRelation) -> bool:
    """Return whether the rows are in a table: views, joins and queries have no pages to sample."""
    table = relation.table
    return table is not None and table.name in sa.inspect(source.connection).get_table_names(table.schema)


def split_histogram(window: Window, histogram: Histogram, ranges: int) -> WindowRanges:
    """Split a window into about `ranges` ranges of about equal row counts, as far as the bins allow.

    The last range is an `UndatedWindow` unless it is known to be empty: a sample may lack a row without a readable
    time.

    >>> histogram = Histogram([HistogramBin(datetime(2025, 1, day), 10) for day in (1, 2, 3, 4)])
    >>> for part in split_histogram(Window(datetime(2025, 1, 1), datetime(2025, 2, 1)), histogram, 2).windows:
    ...     print(part)
    2025-01-01 00:00:00 to 2025-01-03 00:00:00 UTC
    2025-01-03 00:00:00 to 2025-02-01 00:00:00 UTC
    """
    dated = [(bin_.first, bin_.rows) for bin_ in histogram.bins if bin_.first is not None]
    if not dated or ranges < 2:
        return WindowRanges([window], [histogram.rows])
    dated_rows = sum(rows for _, rows in dated)
    edges, sizes, seen = [window.start or datetime.min], [0], 0
    for first, rows in dated:
        if seen and seen * ranges >= dated_rows * len(edges):
            edges.append(first)
            sizes.append(0)
        sizes[-1] += rows
        seen += rows
    windows: list[Window] = [
        DatedWindow(start, end) for start, end in zip(edges, [*edges[1:], window.end], strict=True)
    ]
    undated_rows = histogram.rows - dated_rows
    if window.start and not undated_rows and not histogram.is_sample:
        return WindowRanges(windows, sizes)
    return WindowRanges([*windows, UndatedWindow(*window)], [*sizes, undated_rows])


def count_total(source: DatabaseConnection, relation: SourceRelation, window: Window, ranges: WindowRanges) -> int:
    """Return how many rows of a window are read: the sum of its ranges, or counted where that is unknown or wrong."""
    if ranges.rows is None or relation.records_consent:
        return fetch_count(source, count_rows(relation, window))
    return sum(ranges.rows)


def count_batch_groups(rows: int, batch_size: int, group_rows: int = PARALLEL_RANGE_ROWS) -> int:
    """Return how many groups `group_batches` makes of `rows` rows; at least one.

    >>> count_batch_groups(1_200_000, batch_size=65_536)  # 8 batches per group, which are 524,288 rows
    3
    """
    return max(1, math.ceil(rows / (math.ceil(group_rows / batch_size) * batch_size)))


def group_batches(
    batches: "Iterator[pl.DataFrame]", rows: int = PARALLEL_RANGE_ROWS
) -> "Iterator[Iterator[pl.DataFrame]]":
    """Group batches by about `rows` rows, for a source that is not partitioned; consume each group before the next."""
    for first in batches:
        yield _take_group(first, batches, rows)


def _take_group(first: "pl.DataFrame", batches: "Iterator[pl.DataFrame]", rows: int) -> "Iterator[pl.DataFrame]":
    seen = first.height
    yield first
    while seen < rows and (batch := next(batches, None)) is not None:
        seen += batch.height
        yield batch
