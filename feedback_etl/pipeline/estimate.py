"""Estimate the time and size of a large export, from counts and one range that is processed and discarded."""

import io
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil
from typing import IO, Any, Unpack, cast

from feedback_etl.clock import resolve_now
from feedback_etl.data_files.file_formats import FileFormat, RowWriter
from feedback_etl.database.batches import open_batches
from feedback_etl.database.connect import Database
from feedback_etl.database.partitioning import is_partitionable, plan_task_ranges
from feedback_etl.database.ranges import count_batch_groups, count_total, group_batches
from feedback_etl.database.read import OpenSource, open_source
from feedback_etl.database.reader_pool import prestart
from feedback_etl.database.sql import count_rows
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.errors import UsageError
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.keywords import ExportKeywords
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.selection import select
from feedback_etl.pipeline.task_retries import MAX_TASKS_IN_FLIGHT
from feedback_etl.pipeline.transform_options import TransformOptions, build_parquet_metadata
from feedback_etl.privacy.keys import generate_key
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.items import without_items


@dataclass(frozen=True)
class Plan:
    """Estimate of an export in parts.

    Attributes:
        window: The half-open window, UTC.
        rows: Rows of feedback in the window, with consent if the database records it; estimated if it does not and
            there are more than ten million.
        ranges: Number of time ranges, and so of tasks and parts.
        workers: Number of parallel workers, each with a connection to the database; at most the number of ranges, and
            1 where the database is not read in parallel.
        measured_rows: Rows of the range that was read and processed for the estimate.
        measured_seconds: Seconds that reading and processing it took, with one worker on this machine.
        measured_bytes: Size of its part in bytes.
        bytes: Estimated size of all parts in bytes.
        seconds: Estimated seconds from the first task to the last, if database and storage keep up with all workers
            and each worker is as fast as this machine.
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
        """Rows that one worker processes per second, as measured."""
        return self.measured_rows / self.measured_seconds if self.measured_seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as values that JSON can hold; the window's ends are ISO 8601 text in UTC."""
        return asdict(self) | {"window": [end.isoformat() if end else None for end in self.window]}


def plan(
    database: Database,
    *,
    options: ExportOptions | None = None,
    now: datetime | None = None,
    **keywords: Unpack[ExportKeywords],
) -> Plan:
    """Estimate what `export_feedback` with an executor and these options takes; nothing is written.

    Rows are counted, and one range from the middle of the window is read and processed with a temporary key. Only
    PostgreSQL is read in parallel. Enforcing k writes every row twice, which the estimate does not include.

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
        raise UsageError("plan estimates the window it is given, not that of a series: leave `incremental` out.")
    selection = select(database, options, now)
    window, file_format = selection.window, options.output.file_format
    transform_options = TransformOptions.from_options(options, now, generate_key())
    with open_source(selection) as source:
        rows, ranges, workers, middle = _divide(source, window, options.read.workers or MAX_TASKS_IN_FLIGHT)
        measured_rows, seconds, size = _measure(source, middle, transform_options, file_format)
    scale = rows / measured_rows if measured_rows else 0.0
    return Plan(
        window,
        rows,
        ranges,
        workers,
        measured_rows,
        seconds,
        size,
        bytes=round(size * scale),
        seconds=seconds * scale * ceil(ranges / workers) / ranges,
    )


def _divide(source: OpenSource, window: Window, workers: int) -> tuple[int, int, int, Window]:
    """Return the number of rows, of ranges and of parallel workers, and a range from the middle of the window."""
    connection, relation = source
    if not is_partitionable(connection):
        rows = fetch_count(connection, count_rows(relation, window))
        return rows, count_batch_groups(rows, ReadOptions.batch_size), 1, window
    ranges = plan_task_ranges(source, window, workers)
    rows, count = count_total(connection, relation, window, ranges), len(ranges.windows)
    return rows, count, min(workers, count), ranges.middle


def _measure(
    source: OpenSource, window: Window, options: TransformOptions, file_format: FileFormat
) -> tuple[int, float, int]:
    """Process a range, or its first group of batches; return its rows, seconds and bytes."""
    processor = BatchProcessor(options)
    part = RowWriter(cast("IO[bytes]", _DiscardedFile()), file_format, build_parquet_metadata(options, file_format))
    started = time.perf_counter()
    with open_batches(source.source, source.relation, window, ReadOptions()) as frames:
        process_batches(
            processor,
            next(group_batches(frames)),
            write=lambda batch: part.append(without_items(batch.pairs)),
            write_rejected=lambda _: None,
        )
        part.finish()
        return processor.rows, time.perf_counter() - started, part.written.bytes


class _DiscardedFile(io.RawIOBase):
    """A file that discards what is written to it."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Discard all data."""
        return memoryview(data).nbytes
