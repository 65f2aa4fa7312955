"""Write an export in one file: process the batches of a stream inside a transaction, and publish the result."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from feedback_etl.data_files.seen_rows import SeenRows
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.read import FeedbackStream, ReadRequest, open_feedback, retry_with_sqlalchemy
from feedback_etl.database.watermark import Watermark
from feedback_etl.exports.incremental import INCREMENTAL
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.pipeline.backfill import BACKFILL, create_seen_rows
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.series_rows import add_people
from feedback_etl.privacy.sharing import RowPseudonyms
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.records.tombstones import Tombstones
from feedback_etl.results import ExportReport

if TYPE_CHECKING:
    from feedback_etl.database.partitioning import FeedbackPartitions
    from feedback_etl.pipeline.batch_processor import BatchProcessor
    from feedback_etl.pipeline.batch_results import ProcessedBatch
    from feedback_etl.pipeline.series_release import SeriesRelease

SLOW_SECONDS = 10.0
"""An export that takes longer looks for an index that would make reading faster."""


@retry_with_sqlalchemy
def write_export(selection: ReadRequest, request: ExportRequest) -> ExportReport:
    """Read the selected rows and write them as an export.

    The order is: open the database, begin the transaction, process and write each batch, check the limits, release the
    rows of equivalence classes that are large enough, commit.
    """
    options, window, series = request.transform_options, selection.window, request.series
    release = _begin_release(request)
    with open_feedback(selection) as stream:
        with _begin_transaction(request, stream) as files:
            seen_rows = create_seen_rows(request, stream.watermark.until)
            processor = _create_processor(options, files.tombstones, seen_rows)
            write = _choose_writer(files, options, release)
            process_batches(processor, stream.batches, write=write, write_rejected=files.write_rejected)
            selection.report_phase("publishing")
            processor.check_limits(window, stream.excluded)
            shared = request.create_row_pseudonyms()
            if release is not None:
                _release_series(files, processor, release)
            else:
                _release_spooled(files, processor, options, shared)
            report = processor.build_report(window, stream.excluded + (release.excluded if release else 0))
            report.escaped_texts = dict(sorted(files.escaped_texts.items()))
            details = ManifestDetails(
                "full",
                window,
                request.settings,
                source=stream.dialect,
                schema=options.schema,
                rows_digest=shared.digest if shared else "",
            )
            if series is not None and seen_rows is not None:
                files.write_state("rows", seen_rows.rows())
                details = add_increment(details, report, request, stream.watermark)
                details = release.describe(details) if release else details
            published = files.commit(details=details._replace(statistics=report.to_statistics(), risk=report.risk))
            report.audit_head = files.audit_head
        if series is not None and (any(published) or details.is_state_new):
            series.delete_state(request.storage)
        report.export_filename = published.pairs or ""
        report.rejected_filename = published.rejected or ""
        report.advice = suggest(request, stream)
    return report


def suggest(request: ExportRequest, source: "FeedbackStream | FeedbackPartitions") -> str:
    """Return a sentence on the index that a slow export lacks, or on the cursor of a series that begins, or ""."""
    series, is_slow = request.series, time.perf_counter() - request.started > SLOW_SECONDS
    advice = source.suggest_index() if is_slow else ""
    follows_changes = request.output.cursor != CREATED_AT
    if advice or follows_changes or series is None or series.number:  # later runs do not repeat it
        return advice
    return source.suggest_cursor()


def add_increment(
    details: ManifestDetails, report: ExportReport, request: ExportRequest, watermark: Watermark
) -> ManifestDetails:
    """Return the details of an incremental export; its report counts the late-arriving rows."""
    series = request.series
    assert series is not None  # noqa: S101  the export is incremental
    assert details.window is not None  # noqa: S101  every export has one
    report.mode, report.late_records = INCREMENTAL, series.count_late(watermark.counts)
    if request.output.backfill:
        report.mode, report.late_records = BACKFILL, 0
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


def _release_series(files: ExportTransaction, processor: "BatchProcessor", release: "SeriesRelease") -> None:
    """Write the rows of a series that leave, and those that are pending from now on."""
    release.plan(processor)

    def write(leaving: pl.DataFrame, waiting: pl.DataFrame) -> pl.DataFrame:
        files.write_state("pending", waiting)
        return leaving

    files.write(write(*release.release_pending()))
    files.release_spooled(lambda rows: write(*release.release(rows)))
    files.write_state("members", release.members.rows)


def _choose_writer(
    files: ExportTransaction, options: TransformOptions, release: "SeriesRelease | None"
) -> "Callable[[ProcessedBatch], None]":
    """Return what happens to the pairs of a batch: rows that may have to be suppressed, or to wait, are spooled."""
    if release is not None:
        return lambda batch: files.spool(release.spool(add_people(batch.pairs, batch.user_ids, options.key)))
    write = files.write if options.k_policy.k is None else files.spool
    return lambda batch: write(batch.pairs)


def _begin_transaction(request: ExportRequest, stream: FeedbackStream) -> ExportTransaction:
    options, output = request.transform_options, request.output
    return ExportTransaction(
        request.storage,
        options.now,
        request.transaction_options(stream.consent),
        form=output.file_format,
        metadata=request.metadata,
    )


def _begin_release(request: ExportRequest) -> "SeriesRelease | None":
    """Begin the release of a series with k; None for other exports."""
    if not request.counts_series:
        return None
    from feedback_etl.pipeline.series_release import SeriesRelease  # imports pandera

    return SeriesRelease.begin(request)


def _create_processor(
    options: TransformOptions, tombstones: Sequence[Tombstones], seen_rows: SeenRows | None
) -> "BatchProcessor":
    from feedback_etl.pipeline.batch_processor import (
        BatchProcessor,  # imports pandera, while the database executes the query
    )

    return BatchProcessor(options, tombstones, seen_rows)
