"""The transaction of an export: reserve a name in the audit log, then commit or roll back.

`LocalExportTransaction` writes and publishes single files in a folder, `PartitionedExportTransaction` publishes parts
that workers have written there, and `ObjectExportTransaction` parts in an object store.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import LOG_TIMEOUT, AuditLog, LockedAuditLog
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.manifest_details import ExportRun, ManifestDetails, build_manifest
from feedback_etl.exports.tombstones import (
    Tombstones,
    find_last_state,
    hash_identity,
    list_erased_since,
    list_erasures,
    read_tombstones,
    require_state,
)
from feedback_etl.privacy.keys import Key
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
        own_pseudonyms: Whether the application computes the pseudonyms, so that no key finds a person's rows.
    """

    key: Key | None = None
    allow_new_key: bool = False
    known_keys: Callable[[], Sequence[Key]] = list
    consent: Sequence[str] = ()
    audit_details: Mapping[str, Any] = field(default_factory=dict)
    lock_timeout: float | None = LOCK_TIMEOUT
    continued: frozenset[str] | None = None
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

    def _read_tombstones(self, log: LockedAuditLog) -> None:
        """Read who was erased before, which later erasures are compared with.

        Raises:
            ExportFileError: The tombstones differ from the state recorded in the log.
        """
        require_state(self._storage, find_last_state(log.records()))
        self.erasures = list_erasures(self._storage)
        if self.erasures:
            self.forgotten = read_tombstones(self._storage, [self._key, *self._options.known_keys()])

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
