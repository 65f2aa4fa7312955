"""Finish an export whose rows were read: decide which of them are published, and commit their files."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.watermark import Watermark
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.incremental import INCREMENTAL
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.pipeline.backfill import BACKFILL
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.privacy.sharing import RowPseudonyms
from feedback_etl.records.layout import parse_part_number
from feedback_etl.records.manifest import DataFile
from feedback_etl.records.manifest_details import ManifestDetails
from feedback_etl.results import ExportReport

SLOW_SECONDS = 10.0
"""An export that takes longer looks for an index that would make reading faster."""

if TYPE_CHECKING:
    from feedback_etl.database.read import FeedbackSource
    from feedback_etl.pipeline.batch_processor import BatchProcessor
    from feedback_etl.pipeline.series_release import PendingSeries, SeriesRelease


class Publication(NamedTuple):
    """Which of the rows that were read are published.

    Attributes:
        source: Where they were read.
        changes: Equivalence classes that are not published as they are; see `ReleasePlan.changes`.
        series: The release of an incremental series whose classes are counted together; None for other exports.
        shared: Pseudonyms of the rows for a recipient; None for other exports.
    """

    source: "FeedbackSource"
    changes: pl.DataFrame
    series: "SeriesRelease | None"
    shared: RowPseudonyms | None

    @property
    def excluded(self) -> int:
        """Number of rows without consent."""
        return self.source.excluded + (self.series.excluded if self.series else 0)


def plan_publication(
    request: ExportRequest,
    source: "FeedbackSource",
    processor: "BatchProcessor",
    pending: "PendingSeries | None",
    spooled: Iterable[pl.DataFrame],
) -> Publication:
    """Check the limits after the last batch, and decide which rows are published.

    The spooled rows are read in a series that follows changes.

    Raises:
        ValidationError: Too many rows are rejected, or would be suppressed.
    """
    request.selection.report_phase("publishing")
    processor.check_limits(request.selection.window, source.excluded)
    shared, series = request.create_row_pseudonyms(), pending.plan(processor, spooled) if pending else None
    changes = series.plan.release.changes if series else processor.plan_release()
    return Publication(source, changes, series, shared)


def commit_export(
    request: ExportRequest,
    export: ExportTransaction,
    publication: Publication,
    report: ExportReport,
    parts: Sequence[DataFile] = (),
) -> None:
    """Commit the files of an export, and complete its report.

    Args:
        request, export, publication: The request, its transaction, and what is published.
        report: Report of the processed rows.
        parts: The files of an export in parts; the transaction has written those of other exports.

    Raises:
        ExportFileError: The parts do not contain the rows that were counted, or see `ExportTransaction.commit`.
    """
    source, shared, series = publication.source, publication.shared, request.series
    details = ManifestDetails("full", request.selection.window, request.settings, source=source.dialect)
    details = details._replace(schema=request.transform_options.schema, rows_digest=shared.digest if shared else "")
    details = details._replace(limits=request.limits)
    if series is not None:
        details = _add_increment(details, report, request, source.watermark)
    if publication.series is not None:
        window = publication.series.extend_window(request.selection.window)
        details = details._replace(window=window, is_state_new=publication.series.is_changed)
    if request.is_partitioned:
        _require_all(parts, report)
    details = details._replace(statistics=report.to_statistics(), risk=report.risk)
    published = export.commit(sort_parts(parts), details)
    if series is not None and (any(published) or details.is_state_new):
        series.delete_state(request.storage)
    report.audit_head = export.audit_head
    report.export_filename, report.rejected_filename = published.pairs or "", published.rejected or ""
    report.items_filename = published.items or ""


def sort_parts(parts: Iterable[DataFile]) -> list[DataFile]:
    """Return parts by kind and number; by name, `part-100000` would come before `part-99999`."""
    return sorted(parts, key=lambda part: (part.kind, parse_part_number(part.path)))


def _require_all(files: Sequence[DataFile], report: ExportReport) -> None:
    """Verify that the parts contain the rows that were counted, so that no lost file goes unnoticed.

    Raises:
        ExportFileError: A kind of files contains another number of rows.
    """
    contained = Counter[str]()
    for file in files:
        contained[file.kind] += file.rows
    expected = {"pairs": report.exported_records, "rejected": report.errors, "pending": report.pending_records}
    for kind, rows in expected.items():
        if contained[kind] != rows:
            raise ExportFileError(
                f"The parts contain {contained[kind]:,} rows ({kind}), but {rows:,} were counted: nothing was "
                "published. Run again."
            )


def _add_increment(
    details: ManifestDetails, report: ExportReport, request: ExportRequest, watermark: Watermark
) -> ManifestDetails:
    """Return the details of an incremental export; its report counts the late-arriving rows."""
    series = request.series
    assert series is not None  # noqa: S101  the export is incremental
    report.mode, report.late_records = INCREMENTAL, series.count_late(watermark.counts)
    if request.output.backfill:
        report.mode, report.late_records = BACKFILL, 0
    excluded = series.excluded if request.output.backfill else watermark.excluded
    start = series.known_since if series.number else request.selection.window.start
    increment = series.next(start, watermark.until, watermark.counts, excluded)
    return details._replace(mode=INCREMENTAL, chain=increment)


def suggest_improvement(request: ExportRequest, source: "FeedbackSource") -> str:
    """Return a sentence on the index that a slow export lacks, or on the cursor of a series that begins, or ""."""
    series, is_slow = request.series, time.perf_counter() - request.started > SLOW_SECONDS
    advice = source.suggest_index() if is_slow else ""
    follows_changes = request.output.cursor != CREATED_AT
    if advice or follows_changes or series is None or series.number:  # later runs do not repeat it
        return advice
    return source.suggest_cursor()
