"""The transaction of an export to a folder: reserve a name in the audit log, then commit or roll back.

`LocalExportTransaction` writes and publishes single files, `PartitionedExportTransaction` publishes parts
that workers have written.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from feedback_etl.errors import ExportFileError, FolderLockedError, UsageError
from feedback_etl.exports.audit import LOG_TIMEOUT, AuditLog, LockedAuditLog
from feedback_etl.exports.consent_guard import require_consent
from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.key_guard import require_same_key
from feedback_etl.exports.layout import (
    REJECTED_FOLDER,
    candidate_stems,
    manifest_path,
    staged_path,
)
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.manifest_details import ManifestDetails, build_manifest
from feedback_etl.exports.recovery import recover, remove_replacements
from feedback_etl.exports.staged_file import StagedFile
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
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.errors import explain_write_errors, refuse_links
from feedback_etl.storage.locks import LOCK_TIMEOUT, lock_folder
from feedback_etl.storage.posix import make_private_folder, replacement_path
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url


class ExportTransaction:
    """Run an export as a transaction, as a context that commits or rolls back.

    Every method raises ExportFileError if a folder or a file cannot be used (the message says which and why), and
    FolderLockedError if others use the folder for too long.

    Attributes:
        stem: The stem of the names of its files.
        forgotten: The tombstones when the export began.
        erasures: The ids of their erasures.
        audit_head: The MAC of the record of the end.
    """

    def __init__(
        self,
        folder: str | Path,
        now: datetime,
        *,
        key: Key | None = None,
        allow_new_key: bool = False,
        known_keys: Callable[[], Sequence[Key]] = list,
        consent: Sequence[str] = (),
        plan: Mapping[str, Any] = MappingProxyType({}),
        lock_timeout: float | None = LOCK_TIMEOUT,
        own_pseudonyms: bool = False,
    ) -> None:
        """Take the arguments of `export_feedback` and those below.

        known_keys: Returns other keys of tombstones; called only if there are tombstones.
        consent: The consent columns that filtered the rows.
        plan: Further details of the audit record `started`.
        lock_timeout: Seconds to wait for the folder's lock; None if the caller has acquired it.
        own_pseudonyms: Whether the application computes the pseudonyms, so that no key finds a person's rows.
        """
        refuse_unsupported_url(str(folder))
        if is_object_store(str(folder)):
            raise UsageError(f"{folder} is an object store: export_feedback and `feedback-etl export` write there.")
        self._folder = Path(folder)
        self._now, self._key, self._new_key, self._lock_timeout = now, key, allow_new_key, lock_timeout
        self._log = AuditLog(self._folder)
        self._own_pseudonyms = own_pseudonyms
        self._run = secrets.token_hex(8)
        self._manifest = StagedFile("manifest", FileFormat())
        self._ended = True
        self._has_forgotten = False
        self._consent = list(consent)
        self._known_keys, self._plan = known_keys, plan
        self.stem = ""
        self.audit_head = ""
        self.erasures = frozenset[str]()
        self.forgotten: list[Tombstones] = []

    def __enter__(self) -> Self:
        try:
            with explain_write_errors(self._folder):
                make_private_folder(self._folder)
                with self._log.lock() as log:
                    recover(self._folder, log, self._key)
                    require_same_key(self._folder, log, self._key, allow_new_key=self._new_key)
                    require_consent(self._folder, log, self._consent)
                    require_state(self._folder, find_last_state(log.records()))
                    self.erasures = list_erasures(self._folder)
                    if self.erasures:
                        self.forgotten = read_tombstones(self._folder, [self._key, *self._known_keys()])
                    self._announce(log)
            return self
        except BaseException as error:
            self._leave(type(error))
            raise

    def _announce(self, log: LockedAuditLog) -> None:
        """Reserve a free stem with a record and the staged file of the manifest."""
        refuse_links(*(self._folder / name for name in (REJECTED_FOLDER, STATE_FOLDER)))
        for stem in candidate_stems(self._now):
            paths = [self._folder / name for name in self._names_of(stem)]
            refuse_links(*paths)
            if not any(
                os.path.lexists(name) for path in paths for name in (path, staged_path(path), replacement_path(path))
            ):
                self.stem = stem
                names = [*self._announced, manifest_path(stem)]
                log.append("started", self._key, run=self._run, stem=stem, names=names, **self._plan)
                self._ended = False
                self._manifest.move(self._folder / manifest_path(stem))
                self._begin()
                self._manifest.open()
                return
        raise ExportFileError(f"{self._folder} holds too many exports of this second; no name is left.")

    def _names_of(self, stem: str) -> Iterable[str]:
        """Return the paths that have to be free for a stem."""
        raise NotImplementedError

    @property
    def _announced(self) -> list[str]:
        """Return the names that the log announces, without that of the manifest."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Prepare the files of a new stem."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind)

    def _leave(self, kind: type[BaseException] | None) -> None:
        """Remove what was not committed, and record the end."""
        try:
            self._discard()
        except BaseException:  # an interrupt may come at any point
            self._discard()
            raise
        finally:
            if not self._ended:
                with suppress(OSError, FolderLockedError):  # the next start records it
                    self._end("failed", timeout=1, error=kind.__name__ if kind else "nothing was published")

    def _discard(self) -> None:
        """Remove the staged files; idempotent."""
        self._manifest.discard()

    def _locked(self) -> AbstractContextManager[None]:
        """Return the folder's lock, unless the caller has acquired it."""
        return nullcontext() if self._lock_timeout is None else lock_folder(self._folder, self._lock_timeout)

    def _look_again(self) -> None:
        """Check for another key and for a sweep since the export began; the folder's lock is acquired."""
        with self._log.lock() as log:
            require_same_key(self._folder, log, self._key, allow_new_key=self._new_key)
            self._require_no_sweep(log)
            remove_replacements(self._folder, log)

    def _require_no_sweep(self, log: LockedAuditLog) -> None:
        """Refuse to commit after a sweep, which compared only published files with the database."""
        started = False
        for record in log.records():
            started = started or record.get("run") == self._run
            if not (started and record.get("swept")):
                continue
            raise ExportFileError("Meanwhile the folder was swept (erase --not-in-database): run again.")

    def _forgotten_meanwhile(self) -> Callable[[str], bool] | None:
        """Return a predicate of pseudonyms erased since the export began; None if there are none."""
        new = list_erased_since(self._folder, self.erasures, self._key)
        if not new:
            return None
        if self._own_pseudonyms:
            raise ExportFileError(
                "Meanwhile people were erased, and their rows are not found by pseudonyms that the application makes "
                "itself: run again."
            )
        self._has_forgotten = True
        return lambda pseudonym: hash_identity("pseudonym", pseudonym, self._key) in new

    def _described(self, files: list[DataFile], facts: ManifestDetails) -> Manifest:
        stale = {"stale": True} if self._has_forgotten and facts.risk else {}
        facts = facts._replace(consent=self._consent, risk=facts.risk | stale)
        return build_manifest(facts, self.stem, self._run, self._now, self._key, files, self._log.head())

    def _end(self, event: str, /, timeout: float = LOG_TIMEOUT, **facts: Any) -> None:
        """Record how the run ended."""
        with self._log.lock(timeout) as log:
            self.audit_head = log.append(event, self._key, run=self._run, stem=self.stem, **facts)
        self._ended = True
