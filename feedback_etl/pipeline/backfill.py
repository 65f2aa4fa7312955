"""Backfill: export the rows of earlier windows of an incremental series that no export contains."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from feedback_etl.clock import parse_duration
from feedback_etl.data_files.exported_rows import BackfillRows, EarlierWindows, ExportedRows
from feedback_etl.data_files.seen_rows import SeenRows
from feedback_etl.database.watermark import WatermarkRequest
from feedback_etl.database.window import Window
from feedback_etl.errors import UsageError
from feedback_etl.exports.incremental import IncrementalState

if TYPE_CHECKING:
    from feedback_etl.pipeline.request import ExportRequest

BACKFILL = "backfill"


def select_earlier_windows(request: "ExportRequest", series: IncrementalState) -> "ExportRequest":
    """Return a request of the rows before the watermark of a series.

    Raises:
        UsageError: The exports do not identify their rows, or there are no earlier windows.
    """
    options = request.transform_options
    full = "Export in full to another folder instead."
    reasons = {
        f"k: suppressed rows cannot be distinguished from late ones. {full}": options.k_policy.k is not None,
        f"[dedup]: the exports do not contain its key. {full}": not options.schema.has_whole_key,
        f"timestamp_precision: only exact times identify a row. {full}": options.timestamp_precision != "exact",
        f"an overridden _hash_id: only its own code can identify a row. {full}": "hash_id" in options.overrides.names(),
        "executor: a backfill runs in this process. Leave the executor out.": request.executor is not None,
    }
    if reason := next((reason for reason, applies in reasons.items() if applies), None):
        raise UsageError(f"`backfill` excludes {reason}")
    until = series.known_since
    if until is None:
        raise UsageError("`backfill` needs a series with earlier windows: run incremental exports first.")
    selection = replace(
        request.selection,
        window=Window(series.begins, until),
        watermark=WatermarkRequest(
            parse_duration(request.output.lookback), [Window(count.start, count.end) for count in series.counted], until
        ),
        cursor=request.output.cursor,
        excluded_since=datetime.max,  # earlier runs have counted those without consent
    )
    return replace(request, selection=selection, series=series)


def create_seen_rows(request: "ExportRequest", until: datetime | None) -> SeenRows | None:
    """Return what recognises the rows of a series that were read before; None for a full export.

    Args:
        request: The request with its series.
        until: The watermark of the run.
    """
    series, options = request.series, request.transform_options
    if series is None:
        return None
    if not request.output.backfill or until is None:
        return SeenRows(series.seen_rows, options.key, until, request.cursor, options.schema)
    windows = EarlierWindows(
        until,
        series.list_pruned_windows(),
        options.hash_recommendation_id,
        options.min_feedback_fields,
        options.schema,
    )
    exported = ExportedRows.read(request.storage, series.links, options.schema)
    return BackfillRows(series.seen_rows, options.key, request.cursor, windows, exported)
