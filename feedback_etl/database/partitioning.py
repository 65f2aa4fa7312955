"""Partition the rows of a request into time ranges that workers read in parallel, under one snapshot.

Only PostgreSQL shares a snapshot between connections; other databases are not partitioned.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from feedback_etl.database.batches import list_session_statements
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.ranges import WindowRanges, count_total, plan_ranges
from feedback_etl.database.read import FeedbackSource, OpenSource, ReadRequest, count_new_excluded, open_source
from feedback_etl.database.sql import select_feedback
from feedback_etl.database.watermark import compute_watermark
from feedback_etl.database.window import Window

MIN_ROWS_PER_TASK = 20_000
"""Rows below which a window is not partitioned further, however many workers there are: a task costs a worker 40 ms
plus the joins, and 130 ms to read these rows (benchmarks/MANY_WORKERS.md)."""


class NotPartitionableError(Exception):
    """Workers cannot read this database in parallel under one snapshot."""


@dataclass(frozen=True)
class FeedbackPartitions(FeedbackSource):
    """Provide the partitions of a request while its snapshot is held.

    Attributes:
        url: The database as ConnectorX takes it, for tasks that stay in this process.
        ranges: Half-open, in the order of time; each row is in exactly one.
        query_of: Return the statement that reads a range.
        prepare: Statements that begin each connection, so that it uses the shared snapshot.
        total: The number of rows that are not excluded if `on_progress` is set (estimated for a large window); else 0.
    """

    url: str = field(repr=False)
    ranges: list[Window]
    query_of: Callable[[Window], str]
    prepare: list[str]
    total: int


def is_partitionable(source: DatabaseConnection) -> bool:
    """Return whether several connections can read a database under one snapshot."""
    return source.dialect == "postgresql" and source.connectorx_url is not None


def plan_task_ranges(opened: OpenSource, window: Window, tasks: int) -> WindowRanges:
    """Return the time ranges of a window for this number of tasks in flight."""
    source, relation = opened
    return plan_ranges(source, relation, window, parallel=tasks, min_rows=MIN_ROWS_PER_TASK)


@contextmanager
def open_partitions(request: ReadRequest, *, tasks: int = 1) -> Iterator[FeedbackPartitions]:
    """Partition the rows of a request, and hold its snapshot until the end of the context.

    Args:
        request: The rows.
        tasks: The number of tasks in flight and of ranges; there are fewer ranges if these had too few rows.

    Raises:
        NotPartitionableError: Several connections cannot read the database under one snapshot.
        UsageError: The request is not valid.
        SourceError: The database cannot be reached, is not as expected, or stopped a query.
    """
    window = request.window
    with open_source(request) as opened:
        source, relation = opened
        if not is_partitionable(source) or source.connectorx_url is None:
            raise NotPartitionableError
        request.report_phase("counting rows")
        watermark = compute_watermark(source, relation, window, request.watermark)
        prepare = list_session_statements(source)
        ranges = plan_task_ranges(opened, window, tasks)
        excluded = count_new_excluded(source, relation, request)
        total = count_total(source, relation, window, ranges) if request.on_progress else 0
        request.report_phase("reading rows")
        yield FeedbackPartitions(
            opened,
            window,
            excluded,
            watermark,
            source.connectorx_url,
            ranges.windows,
            partial(select_feedback, relation),
            prepare,
            total,
        )
