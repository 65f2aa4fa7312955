"""Transactions of exports to a folder, which has links, locks and staged files.

The parts of a partitioned export have their final names in `<stem>/` before its manifest is published last; no reader
takes them for an export until then. The name of a part depends on its time range only, so that a range that was read
twice is one part.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from feedback_etl.errors import ExportFileError, FolderLockedError, UsageError
from feedback_etl.exports.audit import LockedAuditLog
from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.guards import require_consent, require_same_key
from feedback_etl.exports.layout import (
    REJECTED_FOLDER,
    candidate_stems,
    export_paths,
    manifest_path,
    part_folders,
    staged_path,
)
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.manifest_details import ManifestDetails, audit_summary
from feedback_etl.exports.recovery import recover, remove_parts, remove_replacements
from feedback_etl.exports.rewrite import remove_rows_from_part
from feedback_etl.exports.staged_file import StagedFile
from feedback_etl.exports.transaction import ExportTransaction, TransactionOptions
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.errors import explain_write_errors, refuse_links
from feedback_etl.storage.locks import lock_folder
from feedback_etl.storage.posix import (
    fsync_directory,
    link_exclusive,
    make_private_folder,
    replacement_path,
    unlink_if_ours,
)
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
        self._is_published = False

    def __enter__(self) -> Self:
        try:
            with explain_write_errors(self._folder):
                make_private_folder(self._folder)
                with self._log.lock() as log:
                    recover(self._folder, log, self._key)
                    require_same_key(self._folder, log, self._key, allow_new_key=self._options.allow_new_key)
                    require_consent(self._folder, log, self._options.consent)
                    self._require_recorded(self._storage.names(), self._read_tombstones(log))
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

    def _publish(self, files: Sequence[StagedFile], manifest: Manifest) -> None:
        """Link staged files under their final names, the manifest last, and record it; after an error, unlink them.

        Raises:
            FileExistsError: A name is taken.
        """
        self._manifest.write_anew(manifest.to_json().encode())
        try:
            for file in (*files, self._manifest):
                refuse_links(file.path)
                link_exclusive(staged_path(file.path), file.path)
                fsync_directory(file.path.parent)
            self._is_published = True
            self._end("committed", **audit_summary(manifest))
        except BaseException:
            if not self._ended:  # else it was interrupted after the commit
                self._is_published = False
                for file in (self._manifest, *files):
                    unlink_if_ours(staged_path(file.path), file.path)
            raise

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


class PartitionedExportTransaction(FolderTransaction):
    """Run an export whose parts workers write as a transaction: commit all parts or none.

    with PartitionedExportTransaction("ml/feedback_training", now, TransactionOptions(key=key)) as export:
        ...  # workers write parts at layout.part_path(export.stem, ...)
        export.commit(parts, details)
    """

    def _names_of(self, stem: str) -> list[str]:
        return [*export_paths(stem), *part_folders(stem)]

    @property
    def _announced(self) -> list[str]:
        return part_folders(self.stem)

    def _begin(self) -> None:
        """Create the folders of the parts; workers create none, so that a late worker leaves nothing."""
        for folder in part_folders(self.stem):
            make_private_folder(self._folder / folder)

    def commit(self, parts: Sequence[DataFile], details: ManifestDetails = ManifestDetails()) -> None:  # noqa: B008
        """Publish the manifest; without parts, publish nothing.

        Args:
            parts: The parts, in the order of their rows.
            details: Details for the manifest.
        """
        with explain_write_errors(self._folder):
            if parts:
                self._require(parts)
                with self._locked():
                    self._check_preconditions()
                    if erased := self._list_erased():
                        is_erased = partial(self._is_erased, erased=erased)
                        parts = [remove_rows_from_part(self._storage, part, is_erased) for part in parts]
                    self._remove_all_but({part.path for part in parts})
                    self._publish([], self._build_manifest(list(parts), details))
            else:
                self._end("committed", **audit_summary(self._build_manifest([], details)))
        self._discard()

    def _require(self, parts: Sequence[DataFile]) -> None:
        """Require that the parts are in this folder, not on the disk of a worker."""
        missing = [part.path for part in parts if not _has_size(self._folder / part.path, part.bytes)]
        if missing:
            raise ExportFileError(
                f"{len(missing):,} of {len(parts):,} parts are not in {self._folder} as they were written: do all "
                "workers share it? Nothing was published."
            )

    def _remove_all_but(self, names: set[str]) -> None:
        """Delete the parts of abandoned attempts and spooled rows."""
        for folder in part_folders(self.stem):
            for path in (self._folder / folder).glob("*"):
                if f"{folder}/{path.name}" not in names:
                    path.unlink(missing_ok=True)
            if (self._folder / folder).is_dir():
                fsync_directory(self._folder / folder)
                _remove_if_empty(self._folder / folder)

    def _discard(self) -> None:
        if self.stem and not self._is_published:
            with suppress(OSError):  # the next start removes the rest
                list(remove_parts(self._folder, self.stem))
        super()._discard()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
