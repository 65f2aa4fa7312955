"""Estimate the time and size of a large export, from counts and one range that is processed and discarded."""

import io
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil
from typing import IO, Any, Unpack, cast

from feedback_etl.clock import resolve_now
from feedback_etl.database.batches import BATCH_ROWS, BatchOptions, open_batches
from feedback_etl.database.connect import Database
from feedback_etl.database.partitioning import is_partitionable, plan_task_ranges
from feedback_etl.database.ranges import count_batch_groups, count_total, group_batches
from feedback_etl.database.read import OpenSource, open_source
from feedback_etl.database.reader_pool import prestart
from feedback_etl.database.sql import count_rows
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.errors import UsageError
from feedback_etl.exports.file_formats import FileFormat, RowWriter
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.keywords import ExportKeywords
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.scheduler import MAX_TASKS_IN_FLIGHT
from feedback_etl.pipeline.selection import select
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.pipeline.worker import parquet_metadata
from feedback_etl.privacy.keys import generate_key
from feedback_etl.transform.fork_guard import require_usable_polars


@dataclass(frozen=True)
class Plan:
    """Estimate of an export in parts.

    Attributes:
        window: The half-open window, UTC.
        rows: Rows of feedback in the window, with consent if it is recorded; estimated if it is not and there are more
            than ten million.
        ranges: Number of time ranges, and so of tasks and parts.
        workers: Number of parallel workers, each with a connection to the database; at most the number of ranges, and
            1 where the database is not read in parallel.
        measured_rows: Rows of the one range that was read and processed here.
        measured_seconds: Seconds that took, with one worker of this machine.
        measured_bytes: Size of its part in bytes.
        bytes: Estimated size of all parts in bytes.
        seconds: Estimated seconds from the first task to the last, if database and storage keep up with all workers,
            and these are as fast as this machine.
    """

    window: Window
    rows: int
    ranges: int
    workers: int
    measured_rows: int
    measured_seconds: float
    measured_bytes: int
    bytes: int
    seconds: float

    @property
    def rows_a_second(self) -> float:
        """Of one worker."""
        return self.measured_rows / self.measured_seconds if self.measured_seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All to_statistics as values that JSON can hold; the window's ends as ISO 8601 text in UTC."""
        return asdict(self) | {"window": [end.isoformat() if end else None for end in self.window]}


def plan(
    database: Database,
    *,
    options: ExportOptions | None = None,
    now: datetime | None = None,
    **keywords: Unpack[ExportKeywords],
) -> Plan:
    """Estimate what `export_feedback` with an executor and these options takes; nothing is written.

    Rows are counted, and one range from their middle is read and processed, under a throw-away key. Only PostgreSQL is
    read in parallel. Enforcing k writes every row twice, which the estimate does not include.

    Args:
        database: As for `export_feedback`.
        options: As for `export_feedback`; `workers` is 64 by default, the number of tasks in flight.
        now: As for `export_feedback`.
        keywords: As for `export_feedback`.

    Raises:
        UsageError: An argument is wrong.
        SourceError: The database cannot be reached or is not as expected.
        ValidationError: The rows could not be processed.

    >>> from feedback_etl.demo.sample import sample_database
    >>> with sample_database(rows=1000) as url:
    ...     planned = plan(url, days_back=-1, workers=32)
    >>> planned.rows, planned.ranges, planned.workers
    (1000, 1, 1)
    """
    require_usable_polars()
    prestart()
    options = (options or ExportOptions()).with_keywords(**keywords)
    now = resolve_now(now)
    if options.output.incremental:
        raise UsageError("An incremental export is never in parts: leave incremental out.")
    selection, rules = select(database, options, now), TransformOptions.of(options, now, generate_key())
    window, form = selection.window, options.output.file_format
    with open_source(selection) as found:
        rows, ranges, active, middle = _divide(found, window, options.read.workers or MAX_TASKS_IN_FLIGHT)
        measured, seconds, size = _measure(found, middle, rules, form)
    share = rows / measured if measured else 0.0
    waves = ceil(ranges / active) / ranges
    return Plan(window, rows, ranges, active, measured, seconds, size, round(size * share), seconds * share * waves)


def _divide(found: OpenSource, window: Window, workers: int) -> tuple[int, int, int, Window]:
    """Return the number of rows, of ranges and of parallel workers, and a range from the middle of the window."""
    source, relation = found
    if not is_partitionable(source):
        rows = fetch_count(source, count_rows(relation, window))
        return rows, count_batch_groups(rows, BATCH_ROWS), 1, window
    ranges = plan_task_ranges(found, window, workers)
    rows, count = count_total(source, relation, window, ranges), len(ranges.windows)
    return rows, count, min(workers, count), ranges.middle


def _measure(found: OpenSource, window: Window, rules: TransformOptions, form: FileFormat) -> tuple[int, float, int]:
    """Process a range, or its first group of batches; return its rows, seconds and bytes."""
    processor, part = (
        BatchProcessor(rules),
        RowWriter(cast("IO[bytes]", _Discarding()), form, parquet_metadata(rules, form)),
    )
    started = time.perf_counter()
    with open_batches(found.source, found.relation, window, BatchOptions()) as frames:
        process_batches(processor, next(group_batches(frames)), write=part.append, write_rejected=lambda _: None)
        part.finish()
        return processor.rows, time.perf_counter() - started, part.written.bytes


class _Discarding(io.RawIOBase):
    """A file that discards what is written to it."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Discard all data."""
        return memoryview(data).nbytes
