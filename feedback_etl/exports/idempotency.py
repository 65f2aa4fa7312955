"""Idempotency keys: a duplicate request returns the figures of its first export.

Queues deliver a task again when its worker dies, perhaps after the export was published. The log's record of the start
therefore contains the idempotency key, and a duplicate request reads the outcome there. In an object store, which has
no locks, an earlier run that has not published yet is aborted in favour of the later one and can never publish. Of two
concurrent requests one is recorded first; the other sees the record before it can add its own.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.recovery import abort_runs
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import Record, has_valid_stem
from feedback_etl.records.catalog import read_committed
from feedback_etl.records.layout import ITEMS_FOLDER, REJECTED_FOLDER
from feedback_etl.records.manifest_details import audit_summary
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import STATE_FOLDER, Storage
from feedback_etl.storage.errors import explain_write_errors

MAX_KEY_LENGTH = 200


class DuplicateRequestError(ExportFileError):
    """Report that another run with the same idempotency key has committed meanwhile."""


def build_request_details(idempotency_key: str | None) -> dict[str, Any]:
    """Return the idempotency key as details of the audit record `started`."""
    return {"request": idempotency_key} if idempotency_key is not None else {}


@contextmanager
def deduplicate_request(
    storage: Storage, idempotency_key: str, lock_timeout: float, signer: Key | None
) -> Iterator[ExportReport | None]:
    """Yield the report of an earlier run with the same key, or None; a folder stays locked meanwhile.

    Raises:
        UsageError: The key is not a text of 1 to 200 characters.
        ExportFileError: The storage cannot be used, or a manifest cannot be read.
        FolderLockedError: Another process holds the folder's lock.
    """
    if not isinstance(idempotency_key, str) or not 0 < len(idempotency_key) <= MAX_KEY_LENGTH:
        raise UsageError(f"`idempotency_key` must be a text of 1 to {MAX_KEY_LENGTH} characters, such as a UUID.")
    with ExitStack() as stack:
        with explain_write_errors(storage):
            stack.enter_context(storage.lock(lock_timeout))
            done = find_outcome(storage, AuditLog(storage).records(), idempotency_key, signer)
        yield _report(storage, done) if done else None


def find_outcome(
    storage: Storage, records: Iterable[Record], idempotency_key: str, signer: Key | None
) -> Record | None:
    """Return the outcome of the export with this key, from its manifest if a kill prevented the record.

    In an object store, its runs that have not published are aborted.
    """
    records = list(records)
    started = [
        record for record in records if record["event"] == "started" and record.get("request") == idempotency_key
    ]
    runs = {record.get("run") for record in started}
    if not runs:
        return None
    if not storage.has_locks:
        with AuditLog(storage).lock() as log:
            abort_runs(storage, log, started, signer)
    for run in filter(has_valid_stem, started):
        if manifest := read_committed(storage, run):
            return audit_summary(manifest) | {"key_id": manifest.key_id}
    return next((record for record in records if record["event"] == "committed" and record.get("run") in runs), None)


def _report(storage: Storage, done: Record) -> ExportReport:
    report = ExportReport.from_audit_summary(done)
    report.audit_head = AuditLog(storage).head()
    for path in (file["path"] for file in done["files"]):
        folder, _, name = path.rpartition("/")
        named = storage.uri(folder if name.startswith("part-") else path)
        if path.startswith(f"{REJECTED_FOLDER}/"):
            report.rejected_filename = named
        elif path.startswith(f"{ITEMS_FOLDER}/"):
            report.items_filename = named
        elif not path.startswith(f"{STATE_FOLDER}/"):
            report.export_filename = named
    return report
