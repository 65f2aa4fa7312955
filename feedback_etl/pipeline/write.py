"""Write an export in one file: process the batches of a stream inside a transaction, and publish the result."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from feedback_etl.data_files.seen_rows import SeenRows
from feedback_etl.database.read import FeedbackStream, ReadRequest, open_feedback, retry_with_sqlalchemy
from feedback_etl.database.watermark import Watermark
from feedback_etl.exports.incremental import INCREMENTAL, IncrementalState
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.sharing import RowPseudonyms
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.records.tombstones import Tombstones
from feedback_etl.results import ExportReport

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor
    from feedback_etl.pipeline.batch_results import ProcessedBatch
    from feedback_etl.pipeline.series_classes import SeriesClasses

SLOW_SECONDS = 10.0
"""An export that takes longer looks for an index that would make reading faster."""


@retry_with_sqlalchemy
def write_export(selection: ReadRequest, request: ExportRequest) -> ExportReport:
    """Read the selected rows and write them as an export.

    The order is: open the database, begin the transaction, process and write each batch, check the limits, release the
    rows of equivalence classes that are large enough, commit.
    """
    options, window, series = request.transform_options, selection.window, request.series
    classes = _load_classes(request)
    with open_feedback(selection) as stream:
        with _begin_transaction(request, stream) as files:
            seen_rows = None
            if series is not None:
                seen_rows = SeenRows(series.seen_rows, options.key, stream.watermark.until, request.cursor)
            processor = _create_processor(options, files.tombstones, seen_rows)
            write = _choose_writer(files, options.k_policy.k, classes)
            process_batches(processor, stream.batches, write=write, write_rejected=files.write_rejected)
            processor.check_limits(window, stream.excluded)
            shared = request.create_row_pseudonyms()
            if classes is not None:
                classes.release(files, processor)
            else:
                _release_spooled(files, processor, options, shared)
            report = processor.build_report(window, stream.excluded + (classes.excluded if classes else 0))
            report.escaped_texts = dict(sorted(files.escaped_texts.items()))
            details = ManifestDetails(
                "full", window, request.settings, source=stream.dialect, extra=options.extra_columns
            )._replace(rows_digest=shared.digest if shared else "")
            if series is not None and seen_rows is not None:
                files.write_state("rows", seen_rows.rows())
                details = _add_classes(add_increment(details, report, series, stream.watermark), classes)
            published = files.commit(details=details._replace(statistics=report.to_statistics(), risk=report.risk))
            report.audit_head = files.audit_head
        if series is not None and (any(published) or details.is_state_new):
            series.delete_state(request.storage)
        report.export_filename = published.pairs or ""
        report.rejected_filename = published.rejected or ""
        if time.perf_counter() - request.started > SLOW_SECONDS:
            report.advice = stream.suggest_index()
    return report


def add_increment(
    details: ManifestDetails, report: ExportReport, series: IncrementalState, watermark: Watermark
) -> ManifestDetails:
    """Return the details of an incremental export; its report counts the late-arriving rows."""
    assert details.window is not None  # noqa: S101  every export has one
    report.mode, report.late_records = INCREMENTAL, series.count_late(watermark.counts)
    start = series.known_since if series.number else details.window[0]
    increment = series.next(start, watermark.until, watermark.counts)
    return details._replace(mode=INCREMENTAL, chain=increment)


def _release_spooled(
    files: ExportTransaction, processor: "BatchProcessor", options: TransformOptions, shared: RowPseudonyms | None
) -> None:
    """Write the spooled rows, without equivalence classes that are too small, or with generalised values.

    `shared` prepares them for a recipient.
    """
    from feedback_etl.pipeline.release import release_pairs

    changes = processor.plan_release()
    files.release_spooled(lambda pairs: release_pairs(pairs, changes, options), shared.prepare if shared else None)


def _choose_writer(
    files: ExportTransaction, k: int | None, classes: "SeriesClasses | None"
) -> "Callable[[ProcessedBatch], None]":
    """Return what happens to the pairs of a batch: rows that may have to be suppressed are spooled."""
    if classes is not None:
        return lambda batch: classes.spool(files, batch)
    write = files.write if k is None else files.spool
    return lambda batch: write(batch.pairs)


def _add_classes(details: ManifestDetails, classes: "SeriesClasses | None") -> ManifestDetails:
    """Return the details of an export whose k is that of its series; its window begins with its oldest row."""
    if classes is None or details.window is None:
        return details
    start, end = details.window
    if start is not None and classes.oldest is not None:
        start = min(start, classes.oldest)
    return details._replace(window=(start, end), is_state_new=classes.is_changed)


def _begin_transaction(request: ExportRequest, stream: FeedbackStream) -> ExportTransaction:
    options, output = request.transform_options, request.output
    return ExportTransaction(
        request.storage,
        options.now,
        request.transaction_options(stream.consent),
        form=output.file_format,
        metadata=request.metadata,
    )


def _load_classes(request: ExportRequest) -> "SeriesClasses | None":
    if request.series is None or request.transform_options.k_policy.k is None:
        return None
    from feedback_etl.pipeline.series_classes import SeriesClasses  # imports pandera

    return SeriesClasses.load(request)


def _create_processor(
    options: TransformOptions, tombstones: Sequence[Tombstones], seen_rows: SeenRows | None
) -> "BatchProcessor":
    from feedback_etl.pipeline.batch_processor import (
        BatchProcessor,  # imports pandera, while the database executes the query
    )

    return BatchProcessor(options, tombstones, seen_rows)
