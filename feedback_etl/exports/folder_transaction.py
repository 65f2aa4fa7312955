"""The transaction of an export to a folder, which has links, locks and staged files."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Self

from feedback_etl.errors import ExportFileError, FolderLockedError, UsageError
from feedback_etl.exports.audit import LockedAuditLog
from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.guards import require_consent, require_same_key
from feedback_etl.exports.layout import (
    REJECTED_FOLDER,
    candidate_stems,
    manifest_path,
    staged_path,
)
from feedback_etl.exports.recovery import recover, remove_replacements
from feedback_etl.exports.staged_file import StagedFile
from feedback_etl.exports.transaction import ExportTransaction, TransactionOptions
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.errors import explain_write_errors, refuse_links
from feedback_etl.storage.locks import lock_folder
from feedback_etl.storage.posix import make_private_folder, replacement_path
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url


class FolderTransaction(ExportTransaction):
    """Run an export to a folder as a transaction.

    The methods also raise FolderLockedError if others use the folder for too long.
    """

    def __init__(self, folder: str | Path, now: datetime, options: TransactionOptions = TransactionOptions()) -> None:  # noqa: B008  frozen
        refuse_unsupported_url(str(folder))
        if is_object_store(str(folder)):
            raise UsageError(f"{folder} is an object store: export_feedback and `feedback-etl export` write there.")
        self._folder = Path(folder)
        super().__init__(self._folder, now, options)
        self._manifest = StagedFile("manifest", FileFormat())

    def __enter__(self) -> Self:
        try:
            with explain_write_errors(self._folder):
                make_private_folder(self._folder)
                with self._log.lock() as log:
                    recover(self._folder, log, self._key)
                    require_same_key(self._folder, log, self._key, allow_new_key=self._options.allow_new_key)
                    require_consent(self._folder, log, self._options.consent)
                    self._read_tombstones(log)
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
                log.append("started", self._key, run=self._run, stem=stem, names=names, **self._options.audit_details)
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
        timeout = self._options.lock_timeout
        return nullcontext() if timeout is None else lock_folder(self._folder, timeout)

    def _check_preconditions(self) -> None:
        """Check for another key and for a sweep since the export began; the folder's lock is acquired."""
        with self._log.lock() as log:
            require_same_key(self._folder, log, self._key, allow_new_key=self._options.allow_new_key)
            self._require_no_sweep(log)
            remove_replacements(self._folder, log)
