"""Publication of an export in a folder, which has locks and links, or in an object store, which has neither.

The order in which files get their final names is decided here; `storage/final_names.py` gives a local file its name.

`LocalPublisher` and `ObjectPublisher` have the same methods; `transaction.ExportTransaction` says why there are two.
"""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.cleanup import remove_parts, remove_unlisted
from feedback_etl.exports.recovery import put_abort_marker
from feedback_etl.exports.series_conflicts import SupersededError
from feedback_etl.exports.uncommitted import ExportFiles
from feedback_etl.records.audit import LockedAuditLog
from feedback_etl.records.audit_records import Line, Record
from feedback_etl.records.catalog import read_manifest
from feedback_etl.records.layout import (
    DATA_FOLDERS,
    candidate_stems,
    export_paths,
    manifest_path,
    part_folders,
    staged_path,
)
from feedback_etl.records.manifest import ABANDONED, DataFile, Manifest
from feedback_etl.storage.base import STATE_FOLDER, ConflictError, Storage
from feedback_etl.storage.conditional_puts import require_conditional_puts
from feedback_etl.storage.final_names import unlink_if_ours
from feedback_etl.storage.posix import (
    create_private_file,
    make_private_folder,
    replacement_path,
)
from feedback_etl.storage.whole_files import WholeFile


class LocalPublisher:
    """Publish in a folder: staged files and the manifest get their names by hard links, the manifest last."""

    def __init__(self, storage: Storage, files: ExportFiles | None) -> None:
        self._storage, self._files, self._stem = storage, files, ""
        self._folder = Path(storage.uri(""))
        self._manifest: WholeFile | None = None
        self._staged: Path | None = None
        self._is_published = False

    def names(self, stem: str) -> list[str]:
        """Return the names of the files of a stem, or the folders of its parts, that the log announces."""
        return self._files.names(stem) if self._files else part_folders(stem)

    def find_free_stem(self, now: datetime, names: Sequence[str], lines: Sequence[Line]) -> str:  # noqa: ARG002
        """Return a stem that no file has, hidden ones included; the log is locked, and a dead run's stem is free."""
        self._storage.refuse_links(*DATA_FOLDERS, STATE_FOLDER)
        for stem in candidate_stems(now):
            own_names = export_paths(stem) if self._files else [*export_paths(stem), *part_folders(stem)]
            self._storage.refuse_links(*own_names)
            paths = [self._folder / name for name in own_names]
            if not any(
                os.path.lexists(name) for path in paths for name in (path, staged_path(path), replacement_path(path))
            ):
                return stem
        raise ExportFileError(f"{self._folder} contains too many exports that began in this second: run again.")

    def begin(self, stem: str) -> None:
        """Create the staged manifest, whose lock shows that this process lives, and the folders of parts.

        Workers create no folder, so that a late worker leaves nothing.
        """
        self._stem, staged = stem, staged_path(self._folder / manifest_path(stem))
        if self._files:
            self._files.move(stem)
        else:
            for folder in part_folders(stem):
                make_private_folder(self._folder / folder)
        if self._staged is not None:
            self._staged.rename(staged)
        self._staged = staged  # before it exists: an interrupt may come at any point
        if self._manifest is None:
            try:
                self._manifest = create_private_file(staged)
            except FileExistsError:  # of another process
                self._staged = None
                raise
            fcntl.flock(self._manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def publish(self, manifest: Manifest) -> Manifest:
        """Link staged files and the manifest under their names; the folder is locked.

        Raises:
            FileExistsError: A name is taken; `withdraw` undoes the others.
        """
        assert self._manifest is not None  # noqa: S101  it was begun
        if self._files is None:
            remove_unlisted(self._storage, self._stem, manifest.files)
            for folder in (self._folder / name for name in part_folders(self._stem)):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        self._manifest.fill(manifest.to_json().encode())
        for name, staged in self._list_links():
            self._storage.put_new(name, staged)
        self._is_published = True
        return manifest

    def withdraw(self) -> None:
        """Undo `publish`, also after a part of it."""
        self._is_published = False
        for name, staged in reversed(self._list_links()):
            unlink_if_ours(staged, self._folder / name)

    def _list_links(self) -> list[tuple[str, Path]]:
        """Return the names of the files in the order of publication, with their staged paths."""
        assert self._staged is not None  # noqa: S101  it was begun
        return [*(self._files.staged() if self._files else ()), (manifest_path(self._stem), self._staged)]

    def abort(self, log: LockedAuditLog, started: Record) -> None:
        """Do nothing: `discard` removes the files, and a late worker finds no folder."""

    def discard(self) -> None:
        """Remove the staged files, and parts that were not published; idempotent."""
        if self._files:
            self._files.discard()
        elif self._stem and not self._is_published:
            with suppress(OSError):  # the next start removes the rest
                remove_parts(self._folder, self._stem)
        if self._staged is not None:
            with suppress(OSError):
                self._staged.unlink()
        if self._manifest is not None:
            with suppress(OSError):
                self._manifest.close()


class ObjectPublisher:
    """Publish in an object store: parts have their names before, and the manifest is put on a condition."""

    def __init__(self, storage: Storage, run: str) -> None:
        self._storage, self._run, self._stem = storage, run, ""

    def names(self, stem: str) -> list[str]:
        """Return the folders of the parts of a stem, which the log announces."""
        return part_folders(stem)

    def find_free_stem(self, now: datetime, names: Sequence[str], lines: Sequence[Line]) -> str:
        """Return a stem that neither an object nor a record has."""
        if not lines:
            require_conditional_puts(self._storage, STATE_FOLDER)
        taken = {str(line.record.get("stem")) for line in lines if line.record is not None}
        for stem in candidate_stems(now):
            is_free = stem not in taken and not any(name.startswith(f"{stem}.") for name in names)
            if is_free and not self._storage.list_files(stem):
                return stem
        raise ExportFileError(f"{self._storage} contains too many exports that began in this second: run again.")

    def begin(self, stem: str) -> None:
        """Take the stem, which the record of the start has reserved."""
        self._stem = stem

    def publish(self, manifest: Manifest) -> Manifest:
        """Put the manifest, delete unlisted objects, and return the manifest that exists then.

        Raises:
            SupersededError: The run was aborted.
        """
        try:
            manifest.version = self._storage.put_new(manifest_path(self._stem), manifest.to_json().encode())
        except FileExistsError:
            existing = read_manifest(self._storage, self._stem)
            if existing is None or existing.run != self._run or existing.mode == ABANDONED:
                raise SupersededError(
                    "Meanwhile another process considered this run dead and removed its parts: nothing was "
                    "published. Run again."
                ) from None
            manifest = existing  # the answer was lost, and an erasure has replaced the manifest since
        remove_unlisted(self._storage, self._stem, manifest.files)
        return manifest

    def withdraw(self) -> None:
        """Leave the manifest to `abort`, which replaces it."""

    def abort(self, log: LockedAuditLog, started: Record) -> None:
        """Put an abort marker and delete the parts; a late worker finds the marker and deletes its part."""
        existing = read_manifest(self._storage, started["stem"])
        if existing is None or (existing.run == self._run and existing.mode != ABANDONED):
            try:
                put_abort_marker(self._storage, started, log, existing.version if existing else None)
            except ConflictError:  # an eraser has rewritten what is to be rolled back
                self.abort(log, started)
                return
        remove_unlisted(self._storage, started["stem"])

    def discard(self) -> None:
        """Do nothing: staged files are in temporary folders."""


Publisher = LocalPublisher | ObjectPublisher


def create_publisher(storage: Storage, run: str, files: ExportFiles | None) -> Publisher:
    """Return the publisher of a storage.

    Raises:
        UsageError: One process writes the files, and the storage is an object store.
    """
    if storage.has_locks:
        return LocalPublisher(storage, files)
    if files is not None:
        raise UsageError(f"{storage} is an object store: export_feedback and `feedback-etl export` write there.")
    return ObjectPublisher(storage, run)


def require_parts(storage: Storage, stem: str, parts: Sequence[DataFile]) -> list[DataFile]:
    """Require that the parts are in this storage, not on the disk of a worker, and return them with their ETags.

    Raises:
        ExportFileError: One is missing, or has another size.
    """
    if not parts:
        return []
    listed = {name: info for folder in part_folders(stem) for name, info in storage.list_files(folder).items()}
    missing = [part.path for part in parts if part.path not in listed or listed[part.path].bytes != part.bytes]
    if missing:
        raise ExportFileError(
            f"{len(missing):,} of {len(parts):,} parts are not in {storage} as they were written ({missing[0]} is not "
            "there, or has another size): do all workers share it? Nothing was published."
        )
    return [replace(part, etag=storage.etag(listed[part.path].version)) for part in parts]
