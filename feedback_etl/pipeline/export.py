"""Export feedback from a database as a training set."""

import logging
import time
from datetime import datetime
from typing import TYPE_CHECKING, Unpack

from feedback_etl.clock import instant
from feedback_etl.database.connect import Database
from feedback_etl.database.read import Progress
from feedback_etl.errors import AllRejectedError, UsageError
from feedback_etl.exports.incremental import parse_lookback
from feedback_etl.option_keywords import ExportKeywords
from feedback_etl.options import ExportOptions
from feedback_etl.pipeline.keys import resolve_key
from feedback_etl.pipeline.run import Making, settings_of
from feedback_etl.pipeline.selection import select
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import open_storage
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.overrides import Overrides

if TYPE_CHECKING:
    from concurrent.futures import Executor

logger = logging.getLogger(__name__)


def export_feedback(
    database: Database,
    *,
    options: ExportOptions | None = None,
    key: Key | str | None = None,
    unkeyed: bool = False,
    now: datetime | None = None,
    executor: "Executor | None" = None,
    overrides: Overrides | None = None,
    on_progress: Progress | None = None,
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
        now: The time of the export, UTC (a naive time is taken as UTC); the present if omitted.
        executor: Runs the export in parts: anything with the interface of `concurrent.futures.Executor`, such as a Dask
            client's (`client.get_executor()`). Its workers take the database and the key from their own environment.
        overrides: Functions of an application that replace `hash_id`, `bucket_age` or `pair_hash`, as
            `FeedbackProcessor` passes those that a subclass overrides. They run in this process; labels and pseudonyms
            are then texts of any form, and the manifest records which functions were replaced.
        on_progress: Called with the number of rows read so far and of all rows, which are counted first for it (with an
            executor, those of a large table are estimated).
        keywords: Options by name, such as `days_back=90` or `k=5`, which replace those in `options`: see the groups
            `ReadOptions`, `QualityOptions`, `PrivacyOptions` and `OutputOptions` in `feedback_etl.options`.

    Returns:
        The figures of the run.

    Raises:
        UsageError: An argument is wrong, or (KeyMissing) there is no key.
        SourceError: The database cannot be reached or is not as expected.
        ValidationError: Too many rows are rejected, or all of them (AllRejectedError); nothing was published.
        ExportFileError: The folder cannot be used; nothing was published.
        FolderLocked: Another program uses the folder for too long; nothing was published.

    >>> from feedback_etl.demo.sample import sample_database
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key="k" * 32, output_dir="training")
    >>> report.total_feedback_records > report.exported_records > 0
    True
    """
    started = time.perf_counter()
    require_usable_polars()
    options = (options or ExportOptions()).with_keywords(**keywords)
    now = instant(now)
    rules = TransformOptions.of(options, now, resolve_key(key, unkeyed), overrides)
    require_supported(options, rules.overrides, has_executor=executor is not None)
    selection = select(database, options, now, on_progress)
    output = options.output
    export = Making(
        open_storage(output.output_dir),
        rules,
        output.file_format,
        settings_of(rules, selection),
        output.allow_new_key,
        output.lock_timeout,
        started,
    )

    def make(making: Making) -> ExportReport:
        if not is_partitioned(options, has_executor=executor is not None):
            return making.of(selection)
        from feedback_etl.pipeline.partitioned import export_in_parts

        return export_in_parts(making, selection, executor)

    try:
        if output.incremental:
            report = export.incremental(selection, parse_lookback(output.lookback))
        else:
            report = make(export) if output.idempotency_key is None else export.once(make, output.idempotency_key)
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


def is_partitioned(options: ExportOptions, *, has_executor: bool) -> bool:
    """Return whether an export is written in parts: by an executor, or to an object store."""
    return has_executor or isinstance(open_storage(options.output.output_dir), ObjectStorage)


def require_supported(options: ExportOptions, overrides: Overrides, *, has_executor: bool) -> None:
    """Refuse combinations of options, functions of the application and executor that cannot work.

    Raises:
        UsageError: An incremental export would be in parts, or a function could not be called for all rows.
    """
    names = overrides.names()
    in_parts = is_partitioned(options, has_executor=has_executor)
    if in_parts and options.output.incremental:
        raise UsageError(
            "An export in parts (by an executor, or to an object store) is always of a whole window: leave incremental "
            "out."
        )
    if names and has_executor:
        raise UsageError(
            "Overridden methods work in this process alone, and are not sent to an executor: leave executor out."
        )
    if in_parts and {"hash_id", "pair_hash"} & {*names}:
        raise UsageError(
            "An overridden _hash_id or _get_pair_hash needs an export in one file: name a folder, not an object store."
        )
    if options.output.incremental and "pair_hash" in names:
        raise UsageError(
            "An incremental export recognises duplicates of earlier exports by the built-in pair hash: leave "
            "incremental out, or do not override _get_pair_hash."
        )
