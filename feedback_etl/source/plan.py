"""How a window is read: in one piece, or in time ranges of about equal row counts.

Ranges bound what the database has to sort at once, and can be read side by side. They are disjoint, half-open and in
the order of time; together they are the window.
"""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from feedback_etl.clock import naive_utc
from feedback_etl.source.connect import Source
from feedback_etl.source.preflight import fetch_rows
from feedback_etl.source.query import bins_of, estimate_of, extent_of
from feedback_etl.source.relation import Relation
from feedback_etl.source.window import Window

if TYPE_CHECKING:
    import polars as pl

ROWS_A_RANGE = 20_000_000
"""To sort them takes the database about 3 GB of disk; smaller ranges cost more, as each repeats the joins."""

ROWS_A_BULK_RANGE = 500_000
"""Smaller, since several are read at once."""

_BINS = 2_000
_BINS_A_RANGE = 4
"""So that ranges are of about equal size, however many there are."""
UNDATED = Window(None, datetime.min)
"""Only rows without a time: no time is earlier than its end."""


class Bin(NamedTuple):
    """Rows between two moments: the first time among them, and their number."""

    first: datetime
    rows: int


def ranges_of(
    source: Source, relation: Relation, window: Window, types: dict[str, str], *, bulk_workers: int = 0
) -> list[Window]:
    """The ranges in which to read a window: one, unless it is large or to be read in bulk.

    Others than PostgreSQL are read in one piece: they have no snapshot to share between connections.
    """
    if source.dialect != "postgresql":
        return [window]
    size = ROWS_A_BULK_RANGE if bulk_workers else ROWS_A_RANGE
    if not bulk_workers and _estimate(source, relation, window, types) <= 1.5 * size:
        return [window]
    first, last = fetch_rows(source, extent_of(relation, window, types))[0]
    if first is None or first == last:
        return [window]
    extent = naive_utc(first), naive_utc(last)
    fine = max(_BINS, _BINS_A_RANGE * _estimate(source, relation, window, types) // size)
    rows = fetch_rows(source, bins_of(relation, window, types, extent=extent, bins=fine))
    bins = [Bin(naive_utc(start), count) for start, count in rows]
    return split(window, bins, max(bulk_workers, math.ceil(sum(each.rows for each in bins) / size)))


def _estimate(source: Source, relation: Relation, window: Window, types: dict[str, str]) -> int:
    plan = fetch_rows(source, estimate_of(relation, window, types))[0][0]
    return int(plan[0]["Plan"]["Plan Rows"])


def split(window: Window, bins: list[Bin], ranges: int) -> list[Window]:
    """Cut a window into about so many ranges of about equal row counts, as fine as the bins allow.

    >>> bins = [Bin(datetime(2025, 1, day), 10) for day in (1, 2, 3, 4)]
    >>> for part in split(Window(datetime(2025, 1, 1), datetime(2025, 2, 1)), bins, 2):
    ...     print(part)
    2025-01-01 00:00:00 to 2025-01-03 00:00:00 UTC
    2025-01-03 00:00:00 to 2025-02-01 00:00:00 UTC
    """
    if not bins or ranges < 2:
        return [window]
    total = sum(each.rows for each in bins)
    edges = [window.start or bins[0].first]
    seen = 0
    for each in bins:
        if seen and seen * ranges >= total * len(edges):
            edges.append(each.first)
        seen += each.rows
    dated = [Window(start, end) for start, end in zip(edges, [*edges[1:], window.end], strict=True)]
    return dated if window.start else [*dated, UNDATED]


def in_ranges(frames: "Iterator[pl.DataFrame]", rows: int = ROWS_A_BULK_RANGE) -> "Iterator[Iterator[pl.DataFrame]]":
    """Frames in groups of about so many rows, each to be taken before the next: for what is read in one piece."""
    for first in frames:
        yield _group(first, frames, rows)


def _group(frame: "pl.DataFrame", following: "Iterator[pl.DataFrame]", rows: int) -> "Iterator[pl.DataFrame]":
    seen = frame.height
    yield frame
    while seen < rows and (each := next(following, None)) is not None:
        seen += each.height
        yield each
