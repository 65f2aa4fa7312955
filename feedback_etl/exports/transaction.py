"""The transaction of an export: reserve a name in the audit log, then commit or roll back."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Self, cast

import polars as pl

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.errors import ExportFileError, FolderLockedError
from feedback_etl.exports.cleanup import remove_replacements
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.exports.preconditions import Preconditions, TransactionOptions
from feedback_etl.exports.publication import create_publisher, require_parts
from feedback_etl.exports.recovery import recover
from feedback_etl.exports.uncommitted import ExportFiles, remove_erased
from feedback_etl.records.audit import AuditLog, LockedAuditLog
from feedback_etl.records.layout import STATE_KINDS, manifest_path
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.records.manifest_details import (
    CommittedFiles,
    ExportRun,
    ManifestDetails,
    audit_summary,
    build_manifest,
    locate_files,
)
from feedback_etl.records.tombstones import Tombstones
from feedback_etl.storage.base import LOCK_TIMEOUT
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.location import StorageLike, open_storage


class ExportTransaction:
    """Run an export as a transaction, as a context that commits or rolls back.

    with ExportTransaction("ml/feedback_training", now, TransactionOptions(key=key), form=FileFormat()) as export:
        export.write(pairs)
        published = export.commit(details=details)

    with ExportTransaction("s3://bucket/exports", now, TransactionOptions(key=key)) as export:
        ...  # workers write parts at layout.part_path(export.stem, ...)
        export.commit(parts, details)

    A record in the audit log reserves a stem, and the manifest, published last, makes the files an export. Whatever
    fails or interrupts it before removes the files; what a kill leaves, `recovery` removes at a later start.

    `publication` has two publishers, since two guarantees of a folder exist in no object store:

    - The folder's lock keeps erasures, sweeps and other exports away from the last check until the commit is recorded.
      Without a lock, the manifest is put on the condition that none exists, and the check is repeated afterwards: an
      erasure puts its tombstones first and lists the manifests afterwards, so that one of the two sees the other.
    - Links name complete files at the commit, fsynced in order, and can be withdrawn; the staged manifest's lock shows
      that its writer lives. Objects cannot be renamed, and whether a writer lives is unknown: parts are named before,
      and a roll-back takes the manifest's name, so that no late worker and no run that was considered dead can publish.

    Attributes:
        stem: The stem of the names of its files.
        tombstones, erasures: The tombstones when the export began, and the ids of their erasures.
        audit_head: The MAC of the record of the end.
    """

    def __init__(
        self,
        storage: StorageLike,
        now: datetime,
        options: TransactionOptions = TransactionOptions(),  # noqa: B008  frozen
        *,
        form: FileFormat | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Prepare the transaction.

        Args:
            storage, now, options: The storage, the time of the export, and further options.
            form, metadata: The format of the data file that this process writes; None if workers write parts.

        Raises:
            UsageError: One process would write the files, and the storage is an object store.
        """
        self._storage, self._now, self._options = open_storage(storage), now, options
        self._log, self._key, self._run = AuditLog(self._storage), options.key, secrets.token_hex(8)
        self._files = None if form is None else ExportFiles(self._storage, form, metadata)
        self._publisher = create_publisher(self._storage, self._run, self._files)
        self._preconditions = Preconditions(self._storage, options, self._run)
        self._ended = True
        self.stem = self.audit_head = ""
        self.erasures, self.tombstones = frozenset[str](), list[Tombstones]()

    def __enter__(self) -> Self:
        try:
            with explain_write_errors(self._storage):
                self._storage.create()
                with self._log.lock() as log:
                    recover(self._storage, log, self._key, [self._key])
                    self._reserve(log)
            return self
        except BaseException as error:
            self._leave(type(error))
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave(kind)

    def _reserve(self, log: LockedAuditLog) -> None:
        """Reserve a free stem with a record; retry if another record was appended meanwhile."""
        while True:
            # The last read of the log: any record that is put after it makes the put below conflict.
            lines, names = log.lines(), self._storage.names()
            self._preconditions.check_start(lines, names)
            self.erasures, self.tombstones = self._preconditions.erasures, self._preconditions.tombstones
            self.stem = self._publisher.find_free_stem(self._now, names, lines)
            announced = [*self._publisher.names(self.stem), manifest_path(self.stem)]
            details = {"stem": self.stem, "names": announced, **self._options.start_details}
            self._ended = False  # from here on it may have been recorded
            try:
                log.append_next("started", self._key, run=self._run, **details)
                break
            except FileExistsError:
                self._ended = True
        self._publisher.begin(self.stem)

    def write(self, rows: pl.DataFrame, kind: str = "pairs") -> None:
        """Add rows to the file of a kind, which the first of them creates: `links`, or one of `STATE_KINDS`.

        Rows of the kind `spool` may have to be suppressed: `spooled_frames` reads them. Pairs add the items they carry.
        """
        cast("ExportFiles", self._files).write(rows, kind)

    def write_rejected(self, rows: pl.DataFrame) -> None:
        """Add rows to the list of rejected rows."""
        self.write(rows, "rejected")

    def writer(self, kind: str) -> PartWriter:
        """Return the writer of the file of a kind, which counts rows and escaped texts."""
        return cast("ExportFiles", self._files).writers[kind]  # this process writes them

    def spooled_frames(self, *, keep: bool = False) -> Iterator[pl.DataFrame]:
        """Yield the spooled rows, and remove the spool unless they are to be read once more (`keep`)."""
        yield from self.writer("spool").frames(keep=keep)

    def commit(
        self,
        parts: Sequence[DataFile] = (),
        details: ManifestDetails = ManifestDetails(),  # noqa: B008  frozen
    ) -> CommittedFiles:
        """Publish the files, the manifest last; without pairs, rejected rows or a new state, publish nothing.

        Args:
            parts, details: The parts that workers wrote, in the order of their rows; details for the manifest.

        Raises:
            UsageError: Meanwhile there were exports of another key.
            FolderLockedError: Others lock the folder for too long.
            SupersededError: Meanwhile the run was aborted, or another run has continued its incremental series.
            ExportFileError: A part is not as it was written, or meanwhile there was a sweep, or an unknown erasure.
        """
        timeout, self._preconditions.rows_digest = self._options.lock_timeout, details.rows_digest
        with explain_write_errors(self._storage):
            files = self._files.complete() if self._files else list(parts)
            if details.is_state_new or any(file.kind not in STATE_KINDS for file in files):
                files = files if self._files else require_parts(self._storage, self.stem, files)
                with nullcontext() if timeout is None else self._storage.lock(timeout):
                    files = self._publish(self._remove_erased(files), details)
            else:
                files = []
                self._abort("committed", **audit_summary(self._build_manifest(files, details)))
        self._publisher.discard()
        return locate_files(self._storage, files, in_parts=self._files is None)

    def _remove_erased(self, files: Sequence[DataFile]) -> list[DataFile]:
        """Check the preconditions, and remove the rows of people who were erased since the export began."""
        self._check_preconditions()
        is_erased = self._preconditions.find_erased()
        return remove_erased(self._storage, files, self._files, is_erased) if is_erased else list(files)

    def _check_preconditions(self) -> None:
        with self._log.lock() as log:
            self._preconditions.check_commit(log.records())
            remove_replacements(self._storage, log)

    def _publish(self, files: list[DataFile], details: ManifestDetails) -> list[DataFile]:
        """Publish all files under one stem and record it, or none; if a name is taken, retry with the next stem."""
        while True:
            manifest = self._build_manifest(files, details)
            try:
                self._preconditions.check_series(self._log)
                manifest = self._publisher.publish(manifest)
                if not self._storage.has_locks:
                    self._check_preconditions()
                    manifest = self._preconditions.erase_since(manifest)
                with self._log.lock() as log:
                    self._end(log, "committed", **audit_summary(manifest), **self._preconditions.end_details)
                return manifest.files
            except BaseException as error:
                if self._ended:  # interrupted after the commit
                    raise
                self._publisher.withdraw()
                if self._files is None or not isinstance(error, FileExistsError):
                    raise
            with self._log.lock() as log:
                self._reserve(log)
            files = [replace(file, path=self.writer(file.kind).name) for file in files]

    def _build_manifest(self, files: list[DataFile], details: ManifestDetails) -> Manifest:
        stale = {"stale": True} if self._preconditions.has_erased and details.risk else {}
        details = details._replace(consent=list(self._options.consent), risk=details.risk | stale)
        run = ExportRun(self.stem, self._run, self._now, self._key)
        return build_manifest(details, run, files, self._log.head())

    def _leave(self, kind: type[BaseException] | None) -> None:
        """Remove what was not committed and record the end; the next start retries what fails."""
        try:
            self._publisher.discard()
        except BaseException:  # an interrupt may come at any point
            self._publisher.discard()
            raise
        finally:
            if not self._ended:
                with suppress(OSError, ExportFileError, FolderLockedError):
                    self._abort("failed", timeout=1, error=kind.__name__ if kind else "nothing was published")

    def _abort(self, event: str, /, timeout: float = LOCK_TIMEOUT, **details: Any) -> None:
        with self._log.lock(timeout) as log:
            started = next((record for record in log.records() if record.get("run") == self._run), None)
            if started is not None:  # else the stem may be that of another run
                self._publisher.abort(log, started)
                self._end(log, event, **details)

    def _end(self, log: LockedAuditLog, event: str, /, **details: Any) -> None:
        self.audit_head = log.append(event, self._key, run=self._run, stem=self.stem, **details)
        self._ended = True
