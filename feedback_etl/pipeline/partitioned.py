"""Export in parts: the coordinator divides the window, workers write the parts, the coordinator publishes them.

The coordinator keeps one database snapshot open that all workers read, counts people over all parts before it releases
rows of equivalence classes that are large enough, and publishes the manifest last.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from feedback_etl import __version__
from feedback_etl.database.partitioning import FeedbackPartitions, NotPartitionableError, open_partitions
from feedback_etl.database.ranges import group_batches
from feedback_etl.database.read import FeedbackSource, ReadRequest, open_feedback, retry_with_sqlalchemy
from feedback_etl.database.watermark import Watermark
from feedback_etl.exports.series_conflicts import detect_abort
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.pipeline.backfill import create_seen_rows
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.commit import Publication, commit_export, plan_publication, suggest_improvement
from feedback_etl.pipeline.exchange_files import read_spooled_rows, write_earlier_seen_rows, write_small_classes
from feedback_etl.pipeline.recipient_parts import write_recipient_parts
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.series_parts import write_series_parts
from feedback_etl.pipeline.series_release import select_pending
from feedback_etl.pipeline.task_retries import MAX_TASKS_IN_FLIGHT, run_tasks
from feedback_etl.pipeline.tasks import PartTask, ReleaseTask, SeriesContext, TaskContext, TaskResult
from feedback_etl.pipeline.worker import Secrets, create_processor, release_part, run_task, run_task_with, write_part
from feedback_etl.privacy.keys import get_key_id
from feedback_etl.records.layout import parse_part_number
from feedback_etl.records.manifest import DataFile
from feedback_etl.results import ExportReport
from feedback_etl.storage.errors import explain_write_errors

logger = logging.getLogger(__name__)

Runner = Callable[[Iterable[Any]], Generator[TaskResult, None, None]]
"""Runs tasks and yields their results."""


def export_in_parts(request: ExportRequest) -> ExportReport:
    """Export all rows of the window in parts, by the request's executor or by threads of this process.

    Raises:
        UsageError: A worker does not have the key, the database or the version of the coordinator.
        SourceError: The database cannot be reached, or stopped a query, also when it was retried.
        ValidationError: Too many rows are rejected or suppressed; nothing was published.
        ExportFileError: Files cannot be written, or workers were lost; nothing was published.
        FolderLockedError: Another program uses the folder for too long; nothing was published.
    """
    selection, in_flight = request.selection, _count_in_flight(request)
    if request.output.backfill:
        return export_stream(selection, request)
    try:
        with open_partitions(selection, tasks=in_flight) as partitions:
            return export_partitions(request, partitions, in_flight)
    except NotPartitionableError:
        logger.info("reading in this process: only PostgreSQL is read in parallel")
    return export_stream(selection, request)


def export_partitions(request: ExportRequest, partitions: FeedbackPartitions, in_flight: int) -> ExportReport:
    """Export the partitions of a request by an executor or by threads, with this many tasks in flight."""
    executor, secrets = request.executor, Secrets(partitions.url, request.transform_options.key)
    with _begin(request, partitions.consent) as export, _open_workers(executor, in_flight) as workers:
        function = run_task if executor is not None else partial(run_task_with, secrets)
        run: Runner = partial(run_tasks, workers, function, at_once=in_flight)
        series = _begin_series(request, export, partitions.watermark)
        context = _create_context(request, export, series, tuple(partitions.prepare))
        tasks = (PartTask(context, n, partitions.query_of(span)) for n, span in enumerate(partitions.ranges))
        processor, written = _collect(request, run(tasks), partitions.total)
        report = _finish(request, _Execution(export, context, run), processor, written, partitions)
    report.advice = suggest_improvement(request, partitions)
    return report


@retry_with_sqlalchemy
def export_stream(selection: ReadRequest, request: ExportRequest) -> ExportReport:
    """Export rows that cannot be read in parallel, part by part in this process."""
    storage, options = request.storage, request.transform_options
    with open_feedback(selection) as stream:
        with _begin(request, stream.consent) as export:
            series = _begin_series(request, export, stream.watermark)
            context = _create_context(request, export, series, ())
            seen_rows = create_seen_rows(request, stream.watermark.until)
            processor = create_processor(context, options, seen_rows)
            results = (
                write_part(storage, options, PartTask(context, number, ""), frames, processor)
                for number, frames in enumerate(group_batches(stream.batches))
            )
            processor, written = _collect(request, results)
            execution = _Execution(export, context, _release_here(request))
            report = _finish(request, execution, processor, written, stream)
        report.advice = suggest_improvement(request, stream)
    return report


class _Written(NamedTuple):
    """The files of all parts: those that are complete, and those whose rows are spooled; their escaped texts."""

    files: list[DataFile]
    spooled: list[DataFile]
    escaped_texts: Counter[str]

    def add(self, result: TaskResult) -> None:
        """Add the files of a task."""
        self.files.extend(result.files)
        self.spooled.extend([result.spooled] if result.spooled else [])
        self.escaped_texts.update(result.escaped_texts)


def _collect(
    request: ExportRequest, results: Generator[TaskResult, None, None], total: int = 0
) -> tuple[BatchProcessor, _Written]:
    """Take the results of the tasks that read, with progress; closing them cancels what remains after an error."""
    processor, written = BatchProcessor(request.transform_options), _Written([], [], Counter())
    on_progress = request.selection.on_progress
    with closing(results):
        for result in results:
            written.add(result)
            if result.counts is not None:
                processor.merge_counts(result.counts)
            if on_progress:
                on_progress(processor.rows, max(processor.rows, total))
    return processor, written


class _Execution(NamedTuple):
    """The transaction of an export, what its tasks have in common, and what runs them."""

    export: ExportTransaction
    context: TaskContext
    run: Runner


def _finish(
    request: ExportRequest,
    execution: _Execution,
    processor: BatchProcessor,
    written: _Written,
    source: FeedbackSource,
) -> ExportReport:
    """Check the limits, release the rows of large enough equivalence classes, and publish the parts."""
    export, context, _ = execution
    spooled = read_spooled_rows(request.storage, written.spooled)
    with explain_write_errors(request.storage):
        publication = plan_publication(request, source, processor, select_pending(request), spooled)
        if publication.series is not None:
            results = write_series_parts(request, export.stem, written.spooled, publication.series)
        else:
            results = _release(request, execution, publication, written.spooled)
        with closing(results):
            for result in results:
                written.add(result)
    if context.series is not None and context.series.earlier is not None:
        written.files.append(context.series.earlier)
    report = processor.build_report(request.selection.window, publication.excluded, written.escaped_texts)
    commit_export(request, export, publication, report, written.files)
    return report


def _release(
    request: ExportRequest,
    execution: _Execution,
    publication: Publication,
    spooled: list[DataFile],
) -> Generator[TaskResult, None, None]:
    """Write the spooled rows without small classes, or with generalised values; `shared` ones here, others by tasks."""
    export, context, run = execution
    if publication.shared is not None:
        yield from write_recipient_parts(request, export.stem, spooled, publication.changes, publication.shared)
    elif request.transform_options.k_policy.k is not None:
        write_small_classes(request.storage, export.stem, publication.changes)
        with closing(run(ReleaseTask(context, parse_part_number(file.path), file) for file in spooled)) as results:
            yield from results


def _release_here(request: ExportRequest) -> Runner:
    def run(tasks: Iterable[Any]) -> Generator[TaskResult, None, None]:
        return (release_part(request.storage, request.transform_options, task) for task in tasks)

    return run


@contextmanager
def _begin(request: ExportRequest, consent: tuple[str, ...]) -> Iterator[ExportTransaction]:
    now, options = request.transform_options.now, request.transaction_options(consent)
    with ExportTransaction(request.storage, now, options) as export, detect_abort(request.storage, export.stem):
        yield export


def _begin_series(request: ExportRequest, export: ExportTransaction, watermark: Watermark) -> SeriesContext | None:
    if request.series is None:
        return None
    earlier = write_earlier_seen_rows(request.storage, export.stem, request.series.seen_rows)
    return SeriesContext(earlier, watermark.until, request.cursor, request.counts_series)


def _create_context(
    request: ExportRequest, export: ExportTransaction, series: SeriesContext | None, prepare: tuple[str, ...]
) -> TaskContext:
    options, selection = request.transform_options, request.selection
    return TaskContext(
        destination=request.storage.absolute_uri(),
        stem=export.stem,
        file_format=request.output.file_format,
        transform_options=replace(options, key=None),
        version=__version__,
        key_id=get_key_id(options.key),
        erasures=export.erasures,
        series=series,
        prepare=prepare,
        batch_size=selection.options.batch_size,
        connect_timeout=selection.options.connect_timeout,
        read_timeout=selection.options.read_timeout,
    )


def _open_workers(executor: Executor | None, threads: int) -> AbstractContextManager[Executor]:
    return ThreadPoolExecutor(threads, "feedback_etl part") if executor is None else nullcontext(executor)


def _count_in_flight(request: ExportRequest) -> int:
    default = MAX_TASKS_IN_FLIGHT if request.executor is not None else min(os.cpu_count() or 1, 4)
    return request.selection.options.workers or default
