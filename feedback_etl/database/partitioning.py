"""A selection divided into ranges of time that others read, on this machine or another, under one snapshot.

Only PostgreSQL lends its snapshot to other connections; what cannot be divided is read in one piece.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from feedback_etl.columns import CONSENT
from feedback_etl.database.batches import beginning_of
from feedback_etl.database.connect import Source
from feedback_etl.database.hints import missing_index
from feedback_etl.database.inspection import fetch_count
from feedback_etl.database.ranges import Ranges, ranges_of, total_of
from feedback_etl.database.read import Opened, Selection, opened
from feedback_etl.database.sql import excluded_in, feedback_in
from feedback_etl.database.window import Window

T = TypeVar("T")

LEAST_ROWS_OF_A_TASK = 20_000
"""A window is divided among all who work, but no further: a worker needs 40 ms for a task by itself and the joins anew,
and 130 ms for so many rows (benchmarks/MANY_WORKERS.md)."""


class Indivisible(Exception):
    """This database is read in one piece."""


@dataclass(frozen=True)
class Division:
    """What a selection is divided into, while its snapshot is held.

    Attributes:
        url: The database as ConnectorX takes it, for tasks that stay in this process.
        ranges: In the order of time, half-open; each row is in one of them.
        query_of: The statement that reads a range.
        prepare: Statements that begin each connection: it then sees what this one sees.
        excluded: The number of rows left out for lack of consent.
        total: The number of all others, where it was asked for (estimated where the window is large); else 0.
        advice: How reading could be faster; "" where nothing is known.
        source: The kind of database.
        consent: The columns by which rows were left out.
    """

    url: str = field(repr=False)
    ranges: list[Window]
    query_of: Callable[[Window], str]
    prepare: list[str]
    excluded: int
    total: int
    advice: Callable[[], str]
    source: str
    consent: tuple[str, ...]


def is_divisible(source: Source) -> bool:
    """Whether several can read a database at once, under one snapshot."""
    return source.dialect == "postgresql" and source.connectorx_url is not None


def ranges_of_tasks(found: Opened, window: Window, at_once: int) -> Ranges:
    """The ranges of time that a window is divided into when so many tasks are sent ahead."""
    source, relation, types = found
    return ranges_of(source, relation, window, types, at_once=at_once, least_rows=LEAST_ROWS_OF_A_TASK)


def divide(selection: Selection, work: Callable[[Division], T], *, at_once: int = 1) -> T:
    """Do some work on the ranges of a selection, whose snapshot is held meanwhile.

    Args:
        selection: The rows.
        work: What is done.
        at_once: How many ranges are worked on at once; there are as many, unless they were too small for that.

    Raises:
        Indivisible: The database cannot be read by several at once.
        UsageError: What was asked for cannot be.
        SourceError: The database cannot be reached, is not as expected, or stopped a query.
    """
    window = selection.window
    selection.reading.checked()
    with opened(selection) as found:
        source, relation, types = found
        if not is_divisible(source) or source.connectorx_url is None:
            raise Indivisible
        prepare = beginning_of(source)
        ranges = ranges_of_tasks(found, window, at_once)
        excluded = total = 0
        if CONSENT in relation.columns:
            excluded = fetch_count(source, excluded_in(relation, window, types))
        if selection.progress:
            total = total_of(source, relation, window, types, ranges)
        return work(
            Division(
                source.connectorx_url,
                ranges.windows,
                lambda each: feedback_in(relation, each, types),
                prepare,
                excluded,
                total,
                lambda: missing_index(source, relation, window, types),
                source.dialect,
                relation.consent,
            )
        )
