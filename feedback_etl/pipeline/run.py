"""The making of an export: read, process batch by batch, write, publish.

What happens to a batch between reading and writing stands in `steps`.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback_etl.columns import AGE_EDGES
from feedback_etl.database.read import Found, Selection, read
from feedback_etl.database.watermark import Settling
from feedback_etl.database.window import Window
from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.idempotency import DuplicateRequestError, deduplicate_request, request_details
from feedback_etl.exports.incremental import INCREMENTAL, IncrementalState, lock_series, series_details
from feedback_etl.exports.local_transaction import LocalExportTransaction
from feedback_etl.exports.manifest import hash_settings
from feedback_etl.exports.manifest_details import ManifestDetails
from feedback_etl.exports.seen_rows import SeenRows
from feedback_etl.exports.tombstones import Tombstones
from feedback_etl.pipeline.batches import process_into
from feedback_etl.pipeline.keys import available_keys
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import KAnonymityPolicy, drop_small_classes
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import Run

logger = logging.getLogger(__name__)

SLOW_SECONDS = 10.0
"""After this time people wonder whether it could be faster, and look whether there is an advice."""


def settings_of(rules: TransformOptions, selection: Selection) -> dict[str, Any]:
    """What decides which rows an export has and what they look like: the same for all exports of a chain."""
    query = selection.query
    further: dict[str, Any] = {"extra_columns": [list(column) for column in rules.extra]} if rules.extra else {}
    further |= {"age_edges": list(rules.age_edges)} if rules.age_edges != AGE_EDGES else {}
    further |= {"allow_row_security": True} if selection.allow_row_security else {}
    further |= {"overridden": overridden} if (overridden := rules.overrides.names()) else {}
    return further | {
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
class Making:
    """The making of an export; `started` is when, by `time.perf_counter`."""

    place: LocalStorage | ObjectStorage
    rules: TransformOptions
    form: FileFormat
    settings: dict[str, Any]
    allow_new_key: bool
    lock_timeout: float
    started: float
    idempotency_key: str | None = None

    @property
    def folder(self) -> Path:
        """Where the files go, of an export that is not in parts."""
        assert isinstance(self.place, LocalStorage)  # noqa: S101  all others are
        return self.place.path

    def of(self, selection: Selection, chain: IncrementalState | None = None) -> ExportReport:
        """Export a selection; with a chain, as its next export."""
        return read(selection, lambda found: self._write(found, selection.window, chain))

    def once(self, make: Callable[["Making"], ExportReport], idempotency_key: str) -> ExportReport:
        """Have an export made unless that was done for the same request; a folder is locked meanwhile."""
        while True:
            with deduplicate_request(self.place, idempotency_key, self.lock_timeout, self.rules.key) as done:
                try:
                    return done or make(replace(self, idempotency_key=idempotency_key))
                except DuplicateRequestError:
                    continue

    def incremental(self, selection: Selection, lookback: timedelta) -> ExportReport:
        """Export what is new in the folder's chain; the folder is locked meanwhile."""
        with lock_series(self.folder, hash_settings(self.settings), self.lock_timeout) as chain:
            now = self.rules.now
            window = Window(chain.begins(selection.window.start, now), now)
            settling = Settling(lookback, [Window(each.start, each.end) for each in chain.counted])
            report = self.of(replace(selection, window=window, settling=settling), chain)
            if chain.others:
                report.advice = (
                    "this began a new chain, since the folder's others were exported with other options: rows of "
                    "theirs are in it again"
                )
            if report.late_records:
                logger.warning("%d rows came later than the lookback and are in no export", report.late_records)
            return report

    def _write(self, found: Found, window: Window, chain: IncrementalState | None) -> ExportReport:
        key, settled = self.rules.key, found.settled
        facts = ManifestDetails("full", window, self.settings, source=found.source, extra=self.rules.extra)
        has_lock = chain is not None or self.idempotency_key is not None
        timeout = None if has_lock else self.lock_timeout
        contract = _contract(self.rules) if self.form.format == "parquet" else ""
        made: dict[str, Any] = {
            "key": key,
            "allow_new_key": self.allow_new_key,
            "form": self.form,
            "contract": contract,
        }
        made |= {"known_keys": available_keys, "consent": found.consent, "plan": request_details(self.idempotency_key)}
        made["own_pseudonyms"] = self.rules.overrides.hash_id is not None
        if chain is not None:
            made["plan"] = series_details(window.start, hash_settings(self.settings))
        with LocalExportTransaction(self.folder, self.rules.now, **made, lock_timeout=timeout) as files:
            memory = None if chain is None else SeenRows(chain.rows_file, key, settled.until)
            run = _run(self.rules, files.forgotten, memory)
            append = files.append if self.rules.anonymity.k is None else files.hold
            process_into(append, files.reject, run, found.batches)
            run.judge(window, found.excluded)
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


def suppress(files: LocalExportTransaction, run: "Run", asked: KAnonymityPolicy) -> None:
    """Write the rows that were held, but for those of classes that are too small."""
    small = run.small_classes()
    files.let_through(lambda pairs: drop_small_classes(pairs, small, asked.quasi_identifiers))


def _contract(rules: TransformOptions) -> str:
    from feedback_etl.exports.row_schema import row_schema  # it imports pandera too

    return json.dumps(row_schema(rules.extra, rules.age_edges, rules.overrides.names()))


def _run(rules: TransformOptions, forgotten: Sequence[Tombstones], memory: SeenRows | None) -> "Run":
    from feedback_etl.pipeline.batch_processor import Run  # it imports pandera, and meanwhile the database is at work

    return Run(rules, forgotten, memory)
