"""How a window is read: in one piece, or in time ranges of about equal row counts.

Ranges bound what the database has to sort at once, and can be read side by side. They are disjoint, half-open and in
the order of time; together they are the window.
"""

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from feedback_etl.clock import to_naive_utc
from feedback_etl.columns import CONSENT
from feedback_etl.database import tables
from feedback_etl.database.connect import Source
from feedback_etl.database.inspection import fetch_count, fetch_rows
from feedback_etl.database.relation import Relation, sampled
from feedback_etl.database.sql import bins_of, count_in, estimate_of, extent_of
from feedback_etl.database.window import Dated, Undated, Window

if TYPE_CHECKING:
    import polars as pl

ROWS_A_RANGE = 20_000_000
"""To sort them takes the database about 3 GB of disk; smaller ranges cost more, as each repeats the joins."""

ROWS_A_BULK_RANGE = 500_000
"""Smaller, since several are read at once."""

ROWS_LOOKED_AT = 1_000_000
"""So many are looked at to find the ranges of a window that has more than ten times as many."""

ROWS_LOOKED_AT_A_RANGE = 500
"""About eight pages: a sample is of pages, on which rows of one time are neighbours."""

_BINS = 2_000
_BINS_A_RANGE = 4
"""So that ranges are of about equal size, however many there are."""


class Bin(NamedTuple):
    """Rows between two moments: the first time among them, None where that cannot be read, and their number."""

    first: datetime | None
    rows: int


class Ranges(NamedTuple):
    """The ranges in which a window is read.

    Attributes:
        windows: In the order of time; each row is in one of them.
        rows: How many rows each has, as far as the sizes matter: those of a large window are known from a sample. None
            where nothing was counted.
    """

    windows: list[Window]
    rows: list[int] | None = None

    @property
    def middle(self) -> Window:
        """The range that holds the middle one of the rows that have a time."""
        dated = [each for each in zip(self.windows, self.rows or [1], strict=True) if not isinstance(each[0], Undated)]
        passed = list(accumulate(rows for _, rows in dated))
        return next(window for (window, _), seen in zip(dated, passed, strict=True) if 2 * seen >= passed[-1])


def ranges_of(
    source: Source,
    relation: Relation,
    window: Window,
    types: dict[str, str],
    *,
    at_once: int = 0,
    least_rows: int = 1,
) -> Ranges:
    """The ranges in which to read a window: one, unless it is large or to be read in bulk.

    Others than PostgreSQL are read in one piece: they have no snapshot to share between connections.

    Args:
        at_once: How many are read side by side: there are as many at least, and they are smaller; 0 for one by one.
        least_rows: There are no more ranges for that reason than would have so many rows each.
    """
    if source.dialect != "postgresql":
        return Ranges([window])
    size, expected = ROWS_A_BULK_RANGE if at_once else ROWS_A_RANGE, _estimate(source, relation, window, types)
    if not at_once and expected <= 1.5 * size:
        return Ranges([window])
    first, last = fetch_rows(source, extent_of(relation, window, types))[0]
    if first is None or first == last:
        return Ranges([window])
    share = _share_to_look_at(source, relation, types, expected, size)
    looked_at = relation if share == 1 else sampled(relation, share)
    extent, fine = (to_naive_utc(first), to_naive_utc(last)), max(_BINS, _BINS_A_RANGE * expected // size)
    found = fetch_rows(source, bins_of(looked_at, window, types, extent=extent, bins=fine))
    bins = [Bin(start and to_naive_utc(start), round(count / share)) for start, count in found]
    rows = sum(each.rows for each in bins)
    number = max(math.ceil(rows / size), min(at_once, rows // least_rows))
    return split(window, bins, number, is_sample=share < 1)


def _estimate(source: Source, relation: Relation, window: Window, types: dict[str, str]) -> int:
    plan = fetch_rows(source, estimate_of(relation, window, types))[0][0]
    return int(plan[0]["Plan"]["Plan Rows"])


def _share_to_look_at(source: Source, relation: Relation, types: dict[str, str], expected: int, size: int) -> float:
    """The share of a table that is enough to find ranges of about equal size; 1 where all rows are to be counted.

    Any half-open ranges hold each row once, so that a sample costs nothing but the evenness of their sizes. It is of
    the whole table, whatever the window: a small window is counted faster by the index.
    """
    share = max(ROWS_LOOKED_AT, ROWS_LOOKED_AT_A_RANGE * expected // size) / max(expected, 1)
    if share > 0.1 or not _is_table(source, relation):
        return 1
    everything = _estimate(source, relation, Window(None, datetime.max), types)
    return share if share * everything < expected / 4 else 1


def _is_table(source: Source, relation: Relation) -> bool:
    """Whether the rows stand in a table of the default schema: views and queries have no pages to take a sample of."""
    if relation.own_query is not None:
        return False
    schema = getattr(getattr(relation.counted, "element", None), "schema", None)
    return tables.recommendation_feedbacks.name in sa.inspect(source.connection).get_table_names(schema)


def split(window: Window, bins: list[Bin], ranges: int, *, is_sample: bool = False) -> Ranges:
    """Cut a window into about so many ranges of about equal row counts, as fine as the bins allow.

    The last range is `Undated`, unless it is known to be empty. A sample may lack a row whose time cannot be read.

    >>> bins = [Bin(datetime(2025, 1, day), 10) for day in (1, 2, 3, 4)]
    >>> for part in split(Window(datetime(2025, 1, 1), datetime(2025, 2, 1)), bins, 2).windows:
    ...     print(part)
    2025-01-01 00:00:00 to 2025-01-03 00:00:00 UTC
    2025-01-03 00:00:00 to 2025-02-01 00:00:00 UTC
    """
    dated = [(each.first, each.rows) for each in bins if each.first is not None]
    everything, total = sum(each.rows for each in bins), sum(rows for _, rows in dated)
    if not dated or ranges < 2:
        return Ranges([window], [everything])
    edges, sizes, seen = [window.start or datetime.min], [0], 0
    for first, rows in dated:
        if seen and seen * ranges >= total * len(edges):
            edges.append(first)
            sizes.append(0)
        sizes[-1] += rows
        seen += rows
    windows: list[Window] = [Dated(start, end) for start, end in zip(edges, [*edges[1:], window.end], strict=True)]
    if window.start and everything == total and not is_sample:
        return Ranges(windows, sizes)
    return Ranges([*windows, Undated(*window)], [*sizes, everything - total])


def total_of(source: Source, relation: Relation, window: Window, types: dict[str, str], ranges: Ranges) -> int:
    """How many rows a window has, as its ranges know; counted where they know nothing, or not who consents."""
    if ranges.rows is None or CONSENT in relation.columns:
        return fetch_count(source, count_in(relation, window, types))
    return sum(ranges.rows)


def ranges_in_one_piece(rows: int, batch_size: int, size: int = ROWS_A_BULK_RANGE) -> int:
    """How many groups `in_ranges` makes of so many rows that come in such batches; one where there are none.

    >>> ranges_in_one_piece(1_200_000, batch_size=65_536)  # of 8 batches, which are 524,288 rows
    3
    """
    return max(1, math.ceil(rows / (math.ceil(size / batch_size) * batch_size)))


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
