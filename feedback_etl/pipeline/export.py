"""From a database to an export.

`export_feedback` takes everything that can be chosen, and settles it; `making` puts the steps together.
"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from feedback_etl.clock import instant
from feedback_etl.columns import QUASI_IDENTIFIERS, ExtraColumn, of_raw_rows
from feedback_etl.database.batches import BATCH_ROWS, Reading
from feedback_etl.database.connect import Database
from feedback_etl.database.consent import OPT_IN, OPT_OUT, ConsentColumns
from feedback_etl.database.read import Progress, Selection
from feedback_etl.errors import AllRejectedError
from feedback_etl.exports.file_formats import Compress, Form, Format
from feedback_etl.exports.incremental import lookback_of
from feedback_etl.exports.lock import LOCK_TIMEOUT
from feedback_etl.options import Rules
from feedback_etl.pipeline.arguments import (
    Time,
    extra_of,
    key_of,
    known_of,
    require_fitting,
    require_own_process,
    window_of,
)
from feedback_etl.pipeline.run import Making, settings_of
from feedback_etl.privacy.k_anonymity import KAnonymityPolicy, OnSmallClass
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import place_of
from feedback_etl.storage.object_store import Bucket
from feedback_etl.transform.expressions import AGE_EDGES
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.overrides import Overrides
from feedback_etl.transform.transforms import RecommendationId, TimestampPrecision

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from feedback_etl.transform.training_schema import Model

logger = logging.getLogger(__name__)


def export_feedback(
    database: Database,
    *,
    days_back: int = 30,
    since: Time | None = None,
    until: Time | None = None,
    min_feedback_fields: int = 1,
    output_dir: str | Path = "ml/feedback_training",
    now: datetime | None = None,
    key: Key | str | None = None,
    unkeyed: bool = False,
    allow_new_key: bool = False,
    recommendation_id: RecommendationId = "keep",
    strict: bool = False,
    max_rejected: float = 1.0,
    timestamp_precision: TimestampPrecision = "exact",
    k: int | None = None,
    on_small_class: OnSmallClass = "suppress",
    max_suppressed: float = 1.0,
    quasi_identifiers: Sequence[str] = QUASI_IDENTIFIERS,
    incremental: bool = False,
    lookback: str | timedelta = "1h",
    format: Format = "csv",  # noqa: A002  the name that everybody expects
    compress: Compress = "none",
    include_image_urls: bool = False,
    include_subject_hash: bool = False,
    columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] = AGE_EDGES,
    model: "Model | None" = None,
    query: str | None = None,
    db_schema: str | None = None,
    opt_in_column: str = OPT_IN,
    opt_out_column: str = OPT_OUT,
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    lock_timeout: float = LOCK_TIMEOUT,
    request_id: str | None = None,
    executor: "Executor | None" = None,
    overrides: Overrides | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Export the feedback of a window as a pseudonymised, deduplicated, validated CSV file.

    The file appears whole under its final name or not at all. Nothing to export is no error: then there is no file.

    Args:
        database: A URL, or an Engine, Connection or Session of SQLAlchemy, whose view is read: its schema, role and
            settings (docs/databases.md).
        days_back: The window in days of 24 hours before `now`; -1 for everything. Of an incremental export, only the
            first of its chain.
        since: The window's start, an ISO 8601 date or time (UTC), instead of `days_back`.
        until: The window's end, exclusive; `now` unless given. Only with `since`.
        min_feedback_fields: Rows with fewer of the four ratings are skipped; 0 to 4.
        output_dir: Where the file goes; made with mode 0700 when missing. Or a prefix of an object store, such as
            `s3://bucket/prefix`, where an export is a folder of parts, one for each range of time.
        now: The time of the export, UTC (a naive time is taken as UTC); the present unless given.
        key: The pseudonym key; the configured one (`settings.find_key`) unless given.
        unkeyed: Use plain SHA-256, which anybody who can list the ids can invert.
        allow_new_key: Say that it is meant when the folder's exports are of another key.
        recommendation_id: "keep" as it is, or "hash" to pseudonymise it too.
        strict: Publish nothing if a single row is rejected.
        max_rejected: Publish nothing if a greater share of the rows with enough ratings is rejected; 0 to 1.
        timestamp_precision: "exact", or cut feedback_timestamp down to "minute", "hour" or "day".
        k: Leave out rows of fewer than so many different people who share their quasi-identifiers.
        on_small_class: "suppress" them, or "fail": publish nothing if there are any.
        max_suppressed: Publish nothing if a greater share of the rows would be left out; 0 to 1.
        quasi_identifiers: Columns of the export that somebody may know of a person.
        incremental: Export what is new since the last incremental export of the folder with the same settings: every
            row exactly once, whenever it runs. Edits of rows that were read are not followed.
        lookback: How long rows may arrive late, as "30m", "2h", "1d" or a timedelta: the next incremental export reads
            again so far before the newest row of this one. Later ones are counted in `late_records`.
        format: "csv" or "parquet" (compressed with zstd).
        compress: "none", "gzip" or "zstd", for CSV.
        include_image_urls: Add the column image_url, filled where the user's `image_opt_in` is true.
        include_subject_hash: Add the column subject_hash, the pseudonym of the user: rows of a person are then known to
            belong together, so that training and test data can be split by person.
        columns: What the query yields beside the canonical raw columns, and the export after the twelve.
        age_edges: The ages at which a new range begins.
        model: A pandera model of one's own that every batch has to fit too.
        query: An own SELECT that yields the canonical raw columns, instead of the default schema.
        db_schema: The schema of the default tables (on MySQL, the database).
        opt_in_column: A column of users or profiles; where it is there, only feedback of users with true is read.
        opt_out_column: Another; where it is there, feedback of users with true is not read.
        connect_timeout: Seconds to wait for the database.
        allow_row_security: Export the rows that the row-level security of PostgreSQL shows this user. Without it, a
            database that would hide rows is refused.
        bulk: Read time ranges side by side (PostgreSQL); the result is the same.
        workers: How many at once; the number of processors, at most 4, unless given.
        batch_rows: How many rows are worked on at once; the result is the same.
        stall_timeout: Seconds without a row after which the database is given up.
        lock_timeout: Seconds to wait, when the file is complete, for others who use the folder.
        request_id: An opaque id of who asks, such as a task's UUID; it stands in the audit log. The folder is locked
            from the beginning, and for an id that has its export, nothing is read: its figures come again.
        executor: Who makes the export, in parts: anything with the interface of `concurrent.futures.Executor`, such as
            a Dask client's (`client.get_executor()`). Its workers take the database and the key from their own
            environment. `workers` is then how many tasks are sent ahead (64), and so how many parts there are at least,
            unless these had fewer than 20,000 rows.
        overrides: Functions of an application in the place of `hash_id`, `bucket_age` or `pair_hash`, as
            `FeedbackProcessor` passes on what a subclass overrides. They work in this process; labels and pseudonyms
            are then texts of any form, and the manifest records whose they are.
        progress: Called with the number of rows read so far and of all rows, which are counted first for it (with an
            executor, those of a large table are estimated).

    Returns:
        The figures of the run.

    Raises:
        UsageError: An argument is wrong, or (KeyMissing) there is no key.
        SourceError: The database cannot be reached or is not as expected.
        ValidationError: Too many rows are rejected, or all of them (AllRejectedError); nothing was published.
        ExportFileError: The folder cannot be used; nothing was published.
        FolderLocked: Others use the folder for too long; nothing was published.

    >>> from feedback_etl.demo.sample import sample_database
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key="k" * 32, output_dir="training")
    >>> report.total_feedback_records > report.exported_records > 0
    True
    """
    started = time.perf_counter()
    require_usable_polars()
    place = place_of(output_dir)
    in_parts = executor is not None or isinstance(place, Bucket)
    require_fitting(incremental, since, request_id, in_parts=in_parts)
    now = instant(now)
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = window_of(days_back, since, until, now)
    consent, extra = (
        ConsentColumns(opt_in_column, opt_out_column),
        extra_of(columns, query, images=include_image_urls, subjects=include_subject_hash),
    )
    chosen = (window, query, db_schema, connect_timeout, reading, progress, None, consent, of_raw_rows(extra))
    selection = Selection(database, *chosen, allow_row_security)
    anonymity = KAnonymityPolicy(k, on_small_class, max_suppressed, known_of(quasi_identifiers, extra), extra)
    rules = Rules(
        now,
        key_of(key, unkeyed),
        min_feedback_fields,
        recommendation_id,
        strict,
        max_rejected,
        timestamp_precision,
        anonymity,
        extra,
        tuple(age_edges),
        model,
        overrides or Overrides(),
    )
    require_own_process(rules.overrides, in_parts=in_parts, has_executor=executor is not None, incremental=incremental)
    form = Form(format, compress).checked()
    export = Making(place, rules, form, settings_of(rules, selection), allow_new_key, lock_timeout, started)

    def make(making: Making) -> ExportReport:
        if not in_parts:
            return making.of(selection)
        from feedback_etl.pipeline.partitioned import export_in_parts

        return export_in_parts(making, selection, executor)

    try:
        if incremental:
            report = export.incremental(selection, lookback_of(lookback))
        else:
            report = make(export) if request_id is None else export.once(make, request_id)
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
