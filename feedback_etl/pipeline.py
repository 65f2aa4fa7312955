"""From a database to a training set.

`export_feedback` writes, `load_training` gives the same rows as a frame, `load_feedback` stops before anything is done
to them. What happens to a batch between reading and writing stands in `steps`.
"""

import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.exports.files import ExportFiles
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.rules import Rules
from feedback_etl.settings import find_key
from feedback_etl.source.connect import Database
from feedback_etl.source.reader import BATCH_ROWS, Reading
from feedback_etl.source.selection import Found, Progress, Selection, read
from feedback_etl.source.window import Window, naive_utc, window_between, window_of_days
from feedback_etl.transforms import RecommendationId

if TYPE_CHECKING:
    from feedback_etl.steps import Batch, Run

logger = logging.getLogger(__name__)

Time = str | date | datetime

SLOW_SECONDS = 10.0
"""After this time people wonder whether it could be faster, and look whether there is an advice."""


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
    recommendation_id: RecommendationId = "keep",
    strict: bool = False,
    max_rejected: float = 1.0,
    query: str | None = None,
    db_schema: str | None = None,
    connect_timeout: float = 2.0,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    progress: Progress | None = None,
) -> ExportReport:
    """Export the feedback of a window as a pseudonymised, deduplicated, validated CSV file.

    The file appears whole under its final name or not at all. Nothing to export is no error: then there is no file.

    Args:
        database: A URL, or an Engine, Connection or Session of SQLAlchemy. Committed rows are read.
        days_back: The window in days of 24 hours before `now`; -1 for everything.
        since: The window's start, an ISO 8601 date or time (UTC), instead of `days_back`.
        until: The window's end, exclusive; `now` unless given. Only with `since`.
        min_feedback_fields: Rows with fewer of the four ratings are skipped; 0 to 4.
        output_dir: Where the file goes; made with mode 0700 when missing.
        now: The time of the export, UTC (a naive time is taken as UTC); the present unless given.
        key: The pseudonym key; the configured one (`settings.find_key`) unless given.
        unkeyed: Use plain SHA-256, which anybody who can list the ids can invert.
        recommendation_id: "keep" as it is, or "hash" to pseudonymise it too.
        strict: Publish nothing if a single row is rejected.
        max_rejected: Publish nothing if a greater share of the rows with enough ratings is rejected; 0 to 1.
        query: An own SELECT that yields the canonical raw columns, instead of the default schema.
        db_schema: The PostgreSQL schema of the default tables.
        connect_timeout: Seconds to wait for the database.
        bulk: Read time ranges side by side (PostgreSQL); the result is the same.
        workers: How many at once; the number of processors, at most 4, unless given.
        batch_rows: How many rows are worked on at once; the result is the same.
        stall_timeout: Seconds without a row after which the database is given up.
        progress: Called with the number of rows read so far and of all rows, which are counted first for it.

    Returns:
        The figures of the run.

    Raises:
        UsageError: An argument is wrong, or (KeyMissing) there is no key.
        SourceError: The database cannot be reached or is not as expected.
        ValidationError: Too many rows are rejected, or all of them; nothing was published.
        ExportFileError: The folder cannot be used; nothing was published.

    >>> from feedback_etl.demo import sample_database
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key="k" * 32, output_dir="training")
    >>> report.total_feedback_records > report.exported_records > 0
    True
    """
    started = time.perf_counter()
    now = _instant(now)
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = _window(days_back, since, until, now)
    selection = Selection(database, window, query, db_schema, connect_timeout, reading, progress)
    rules = Rules(now, _key(key, unkeyed), min_feedback_fields, recommendation_id, strict, max_rejected)

    def write(found: Found) -> ExportReport:
        run = _run(rules)
        with ExportFiles(output_dir, now) as files:
            process_into(files, run, found.batches)
            run.judge()
            published = files.publish()
        report = run.report(window, found.excluded)
        report.export_filename = str(published.pairs or "")
        report.rejected_filename = str(published.rejected or "")
        if time.perf_counter() - started > SLOW_SECONDS:
            report.advice = found.advice()
        return report

    report = read(selection, write)
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


def load_training(
    database: Database,
    *,
    days_back: int = 30,
    since: Time | None = None,
    until: Time | None = None,
    min_feedback_fields: int = 1,
    now: datetime | None = None,
    key: Key | str | None = None,
    unkeyed: bool = False,
    recommendation_id: RecommendationId = "keep",
    strict: bool = False,
    max_rejected: float = 1.0,
    query: str | None = None,
    db_schema: str | None = None,
    connect_timeout: float = 2.0,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The rows that `export_feedback` would write, as a frame; nothing is written.

    Takes the same arguments and raises the same errors, but for files.

    Returns:
        The twelve columns of `schema.TrainingPair`: Int8 ratings, Boolean, an Enum of age ranges, times in UTC.
    """
    now = _instant(now)
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = _window(days_back, since, until, now)
    selection = Selection(database, window, query, db_schema, connect_timeout, reading, progress)
    rules = Rules(now, _key(key, unkeyed), min_feedback_fields, recommendation_id, strict, max_rejected)

    def collect(found: Found) -> pl.DataFrame:
        run = _run(rules)
        pairs = pl.concat([run.process(raw).validated().pairs for raw in found.batches])
        run.finish()
        run.judge()
        return pairs

    return read(selection, collect)


def load_feedback(
    database: Database,
    *,
    days_back: int = 30,
    since: Time | None = None,
    until: Time | None = None,
    now: datetime | None = None,
    query: str | None = None,
    db_schema: str | None = None,
    connect_timeout: float = 2.0,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Raw feedback, which is personal data: user ids, ages, exact times. Keep it in memory and hand it to nobody.

    Takes the arguments of `export_feedback` that choose rows, and raises the same errors.

    Returns:
        The canonical raw columns (`columns.RAW_COLUMNS`), ordered by (created_at, feedback id), nulls last.
    """
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = _window(days_back, since, until, _instant(now))
    selection = Selection(database, window, query, db_schema, connect_timeout, reading, progress)
    return read(selection, lambda found: pl.concat(list(found.batches), how="vertical_relaxed"))


def process_into(files: ExportFiles, run: "Run", raw_batches: Iterable[pl.DataFrame]) -> None:
    """Process batches and write them. While one is validated and written, in a thread, the next is processed."""

    def write(batch: "Batch") -> None:
        files.append(batch.validated().pairs)
        files.reject(batch.rejected)

    with ThreadPoolExecutor(1, "feedback_etl writer") as writer:
        writing = writer.submit(lambda: None)
        for raw in raw_batches:
            batch = run.process(raw)
            writing.result()
            writing = writer.submit(write, batch)
        writing.result()
    files.reject(run.finish())


def _run(rules: Rules) -> "Run":
    from feedback_etl.steps import Run  # it imports pandera, and meanwhile the database is at work

    return Run(rules)


def _instant(now: datetime | None) -> datetime:
    if now is not None and not isinstance(now, datetime):
        raise UsageError("now must be a datetime; without a time zone it is taken as UTC.")
    return naive_utc(datetime.now(UTC) if now is None else now)


def _window(days_back: int, since: Time | None, until: Time | None, now: datetime) -> Window:
    if since is not None:
        return window_between(since, until, now=now)
    if until is not None:
        raise UsageError("An end of the window (until) needs a start (since).")
    return window_of_days(days_back, now=now)


def _key(key: Key | str | None, unkeyed: bool) -> Key | None:
    if unkeyed:
        if key is not None:
            raise UsageError("Give a key or unkeyed=True, not both.")
        return None
    return Key.of(key) if key is not None else find_key().key
