"""The transaction of an export: reserve a name in the audit log, then commit or roll back.

`LocalExportTransaction` writes and publishes single files in a folder, `PartitionedExportTransaction` publishes parts
that workers have written there, and `ObjectExportTransaction` parts in an object store.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import LOG_TIMEOUT, AuditLog, LockedAuditLog
from feedback_etl.exports.audit_records import Record
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.guards import require_intact_log, require_recorded
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.manifest_details import ExportRun, ManifestDetails, build_manifest
from feedback_etl.exports.manifest_verification import LogEvidence, verify_manifest
from feedback_etl.exports.tombstone_verification import find_last_state, is_signed, require_state
from feedback_etl.exports.tombstones import (
    Tombstones,
    hash_identity,
    list_erased_since,
    list_erasures,
    read_content,
    read_tombstones,
)
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.storage.locks import LOCK_TIMEOUT


@dataclass(frozen=True, kw_only=True)
class TransactionOptions:
    """Options of a transaction.

    Attributes:
        key: The key of the pseudonyms; it signs the audit records. None for unkeyed exports.
        allow_new_key: Whether the folder may contain exports of another key.
        known_keys: Returns other keys of tombstones; called only if there are tombstones.
        consent: The consent columns that filtered the rows.
        audit_details: Further details of the audit record `started`.
        lock_timeout: Seconds to wait for the folder's lock; None if the caller has acquired it.
        continued: The stems of the exports that an incremental export continues; None for other exports.
        state: The manifest of the last of them, whose state it continues.
        own_pseudonyms: Whether the application computes the pseudonyms, so that no key finds a person's rows.
    """

    key: Key | None = None
    allow_new_key: bool = False
    known_keys: Callable[[], Sequence[Key]] = list
    consent: Sequence[str] = ()
    audit_details: Mapping[str, Any] = field(default_factory=dict)
    lock_timeout: float | None = LOCK_TIMEOUT
    continued: frozenset[str] | None = None
    state: Manifest | None = None
    own_pseudonyms: bool = False


class ExportTransaction:
    """Run an export as a transaction, as a context that commits or rolls back.

    Every method raises ExportFileError if a file or object cannot be used; the message says which and why.

    Attributes:
        stem: The stem of the names of its files.
        forgotten: The tombstones when the export began.
        erasures: The ids of their erasures.
        audit_head: The MAC of the record of the end.
    """

    def __init__(self, storage: StorageLike, now: datetime, options: TransactionOptions = TransactionOptions()) -> None:
        self._storage, self._now, self._options = open_storage(storage), now, options
        self._log = AuditLog(self._storage)
        self._key = options.key
        self._run = secrets.token_hex(8)
        self._ended = True
        self._has_erased = False
        self.stem = ""
        self.audit_head = ""
        self.erasures = frozenset[str]()
        self.forgotten: list[Tombstones] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind)

    def _leave(self, kind: type[BaseException] | None) -> None:
        """Remove what was not committed, and record the end."""
        raise NotImplementedError

    def _read_tombstones(self, log: LockedAuditLog) -> list[Record]:
        """Read who was erased before, which later erasures are compared with; return the verified records of the log.

        Raises:
            ExportFileError: The log was changed, or the tombstones differ from the state recorded in it.
        """
        lines, tombstones = log.lines(), read_content(self._storage)
        records = [line.record for line in lines if line.record is not None]
        require_state(self._storage, tombstones, find_last_state(records))
        signed = is_signed(self._storage, tombstones)
        require_intact_log(self._storage, lines, self._list_keys(records), signed=signed)
        self._require_intact_state(records)
        self.erasures = list_erasures(self._storage)
        if self.erasures:
            self.forgotten = read_tombstones(self._storage, [self._key, *self._options.known_keys()])
        return records

    def _require_intact_state(self, records: list[Record]) -> None:
        """Refuse to continue an incremental series from a manifest that was changed: rows could be left out."""
        state = self._options.state
        if state is None or not self._find_problem(state, records):
            return
        current = read_manifest(self._storage, state.stem)  # an erasure may have replaced it
        is_same = current is not None and current.chain == state.chain
        if problem := self._find_problem(current if current and is_same else state, records):
            raise ExportFileError(f"{problem}. Restore it, or begin a series in another folder (--output).")

    def _find_problem(self, manifest: Manifest, records: list[Record]) -> str:
        by_id = {key.id: key for key in self._list_keys(records)}
        problems = verify_manifest(manifest, LogEvidence.from_records(records), by_id)
        return next((problem.text for problem in problems if problem.is_certain), "")

    def _list_keys(self, records: Iterable[Record]) -> list[Key]:
        """Return the key, and the others that are known if the log names another."""
        own = [self._key] if self._key else []
        is_foreign = {record["key_id"] for record in records} - {None, get_key_id(self._key)}
        return [*own, *(self._options.known_keys() if is_foreign else ())]

    def _require_recorded(self, names: Iterable[str], records: Sequence[Record]) -> None:
        """Refuse to export if the log does not record an existing manifest."""
        keys = self._list_keys(records) if self._key else []
        require_recorded(self._storage, names, records, keys, allow_new_key=self._options.allow_new_key)

    def _require_no_sweep(self, log: LockedAuditLog) -> None:
        """Refuse to commit after a sweep, which compared only published files with the database."""
        records = log.records()
        start = next((number for number, record in enumerate(records) if record.get("run") == self._run), len(records))
        if any(record.get("swept") for record in records[start:]):
            raise ExportFileError(f"{self._storage} was swept meanwhile (erase --not-in-database): run again.")

    def _list_erased(self) -> frozenset[str]:
        """Return the digests of the pseudonyms erased since the export began.

        Raises:
            ExportFileError: They cannot be compared with the rows.
        """
        erased = list_erased_since(self._storage, self.erasures, self._key)
        if erased and self._options.own_pseudonyms:
            raise ExportFileError(
                "Meanwhile people were erased, and their rows are not found by pseudonyms that the application makes "
                "itself: run again."
            )
        self._has_erased = self._has_erased or bool(erased)
        return erased

    def _is_erased(self, pseudonym: str, erased: frozenset[str]) -> bool:
        return hash_identity("pseudonym", pseudonym, self._key) in erased

    def _build_manifest(self, files: list[DataFile], details: ManifestDetails) -> Manifest:
        stale = {"stale": True} if self._has_erased and details.risk else {}
        details = details._replace(consent=list(self._options.consent), risk=details.risk | stale)
        run = ExportRun(self.stem, self._run, self._now, self._key)
        return build_manifest(details, run, files, self._log.head())

    def _end(self, event: str, /, timeout: float = LOG_TIMEOUT, **details: Any) -> None:
        """Record how the run ended."""
        with self._log.lock(timeout) as log:
            self.audit_head = log.append(event, self._key, run=self._run, stem=self.stem, **details)
        self._ended = True
