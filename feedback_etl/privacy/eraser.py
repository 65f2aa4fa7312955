"""Erase people from the exports of a folder or object store, and write tombstones that exclude them from later ones.

A folder is locked by the caller. In an object store the rewrite of an export is retried after a conflict.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from feedback_etl.exports.adoption import UNKNOWN_PSEUDONYMS, UNKNOWN_SCHEME, has_unknown_rows
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.exports.recovery import recover_storage
from feedback_etl.exports.rewrite import finish_rewrites, map_files, remove_rows
from feedback_etl.privacy.erasure_search import add_named_analyses, find_linked_rows, search_file
from feedback_etl.privacy.erasure_selection import ErasureRequest, map_pseudonyms
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.remaining_classes import Owners
from feedback_etl.privacy.small_classes import SmallClasses
from feedback_etl.privacy.uninspected_files import list_hard_links, list_not_inspected
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import CHAIN_START, Line, list_models, list_unfinished
from feedback_etl.records.audit_verification import require_untampered, verify_exports
from feedback_etl.records.catalog import fetch_digests, read_manifest
from feedback_etl.records.manifest import COUNTED_KINDS, Manifest
from feedback_etl.records.manifest_details import summarize_revisions
from feedback_etl.records.tombstones import TombstoneFile, add_tombstones, hash_identity
from feedback_etl.storage.base import ConflictError, Storage

_MAX_NAMES = 10


@dataclass
class ErasureResult:
    """Result of an erasure; with `dry_run`, what it would do.

    Attributes:
        rows: Rows that this call removed from the files: training pairs and rejected rows, with suppressed ones and
            those of other erasures whose tombstones it read: interrupted ones, in an object store also running ones.
        suppressed: Rows among them that were removed to keep k (`keep_k`).
        files: Files that contained such rows, by their paths in the folder.
        not_found: Given ids that no file contains and that were not erased before. In an object store, another erasure
            may have removed them a moment ago.
        without_key: Exports that could not be searched: their key is not available, or their application made the
            pseudonyms itself.
        unknown_scheme: Exports that could not be searched because `adopt` did not recognise their pseudonyms: people to
            erase may be in them.
        partly_searched: Adopted exports with rows that could not be searched, because `adopt` did not recognise their
            pseudonyms (which `not_in_database` removes), or they have none: people to erase may be in them.
        damaged: Files that could not be read, differ from their manifest, or are shared ones with rows of which no link
            names the analysis; they are left as they are.
        unmanaged: Data files without a manifest, which were not searched.
        not_inspected: All other files below the folder that are not of an export, by any name: copies,
            backups, archives. None of them was searched, and neither were links and unreadable folders.
        hard_links: Files of exports that had a second name elsewhere, under which the rows remain.
        unfinished: Exports in an object store that are still running: they exclude erased people when they are
            published. An export whose process was killed is removed a day after its start.
        models: Models that were trained on exports with such rows, by `record_training`: the rows are still in them.
        recipients: Recipients of shared exports with such rows: their copies still have the rows.
        digests: Digests of `files` as they are now.
        audit_head: MAC of the last record of the audit log.
    """

    rows: int = 0
    suppressed: int = 0
    files: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    without_key: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unmanaged: list[Path] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    not_inspected: list[str] = field(default_factory=list)
    unknown_scheme: list[str] = field(default_factory=list)
    partly_searched: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    audit_head: str = ""
    hard_links: list[str] = field(default_factory=list)

    def summarize_not_inspected(self) -> str:
        """Return the first names of `not_inspected`, and the number of the others."""
        others = f" and {len(self.not_inspected) - _MAX_NAMES:,} more (--json lists all)"
        return ", ".join(self.not_inspected[:_MAX_NAMES]) + (others if len(self.not_inspected) > _MAX_NAMES else "")


class Eraser:
    """One erasure; in a folder, the caller holds the lock."""

    def __init__(
        self,
        storage: Storage,
        keys: Sequence[Key],
        request: ErasureRequest,
        *,
        dry_run: bool,
        owners: Owners | None = None,
    ) -> None:
        self._storage, self._keys, self._request, self._dry_run = storage, keys, request, dry_run
        self._signing_keys: Sequence[Key | None] = keys or [None]
        self._owners, self._log, self._signer = owners, AuditLog(storage), keys[0] if keys else None
        self._result, self._found_ids, self._erased_from = ErasureResult(), set[str](), list[Manifest]()

    def run(self) -> ErasureResult:
        """Erase, and return the result."""
        with self._log.lock() as log:
            recover_storage(self._storage, log, self._signer, self._keys)
            lines = log.lines()
        exports, self._result.unmanaged = list_exports(self._storage)
        self._require_intact(lines, exports)
        keys: dict[str | None, Key | None] = {None: None} | {key.id: key for key in self._keys}
        tombstones = TombstoneFile(self._storage)
        self._found_ids = self._find_erased_before(tombstones)
        erased = {key_id: tombstones.list_digests(key) for key_id, key in keys.items()}
        self._request = add_named_analyses(self._storage, exports, self._request._replace(erased=erased), keys)
        if not self._dry_run:
            self._write_tombstones(tombstones)
            if not self._storage.has_locks:  # an export published before these tombstones has not read them
                if self._request.is_sweep:
                    self._log_start()
                exports = list_exports(self._storage).exports
                self._request = add_named_analyses(self._storage, exports, self._request, keys)
        self._small_classes = SmallClasses(self._storage, self._request, self._owners or (), exports)
        self._result.hard_links = list_hard_links(self._storage, exports)  # before a rewrite separates them
        for manifest in exports:
            if manifest.lookup_key in keys:
                self._erase_with_retry(manifest, keys[manifest.lookup_key])
            elif manifest.scheme == UNKNOWN_SCHEME:
                remains = not manifest.pruned_at or self._storage.stat_files(file.path for file in manifest.files)
                self._result.unknown_scheme += [manifest.stem] if remains else []
            else:
                self._result.without_key.append(manifest.stem)
        running = [run["stem"] for run in list_unfinished(self._log.records())]
        self._result.unfinished = [] if self._storage.has_locks else running
        self._result.not_inspected = list_not_inspected(self._storage, exports, self._result.unmanaged, running)
        self._result.not_found = [given for given in self._request.given_ids if given not in self._found_ids]
        changed = {*self._result.files}
        rewritten = [export for export in exports if not changed.isdisjoint(file.path for file in export.all("pairs"))]
        self._result.models = list_models(self._log.records(), [export.stem for export in rewritten])
        self._result.recipients = sorted({export.recipient for export in rewritten} - {""})
        if not self._dry_run:
            self._log_erasure()
        return self._result

    def _require_intact(self, lines: Sequence[Line], exports: Sequence[Manifest]) -> None:
        """Refuse to rewrite, and thereby to sign, what someone else may have changed."""
        if verify_exports(self._storage, lines, exports, self._keys).tampering:
            # Another process may have committed or erased while the log and the manifests were read.
            require_untampered(self._storage, self._keys, "erased")

    def _find_erased_before(self, tombstones: TombstoneFile) -> set[str]:
        """Return the given ids that have a tombstone."""
        erased = set[str]()
        users, analyses = self._request.users, self._request.analyses
        for key in self._signing_keys:
            digests = tombstones.list_digests(key)
            for user, given in users.items():
                erased |= given if hash_identity("user", user, key) in digests else set()
            for pseudonym, analysis in map_pseudonyms(analyses, key).items():
                erased |= analyses[analysis] if hash_identity("pseudonym", pseudonym, key) in digests else set()
        return erased

    def _write_tombstones(self, tombstones: TombstoneFile) -> None:
        """Write the tombstones before any file changes: a running export reads them before it is published."""
        users = list(self._request.users)
        requests = {key: self._request.with_key(key) for key in self._signing_keys}
        pseudonyms_by_key = {key: [*request.pseudonyms, *request.named] for key, request in requests.items()}
        if all(
            {hash_identity("user", user, key) for user in users}
            | {hash_identity("pseudonym", pseudonym, key) for pseudonym in pseudonyms}
            <= tombstones.list_digests(key)
            for key, pseudonyms in pseudonyms_by_key.items()
        ):
            return
        if self._log.head() == CHAIN_START:  # which would bind the tombstones to no folder
            self._log_start()
        erasure_id, head = secrets.token_hex(8), self._log.head()
        for key, pseudonyms in pseudonyms_by_key.items():
            add_tombstones(self._storage, erasure_id, users, pseudonyms, key, head=head)

    def _log_start(self) -> None:
        """Log the start: a sweep has no tombstones that a running export could read."""
        with self._log.lock() as log:
            log.append("erasing", self._signer, swept=self._request.is_sweep)

    def _log_erasure(self) -> None:
        result, tombstones = self._result, list(TombstoneFile(self._storage).state)
        result.digests = fetch_digests(self._storage, (export.stem for export in self._erased_from), result.files)
        with self._log.lock() as log:
            result.audit_head = log.append(
                "erased",
                self._signer,
                people=len(self._request.given_ids),
                swept=self._request.is_sweep,
                tombstones=tombstones,
                rows=result.rows,
                suppressed=result.suppressed,
                files=result.files,
                damaged=result.damaged,
                **summarize_revisions(self._erased_from),
            )

    def _erase_with_retry(self, manifest: Manifest, key: Key | None) -> None:
        """Erase from an export, and retry with its current manifest after a conflict."""
        current: Manifest | None = manifest
        while current:
            try:
                self._erase_from(current, key)
                break
            except ConflictError:
                current = read_manifest(self._storage, manifest.stem)

    def _erase_from(self, manifest: Manifest, key: Key | None) -> None:
        """Rewrite the files of an export that contain matching rows."""
        self._storage.refuse_links(*(file.path for file in manifest.files))
        finish_rewrites(self._storage, manifest, self._signer)
        request = self._request.with_key(key)
        linked = find_linked_rows(self._storage, manifest, request)
        search = partial(search_file, self._storage, request=request, linked=linked)
        matches = map_files(self._storage, manifest.files, search)
        matching = [(file, match) for file, match in zip(manifest.files, matches, strict=True) if match]
        if any(match.damaged for _, match in matching):
            self._require_current(manifest)
        unwanted = [(file, {*match.pseudonyms}) for file, match in matching if match.pseudonyms]
        damaged = (file.path for file, match in matching if match.damaged)
        self._result.damaged += [path for path in damaged if path not in self._result.damaged]
        self._found_ids.update(*(match.ids for _, match in matching))
        suppressed = 0
        if self._owners is not None and not self._result.damaged:
            suppressed = self._small_classes.add(manifest, unwanted, key)
        if self._request.is_sweep:  # which removes rows that are not in the database
            manifest.statistics.pop(UNKNOWN_PSEUDONYMS, None)
        removal = remove_rows(self._storage, manifest, unwanted, self._signer, dry_run=self._dry_run)
        for file, removed_rows in removal.rows:
            if file.kind in (*COUNTED_KINDS, "items"):
                self._result.files += [file.path] if file.path not in self._result.files else []
                self._result.rows += removed_rows if file.kind in COUNTED_KINDS else 0
        if removal.conflict:
            raise removal.conflict
        self._result.suppressed += suppressed
        self._erased_from.append(manifest)
        self._result.partly_searched += [manifest.stem] if has_unknown_rows(manifest) else []

    def _require_current(self, manifest: Manifest) -> None:
        """Raise ConflictError if another process replaced the manifest, so that files may differ from this one."""
        current = read_manifest(self._storage, manifest.stem)
        if current and current.version != manifest.version:
            raise ConflictError(f"The manifest of {manifest.stem} was changed meanwhile.")
