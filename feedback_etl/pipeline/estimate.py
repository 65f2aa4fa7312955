"""What a large export would take, from counts and one range that is made and thrown away."""

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
    """What an export in parts would take.

    Attributes:
        window: The half-open window, UTC.
        rows: Of feedback in it, with consent where that is recorded; estimated where nothing records consent and there
            are more than ten million.
        ranges: How many tasks, and parts, it would be: those of an export for which as many tasks are sent ahead.
        workers: How many work at once; each has a connection to the database. No more than there are ranges, and one
            where these are read one after the other.
        measured_rows: Rows of the one range that was read and processed here.
        measured_seconds: How long that took, by one worker of this machine.
        measured_bytes: How large its part would be.
        bytes: Of all parts, estimated.
        seconds: From the first task to the last, estimated: as long as database and storage keep up with all workers,
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
        rows, ranges, active, middle = _divided(found, window, options.read.workers or MAX_TASKS_IN_FLIGHT)
        measured, seconds, size = _measured(found, middle, rules, form)
    share = rows / measured if measured else 0.0
    waves = ceil(ranges / active) / ranges
    return Plan(window, rows, ranges, active, measured, seconds, size, round(size * share), seconds * share * waves)


def _divided(found: OpenSource, window: Window, workers: int) -> tuple[int, int, int, Window]:
    """The rows of a window, in how many ranges they are read, how many of these at once, and one from the middle."""
    source, relation = found
    if not is_partitionable(source):
        rows = fetch_count(source, count_rows(relation, window))
        return rows, count_batch_groups(rows, BATCH_ROWS), 1, window
    ranges = plan_task_ranges(found, window, workers)
    rows, count = count_total(source, relation, window, ranges), len(ranges.windows)
    return rows, count, min(workers, count), ranges.middle


def _measured(found: OpenSource, window: Window, rules: TransformOptions, form: FileFormat) -> tuple[int, float, int]:
    """The rows of a range, not more than a usual one has; the seconds they take; and the size of their part."""
    processor, part = (
        BatchProcessor(rules),
        RowWriter(cast("IO[bytes]", _Nowhere()), form, parquet_metadata(rules, form)),
    )
    started = time.perf_counter()
    with open_batches(found.source, found.relation, window, BatchOptions()) as frames:
        process_batches(processor, next(group_batches(frames)), write=part.append, write_rejected=lambda _: None)
        part.finish()
        return processor.rows, time.perf_counter() - started, part.written.bytes


class _Nowhere(io.RawIOBase):
    """A file that takes everything and keeps nothing."""

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """All of it."""
        return memoryview(data).nbytes
