"""Export feedback from a database as a training set: in full, once per idempotency key, or incrementally."""

import logging
import time
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime
from typing import Unpack

from feedback_etl.clock import parse_duration, resolve_now
from feedback_etl.database.connect import Database
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.read import PhaseListener, Progress
from feedback_etl.database.watermark import WatermarkRequest
from feedback_etl.database.window import Window
from feedback_etl.errors import AllRejectedError, UsageError
from feedback_etl.exports.idempotency import DuplicateRequestError, deduplicate_request
from feedback_etl.exports.incremental import IncrementalState, lock_series
from feedback_etl.exports.series_conflicts import SupersededError
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.keywords import ExportKeywords
from feedback_etl.pipeline.backfill import select_earlier_windows
from feedback_etl.pipeline.keys import resolve_key
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.selection import select
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.pipeline.write import write_export
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.sharing import require_shareable_key
from feedback_etl.records.series_settings import require_intended
from feedback_etl.results import ExportReport
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.overrides import Overrides

logger = logging.getLogger(__name__)


def export_feedback(  # noqa: PLR0913  public, flat
    database: Database,
    *,
    options: ExportOptions | None = None,
    key: Key | str | None = None,
    unkeyed: bool = False,
    now: datetime | None = None,
    executor: Executor | None = None,
    overrides: Overrides | None = None,
    on_progress: Progress | None = None,
    on_phase: PhaseListener | None = None,
    **keywords: Unpack[ExportKeywords],
) -> ExportReport:
    """Export the feedback of a window as a pseudonymised, deduplicated, validated CSV file.

    The file appears whole under its final name or not at all. Nothing to export is no error: then there is no file.

    Args:
        database: A URL, or an Engine, Connection or Session of SQLAlchemy, whose view is read: its schema, role and
            settings (docs/databases.md).
        options: The options of the export; all defaults if omitted.
        key: The pseudonym key; the configured one (`settings.find_key`) if omitted.
        unkeyed: Use plain SHA-256, which anyone who can list the ids can invert.
        now: The time of the export, UTC (a naive time is interpreted as UTC); the present if omitted.
        executor: Runs the export in parts: anything with the interface of `concurrent.futures.Executor`, such as a Dask
            client's (`client.get_executor()`). Its workers take the database and the key from their own environment.
        overrides: Functions of an application that replace `hash_id`, `bucket_age` or `pair_hash`, as
            `FeedbackProcessor` passes those that a subclass overrides. They run in this process; labels and pseudonyms
            are then texts of any form, and the manifest records which functions were replaced.
        on_progress: Called with the number of rows read so far and of all rows, which are counted first for it (with an
            executor, those of a large table are estimated).
        on_phase: Called with the name of each phase as it begins, such as "connecting" or "reading rows".
        keywords: Options by name, such as `days_back=90` or `k=5`, which replace those in `options`: see the groups
            `ReadOptions`, `QualityOptions`, `PrivacyOptions` and `OutputOptions` in `feedback_etl.options`.

    Returns:
        The figures of the run.

    Raises:
        UsageError: An argument is wrong, or (KeyMissingError) there is no key.
        SourceError: The database cannot be reached or is not as expected.
        ValidationError: Too many rows are rejected, or all of them (AllRejectedError); nothing was published.
        ExportFileError: The folder cannot be used; nothing was published.
        FolderLockedError: Another program uses the folder for too long; nothing was published.

    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key=generate_key(), output_dir="training")
    >>> report.total_feedback_records > report.exported_records > 0
    True
    """
    started = time.perf_counter()
    require_usable_polars()
    options = (options or ExportOptions()).with_keywords(**keywords)
    now = resolve_now(now)
    storage = open_storage(options.output.output_dir)
    selection = select(database, options, now, on_progress, on_phase)
    key = resolve_key(key, unkeyed=unkeyed, pseudonym_length=options.privacy.pseudonym_length)
    if options.output.recipient is not None:
        require_shareable_key(key)
    request = ExportRequest(
        storage=storage,
        selection=selection,
        transform_options=TransformOptions.from_options(options, now, key, overrides),
        output=options.output,
        started=started,
        executor=executor,
    )
    try:
        report = _run_with_lineage(request.with_bound_key())
    except AllRejectedError as error:
        error.report.execution_time_seconds = round(time.perf_counter() - started, 3)
        raise
    report.execution_time_seconds = round(time.perf_counter() - started, 3)
    logger.info(
        "exported %d of %d rows: %d duplicates, %d skipped, %d rejected",
        report.exported_records,
        report.total_feedback_records,
        report.deduplicated_records,
        report.skipped_records,
        report.errors,
    )
    return report


def _run_with_lineage(request: ExportRequest) -> ExportReport:
    if request.output.lineage is None:
        return _run(request)
    from feedback_etl.pipeline.lineage import LineageRun

    with LineageRun(request) as lineage:
        lineage.report = _run(request)
    return lineage.report


def _run(request: ExportRequest) -> ExportReport:
    if request.output.incremental:
        return export_incremental(request)
    if request.output.idempotency_key is not None:
        return export_once(request, request.output.idempotency_key)
    return export_full(request)


def export_full(request: ExportRequest) -> ExportReport:
    """Export all rows of the window, in one file or in parts."""
    if request.is_partitioned:
        from feedback_etl.pipeline.partitioned import export_in_parts

        return export_in_parts(request)
    return write_export(request.selection, request)


def export_once(request: ExportRequest, idempotency_key: str) -> ExportReport:
    """Export all rows of the window, unless the idempotency key has an export already; its figures are returned then.

    A folder is locked meanwhile. In an object store, a concurrent run with the same key may publish first.
    """
    while True:
        with deduplicate_request(
            request.storage, idempotency_key, request.output.lock_timeout, request.transform_options.key
        ) as done:
            try:
                return done or export_full(request)
            except DuplicateRequestError:
                continue


def export_incremental(request: ExportRequest) -> ExportReport:
    """Export the rows that are new in the incremental series of the storage; a folder is locked meanwhile.

    In an object store, a concurrent run of the series may commit first; then the new state is continued.
    """
    output = request.output
    while True:
        with lock_series(request.storage, request.candidate_settings, output.lock_timeout) as series:
            require_intended(series.settings, series.others, new_series=output.new_series, new_key=output.allow_new_key)
            _require_counted_together(request, series)
            try:
                increment = _select_increment(request, series)
                report = export_full(increment)
            except SupersededError:
                continue
        break
    if series.others:
        report.advice = (
            "this began a new series, since the folder's other exports have other settings: it repeats their rows"
        )
        if series.pending_elsewhere:
            pending = pluralize(series.pending_elsewhere, "row")
            report.advice += f"; {pending} of those are pending until their series continues, or prune removes them"
    if report.late_records:
        logger.warning(
            "at least %d rows arrived later than the lookback allows: a backfill exports those that no export contains",
            report.late_records,
        )
    return report


def _require_counted_together(request: ExportRequest, series: IncrementalState) -> None:
    """Refuse to continue a series that follows changes if an earlier version counted each of its files alone.

    Raises:
        UsageError: The newest versions of its rows may have smaller equivalence classes than k.
    """
    if not (request.follows_changes and request.counts_series):
        return
    alone = next((link.stem for link in series.links if link.risk and link.risk.get("scope") != "series"), None)
    if alone is not None:
        raise UsageError(
            f"`k` was counted in {alone} alone, and not over the newest versions of the rows of its series: `check` "
            "counts them. Begin a series in another folder (`output_dir`), which contains all rows again."
        )


def _select_increment(request: ExportRequest, series: IncrementalState) -> ExportRequest:
    """Return a request of the rows from the watermark of a series on."""
    if request.output.backfill:
        return select_earlier_windows(request, series)
    selection, now, cursor = request.selection, request.transform_options.now, request.output.cursor
    start = series.find_start(selection.window.start, now)
    windows = [Window(count.start, count.end) for count in series.counted]
    selection = replace(
        selection,
        window=Window(start, now),
        watermark=WatermarkRequest(parse_duration(request.output.lookback), windows, start),
        cursor=cursor,
        excluded_since=series.read_until,
        excluded_before=None if request.counts_series else series.excluded,  # pending rows without are counted apart
    )
    if cursor != CREATED_AT and series.number:  # rows of the whole series that were changed since
        selection = replace(selection, window=Window(series.begins, now), changed_since=start)
    return replace(request, selection=selection, series=series)
