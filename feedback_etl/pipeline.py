"""From a database to an export.

`export_feedback` takes everything that can be chosen; `_Export` puts the steps together. What happens to a batch
between reading and writing stands in `steps`.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from feedback_etl.arguments import Time, key_of, known_keys, window_of
from feedback_etl.clock import instant
from feedback_etl.columns import QUASI_IDENTIFIERS
from feedback_etl.errors import UsageError
from feedback_etl.exports.chain import INCREMENTAL, Chain, Memory, begun, continued, lookback_of
from feedback_etl.exports.facts import Facts
from feedback_etl.exports.files import ExportFiles
from feedback_etl.exports.lock import LOCK_TIMEOUT
from feedback_etl.exports.manifest import digest_of
from feedback_etl.exports.output import Compress, Form, Format
from feedback_etl.exports.tombstones import Tombstones
from feedback_etl.privacy.anonymity import Anonymity, OnSmallClass, without
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.rules import Rules
from feedback_etl.source.connect import Database
from feedback_etl.source.consent import OPT_IN, OPT_OUT, ConsentColumns
from feedback_etl.source.reader import BATCH_ROWS, Reading
from feedback_etl.source.selection import Found, Progress, Selection, read
from feedback_etl.source.settled import Settling
from feedback_etl.source.window import Window
from feedback_etl.transforms import RecommendationId, TimestampPrecision

if TYPE_CHECKING:
    from feedback_etl.steps import Batch, Run

logger = logging.getLogger(__name__)

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
    new_key: bool = False,
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
    query: str | None = None,
    db_schema: str | None = None,
    opt_in_column: str = OPT_IN,
    opt_out_column: str = OPT_OUT,
    connect_timeout: float = 2.0,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    lock_timeout: float = LOCK_TIMEOUT,
    progress: Progress | None = None,
) -> ExportReport:
    """Export the feedback of a window as a pseudonymised, deduplicated, validated CSV file.

    The file appears whole under its final name or not at all. Nothing to export is no error: then there is no file.

    Args:
        database: A URL, or an Engine, Connection or Session of SQLAlchemy. Committed rows are read.
        days_back: The window in days of 24 hours before `now`; -1 for everything. Of an incremental export, only the
            first of its chain.
        since: The window's start, an ISO 8601 date or time (UTC), instead of `days_back`.
        until: The window's end, exclusive; `now` unless given. Only with `since`.
        min_feedback_fields: Rows with fewer of the four ratings are skipped; 0 to 4.
        output_dir: Where the file goes; made with mode 0700 when missing.
        now: The time of the export, UTC (a naive time is taken as UTC); the present unless given.
        key: The pseudonym key; the configured one (`settings.find_key`) unless given.
        unkeyed: Use plain SHA-256, which anybody who can list the ids can invert.
        new_key: Say that it is meant when the folder's exports are of another key.
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
        query: An own SELECT that yields the canonical raw columns, instead of the default schema.
        db_schema: The schema of the default tables (on MySQL, the database).
        opt_in_column: A column of users or profiles; where it is there, only feedback of users with true is read.
        opt_out_column: Another; where it is there, feedback of users with true is not read.
        connect_timeout: Seconds to wait for the database.
        bulk: Read time ranges side by side (PostgreSQL); the result is the same.
        workers: How many at once; the number of processors, at most 4, unless given.
        batch_rows: How many rows are worked on at once; the result is the same.
        stall_timeout: Seconds without a row after which the database is given up.
        lock_timeout: Seconds to wait, when the file is complete, for others who use the folder.
        progress: Called with the number of rows read so far and of all rows, which are counted first for it.

    Returns:
        The figures of the run.

    Raises:
        UsageError: An argument is wrong, or (KeyMissing) there is no key.
        SourceError: The database cannot be reached or is not as expected.
        ValidationError: Too many rows are rejected, or all of them; nothing was published.
        ExportFileError: The folder cannot be used; nothing was published.
        FolderLocked: Others use the folder for too long; nothing was published.

    >>> from feedback_etl.demo import sample_database
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key="k" * 32, output_dir="training")
    >>> report.total_feedback_records > report.exported_records > 0
    True
    """
    started = time.perf_counter()
    if incremental and since is not None:
        raise UsageError("An incremental export goes on where the last one ended: leave since and until out.")
    now = instant(now)
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = window_of(days_back, since, until, now)
    consent = ConsentColumns(opt_in_column, opt_out_column)
    selection = Selection(database, window, query, db_schema, connect_timeout, reading, progress, consent=consent)
    anonymity = Anonymity(k, on_small_class, max_suppressed, tuple(quasi_identifiers))
    rules = Rules(
        now,
        key_of(key, unkeyed),
        min_feedback_fields,
        recommendation_id,
        strict,
        max_rejected,
        timestamp_precision,
        anonymity,
    )
    form = Form(format, compress).checked()
    export = _Export(Path(output_dir), rules, form, _settings(rules, selection), new_key, lock_timeout, started)
    report = export.incremental(selection, lookback_of(lookback)) if incremental else export.of(selection)
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


def _settings(rules: Rules, selection: Selection) -> dict[str, Any]:
    """What decides which rows an export has and what they look like: the same for all exports of a chain."""
    query = selection.query
    return {
        "min_feedback_fields": rules.min_feedback_fields,
        "recommendation_id": rules.recommendation_id,
        "timestamp_precision": rules.timestamp_precision,
        "k": rules.anonymity.k,
        "quasi_identifiers": list(rules.anonymity.quasi_identifiers),
        "query_sha256": hashlib.sha256(query.encode()).hexdigest() if query else None,
        "db_schema": selection.db_schema,
        "key_id": rules.key.id if rules.key else None,
    }


@dataclass(frozen=True)
class _Export:
    """The making of an export; `started` is when, by `time.perf_counter`."""

    folder: Path
    rules: Rules
    form: Form
    settings: dict[str, Any]
    new_key: bool
    lock_timeout: float
    started: float

    def of(self, selection: Selection, chain: Chain | None = None) -> ExportReport:
        """Export a selection; with a chain, as its next export."""
        return read(selection, lambda found: self._write(found, selection.window, chain))

    def incremental(self, selection: Selection, lookback: timedelta) -> ExportReport:
        """Export what is new in the folder's chain; the folder is locked meanwhile."""
        with continued(self.folder, digest_of(self.settings), self.lock_timeout) as chain:
            now = self.rules.now
            window = Window(chain.begins(selection.window.start, now), now)
            settling = Settling(lookback, [Window(each.start, each.end) for each in chain.counted])
            report = self.of(replace(selection, window=window, settling=settling), chain)
            if report.late_records:
                logger.warning("%d rows came later than the lookback and are in no export", report.late_records)
            return report

    def _write(self, found: Found, window: Window, chain: Chain | None) -> ExportReport:
        key, settled, facts = self.rules.key, found.settled, Facts("full", window, self.settings, source=found.source)
        timeout = self.lock_timeout if chain is None else None  # who continues a chain holds the lock
        contract = _contract() if self.form.format == "parquet" else ""
        made: dict[str, Any] = {"key": key, "new_key": self.new_key, "form": self.form, "contract": contract}
        made |= {"known_keys": known_keys, "consent": found.consent}
        if chain is not None:
            made["plan"] = begun(window.start, digest_of(self.settings))
        with ExportFiles(self.folder, self.rules.now, **made, lock_timeout=timeout) as files:
            memory = None if chain is None else Memory(chain, key, settled.until)
            run = _run(self.rules, files.forgotten, memory)
            process_into(files, run, found.batches, held=self.rules.anonymity.k is not None)
            run.judge()
            suppress(files, run, self.rules.anonymity)
            report = run.report(window, found.excluded)
            if chain is not None and memory is not None:
                files.remember(memory.rows())
                facts = facts._replace(mode=INCREMENTAL, chain=chain.next(window.start, settled.until, settled.counts))
                report.mode, report.late_records = INCREMENTAL, chain.late(settled.counts)
            published = files.publish(facts._replace(statistics=report.figures(), risk=report.risk))
            report.audit_head = files.audit_head
        if chain is not None and any(published):
            chain.let_go()
        report.export_filename = str(published.pairs or "")
        report.rejected_filename = str(published.rejected or "")
        if time.perf_counter() - self.started > SLOW_SECONDS:
            report.advice = found.advice()
        return report


def suppress(files: ExportFiles, run: "Run", asked: Anonymity) -> None:
    """Write the rows that were held, but for those of classes that are too small."""
    small = run.small_classes()
    files.let_through(lambda pairs: without(pairs, small, asked.quasi_identifiers))


def process_into(files: ExportFiles, run: "Run", raw_batches: Iterable[pl.DataFrame], *, held: bool = False) -> None:
    """Process batches and write them. While one is validated and written, in a thread, the next is processed.

    Rows are held where the sizes of all classes have to be known before any of them is written.
    """
    append = files.hold if held else files.append

    def write(batch: "Batch") -> None:
        append(batch.validated().pairs)
        files.reject(batch.rejected)

    with ThreadPoolExecutor(1, "feedback_etl writer") as writer:
        writing = writer.submit(lambda: None)
        for raw in raw_batches:
            batch = run.process(raw)
            writing.result()
            writing = writer.submit(write, batch)
        writing.result()
    files.reject(run.finish())


def _contract() -> str:
    from feedback_etl.contracts import row_schema  # it imports pandera too

    return json.dumps(row_schema())


def _run(rules: Rules, forgotten: Sequence[Tombstones], memory: Memory | None) -> "Run":
    from feedback_etl.steps import Run  # it imports pandera, and meanwhile the database is at work

    return Run(rules, forgotten, memory)
