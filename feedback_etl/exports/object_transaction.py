"""The transaction of an export in an object store: workers put parts, and the manifest, put last, commits them.

An object store has no locks, so conditional puts, which succeed only if no object exists, order concurrent processes:
the record of the start reserves the stem, the manifest commits the export. An erasure puts its tombstones first and
lists the manifests afterwards; an export puts its manifest first and reads the tombstones afterwards. One of the two
therefore sees the other, and no erased person remains.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Self

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import LockedAuditLog
from feedback_etl.exports.audit_records import Record
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.guards import require_consent, require_same_key
from feedback_etl.exports.idempotency import DuplicateRequestError, find_outcome
from feedback_etl.exports.incremental import SupersededError, require_latest
from feedback_etl.exports.layout import candidate_stems, manifest_path, part_folders
from feedback_etl.exports.manifest import ABANDONED, DataFile, Manifest
from feedback_etl.exports.manifest_details import ManifestDetails, audit_summary
from feedback_etl.exports.object_recovery import (
    erase_digests,
    find_unrecorded_keys,
    put_abort_marker,
    recover_objects,
    remove_unlisted,
)
from feedback_etl.exports.rewrite import map_files, remove_rows_from_part
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.storage.base import STATE_FOLDER, ConflictError
from feedback_etl.storage.conditional_puts import require_conditional_puts

_RECOVERED = "Meanwhile the run was taken for dead, and its parts were removed: nothing was published. Run again."


class ObjectExportTransaction(ExportTransaction):
    """Run an export to an object store as a transaction: commit all parts or none.

    with ObjectExportTransaction(ObjectStorage("s3://bucket/exports"), now, options) as export:
        ...  # workers put parts at layout.part_path(export.stem, ...)
        export.commit(parts, details)

    A later run finishes or removes what a killed run leaves. Whether a run on another host is alive cannot be
    determined: a run of more than a day counts as dead, and cannot commit any more.
    """

    def __enter__(self) -> Self:
        with self._log.lock() as log:
            recover_objects(self._storage, log, self._key, [self._key])
            self._read_tombstones(log)
            try:
                self._announce(log)
            except BaseException as error:
                self._leave(type(error))
                raise
        return self

    def _announce(self, log: LockedAuditLog) -> None:
        """Reserve a stem with a record; retry if another record was appended meanwhile."""
        while True:
            self._require_same_key(log)
            require_consent(self._storage, log, self._options.consent)
            # The last read of the log: any record that is put after it makes the put below conflict.
            records = log.records()
            if not records:
                require_conditional_puts(self._storage, STATE_FOLDER)
            self._require_unasked(records)
            stem = self._free_stem(records)
            self.stem, names = stem, [*part_folders(stem), manifest_path(stem)]
            self._ended = False  # from here on it may have been recorded
            with suppress(FileExistsError):
                details = self._options.audit_details
                log.append_next("started", self._key, run=self._run, stem=stem, names=names, **details)
                return
            self._ended = True

    def _require_same_key(self, log: LockedAuditLog) -> None:
        """Refuse another key, also among concurrent exports: each puts its manifest before this check."""
        unrecorded = find_unrecorded_keys(self._storage, log.records(), self._key)
        require_same_key(
            self._storage, log, self._key, allow_new_key=self._options.allow_new_key, unrecorded=unrecorded
        )

    def _require_unasked(self, records: Sequence[Record]) -> None:
        """Abort unfinished runs with the same idempotency key; their records make this run read the log again.

        Raises:
            DuplicateRequestError: One of them has committed.
        """
        request = self._options.audit_details.get("request")
        if request is not None and find_outcome(self._storage, records, request, self._key):
            raise DuplicateRequestError("Meanwhile another run of the same request has published: ask for it again.")

    def _free_stem(self, records: Sequence[Record]) -> str:
        names, taken = self._storage.names(), {str(record.get("stem")) for record in records}
        self._require_recorded(names, records)
        for stem in candidate_stems(self._now):
            is_free = stem not in taken and not any(name.startswith(f"{stem}.") for name in names)
            if is_free and not self._storage.list_files(stem):
                return stem
        raise ExportFileError(f"{self._storage} holds too many exports of this second; no name is left.")

    def commit(self, parts: Sequence[DataFile], details: ManifestDetails = ManifestDetails()) -> None:  # noqa: B008
        """Put the manifest and delete unlisted objects; without parts, put an abort marker.

        Args:
            parts: The parts, in the order of their rows.
            details: Details for the manifest.

        Raises:
            UsageError: Meanwhile there were exports of another key.
            SupersededError: Meanwhile the run was aborted, or its incremental series was continued by another one.
            ExportFileError: A part is not as it was put, or meanwhile there was a sweep, or an erasure without this
                key: nothing was published.
        """
        if not parts:
            self._fence_off()
            self._end("committed", **audit_summary(self._build_manifest([], details)))
            return
        self._check_preconditions()
        parts = self._add_versions(parts)
        if erased := self._list_erased():
            is_erased = partial(self._is_erased, erased=erased)
            parts = map_files(self._storage, parts, lambda part: remove_rows_from_part(self._storage, part, is_erased))
        self._require_latest()
        manifest = self._put(self._build_manifest(list(parts), details))
        remove_unlisted(self._storage, self.stem, manifest.files)
        self._check_preconditions()
        self._end("committed", **audit_summary(self._erase_since(manifest)))

    def _require_latest(self) -> None:
        """Require that no other run has continued the same state of an incremental series."""
        if self._options.continued is not None:
            with self._log.lock() as log:
                require_latest(self._storage, log, self._run, self._options.continued, self._key)

    def _put(self, manifest: Manifest) -> Manifest:
        """Put the manifest as a new object and return the manifest that exists then."""
        try:
            manifest.version = self._storage.put_new(manifest_path(self.stem), manifest.to_json().encode())
        except FileExistsError:
            existing = read_manifest(self._storage, self.stem)
            if existing is None or existing.run != self._run or existing.mode == ABANDONED:
                raise SupersededError(_RECOVERED) from None
            return existing  # the answer was lost, and an erasure has replaced the manifest since
        return manifest

    def _check_preconditions(self) -> None:
        """Check for another key and for a sweep since the export began."""
        with self._log.lock() as log:
            self._require_same_key(log)
            self._require_no_sweep(log)

    def _add_versions(self, parts: Sequence[DataFile]) -> list[DataFile]:
        """Return the parts with their ETags.

        Raises:
            ExportFileError: One is missing, or has another size.
        """
        listed = {
            name: info for folder in part_folders(self.stem) for name, info in self._storage.list_files(folder).items()
        }
        if changed := [part for part in parts if part.path not in listed or listed[part.path].bytes != part.bytes]:
            raise ExportFileError(f"{changed[0].path} is not there, or not as it was put: nothing was published.")
        return [replace(part, etag=listed[part.path].version) for part in parts]

    def _erase_since(self, manifest: Manifest) -> Manifest:
        """Remove the rows of people erased while the manifest was put; return the manifest after that."""
        while erased := self._list_erased():
            try:
                erase_digests(self._storage, manifest, erased, self._key, self._key)
                break
            except ConflictError:  # the erasure rewrites the same files
                manifest = read_manifest(self._storage, self.stem) or manifest
        return manifest

    def _leave(self, kind: type[BaseException] | None) -> None:
        """Delete what was not committed and record the end; the next start retries what fails."""
        if self._ended:
            return
        with suppress(ExportFileError):
            if self._fence_off():
                self._end("failed", error=kind.__name__ if kind else "nothing was published")

    def _fence_off(self) -> bool:
        """Put an abort marker and delete the parts; return whether the stem belongs to this run."""
        with self._log.lock() as log:
            started = next((each for each in log.records() if each.get("run") == self._run), None)
            if started is None:
                return False  # the stem may be another's
            existing = read_manifest(self._storage, self.stem)
            if existing is None or (existing.run == self._run and existing.mode != ABANDONED):
                try:
                    put_abort_marker(self._storage, started, log, existing.version if existing else None)
                except ConflictError:  # an eraser has rewritten what is to be taken back
                    return self._fence_off()
        remove_unlisted(self._storage, self.stem)
        return True
