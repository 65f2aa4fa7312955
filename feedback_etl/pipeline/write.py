"""Write an export in one file: process the batches of a stream inside a transaction, and publish the result."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from feedback_etl.data_files.seen_rows import SeenRows
from feedback_etl.database.read import FeedbackStream, ReadRequest, open_feedback, retry_with_sqlalchemy
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.pipeline.backfill import create_seen_rows
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.commit import Publication, commit_export, plan_publication, suggest_improvement
from feedback_etl.pipeline.release import release_pairs
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.series_release import SeriesRelease, select_pending
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.series_rows import add_people
from feedback_etl.records.tombstones import Tombstones
from feedback_etl.results import ExportReport
from feedback_etl.storage.errors import explain_write_errors

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor
    from feedback_etl.pipeline.batch_results import ProcessedBatch


@retry_with_sqlalchemy
def write_export(selection: ReadRequest, request: ExportRequest) -> ExportReport:
    """Read the selected rows and write them as an export.

    The order is: open the database, begin the transaction, process and write each batch, check the limits, release the
    rows of equivalence classes that are large enough, commit.
    """
    options, pending = request.transform_options, select_pending(request)
    with open_feedback(selection) as stream:
        with _begin_transaction(request, stream) as export:
            seen_rows = create_seen_rows(request, stream.watermark.until)
            processor = _create_processor(options, export.tombstones, seen_rows)
            write = _choose_writer(export, options, counts_people=pending is not None)
            process_batches(processor, stream.batches, write=write, write_rejected=export.write_rejected)
            with explain_write_errors(request.storage):
                publication = plan_publication(request, stream, processor, pending, export.spooled_frames(keep=True))
                if publication.series is not None:
                    _release_series(export, publication.series)
                elif options.k_policy.k is not None:
                    _release_spooled(export, options, publication)
            if seen_rows is not None:
                export.write(seen_rows.rows(), "rows")
            report = processor.build_report(
                selection.window, publication.excluded, export.writer("pairs").escaped_texts
            )
            items = export.writer("items")
            report.exported_items, report.escaped_items = items.rows, sum(items.escaped_texts.values())
            commit_export(request, export, publication, report)
        report.advice = suggest_improvement(request, stream)
    return report


def _release_spooled(export: ExportTransaction, options: TransformOptions, publication: Publication) -> None:
    """Write the spooled rows, without equivalence classes that are too small, or with generalised values."""
    frames = (release_pairs(pairs, publication.changes, options) for pairs in export.spooled_frames())
    if publication.shared is None:
        for pairs in frames:
            export.write(pairs)
        return
    for rows in publication.shared.prepare(frames, export.writer("spool").rows):
        export.write(rows.pairs)
        export.write(rows.links, "links")


def _release_series(export: ExportTransaction, release: SeriesRelease) -> None:
    """Write the rows of a series that are published, those that are pending from now on, and the members."""
    members = release.members
    for rows in chain([release.earlier], map(release.split, export.spooled_frames())):
        export.write(rows.pairs)
        export.write(rows.pending, "pending")
        members = members.add(rows.released)
    export.write(members.rows, "members")


def _choose_writer(
    export: ExportTransaction, options: TransformOptions, *, counts_people: bool
) -> "Callable[[ProcessedBatch], None]":
    """Return what happens to the pairs of a batch: rows that may not be released are spooled."""
    if counts_people:
        return lambda batch: export.write(add_people(batch.pairs, batch.user_ids, options.key), "spool")
    kind = "pairs" if options.k_policy.k is None else "spool"
    return lambda batch: export.write(batch.pairs, kind)


def _begin_transaction(request: ExportRequest, stream: FeedbackStream) -> ExportTransaction:
    options, output = request.transform_options, request.output
    return ExportTransaction(
        request.storage,
        options.now,
        request.transaction_options(stream.consent),
        form=output.file_format,
        metadata=request.metadata,
    )


def _create_processor(
    options: TransformOptions, tombstones: Sequence[Tombstones], seen_rows: SeenRows | None
) -> "BatchProcessor":
    from feedback_etl.pipeline.batch_processor import (
        BatchProcessor,  # imports pandera, while the database executes the query
    )

    return BatchProcessor(options, tombstones, seen_rows)
