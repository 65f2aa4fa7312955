"""Recovery of dead runs: finish those that committed, remove the files of the others, and record both.

Only files that the log announced are removed, never a committed export. In a folder a run locks its manifest, staged or
published, while it lives. An object store has no locks, so the liveness of a run on another host cannot be determined:
a run without a manifest is left alone for a day. Then its manifest's name is taken, so that it can never commit, and
its parts are removed.
"""

import fcntl
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from feedback_etl.clock import resolve_now
from feedback_etl.data_files.links import LINKED_KINDS, find_rows, read_links
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.cleanup import find_staged_stems, remove_parts, remove_replacements, remove_unlisted
from feedback_etl.exports.rewrite import finish_rewrites, map_files, read_pseudonyms, remove_rows
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.audit import LockedAuditLog
from feedback_etl.records.audit_records import Record, compute_mac, find_ends, has_valid_stem, is_swept_since
from feedback_etl.records.catalog import read_committed, read_manifest
from feedback_etl.records.layout import export_paths, manifest_path, part_folders, staged_path
from feedback_etl.records.manifest import ABANDONED, DataFile, Manifest, parse_manifest
from feedback_etl.records.manifest_details import build_abort_marker, summarize_revisions
from feedback_etl.records.tombstones import TombstoneFile, hash_identity
from feedback_etl.storage.base import ConflictError, Storage, Version
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.storage.posix import hash_file, open_regular_file, read_regular_file

STALE_AFTER = timedelta(days=1)
"""The age at which a run counts as dead where its liveness cannot be determined."""

WriterState = Enum("WriterState", "ALIVE DEAD UNKNOWN")
"""Whether the process of a run exists; unknown where there are no locks and the run is young."""


def recover_storage(where: StorageLike, log: LockedAuditLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Recover dead runs and remove replacements whose writer died; in a folder, the caller has acquired its lock."""
    storage = open_storage(where)
    recover(storage, log, signer, keys)
    remove_replacements(storage, log)


def recover(storage: Storage, log: LockedAuditLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Finish or undo every export whose process is dead, and record that, signed by `signer`.

    An export in an object store is finished by a process that has its key among `keys`.

    Raises:
        OSError: A file cannot be removed.
    """
    records, leftovers, by_id = log.records(), find_staged_stems(storage), _map_by_id(*keys)
    ends = find_ends(records)
    started = [record for record in records if record["event"] == "started" and has_valid_stem(record)]
    if not storage.has_locks:
        started = [record for record in started if _is_genuine(record, signer, by_id)]
    # A stem that a dead run has left may have become that of a later run: only the last one can own its files.
    for record in {record["stem"]: record for record in started}.values():
        is_open = record["run"] not in ends
        if is_open or record["stem"] in leftovers:
            details = (
                _recover_files(storage, record)
                if storage.has_locks
                else _recover_objects(storage, log, record, signer, by_id)
            )
            if details and (is_open or details["removed"]):
                log.append("recovered", signer, run=record["run"], **details)


def find_writer_state(storage: Storage, started: Record) -> WriterState:
    """Determine by the lock of its manifest whether the process of a run exists; without locks, by its age."""
    if storage.has_locks:
        manifest = Path(storage.uri(manifest_path(started["stem"])))
        is_alive = any(map(_is_locked, (staged_path(manifest), manifest)))
        return WriterState.ALIVE if is_alive else WriterState.DEAD
    age = resolve_now() - datetime.fromisoformat(started["at"].removesuffix("Z"))
    return WriterState.DEAD if age > STALE_AFTER else WriterState.UNKNOWN


def _is_locked(path: Path) -> bool:
    try:
        descriptor = open_regular_file(path, os.O_RDONLY | os.O_NOFOLLOW)
    except (OSError, ExportFileError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # NFS wants a file open for writing for the other one
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _recover_objects(
    storage: Storage, log: LockedAuditLog, started: Record, signer: Key | None, by_id: Mapping[str | None, Key | None]
) -> dict[str, Any] | None:
    """Finish a run that committed, or abort a dead one; return None if another process has to do that."""
    stem, run, is_dead = started["stem"], started["run"], find_writer_state(storage, started) is WriterState.DEAD
    manifest = read_manifest(storage, stem)
    if manifest and manifest.run == run and manifest.mode != ABANDONED and is_swept_since(log.records(), run):
        # A sweep may not have seen it. It looks for that itself, if it lives.
        if not is_dead:
            return None
        storage.delete(manifest_path(stem))
        manifest = None
    if manifest is None and is_dead:
        manifest = put_abort_marker(storage, started, log)
    if manifest is None or manifest.run != run or manifest.key_id not in by_id:
        return None
    key = by_id[manifest.key_id]
    with suppress(ConflictError):  # another process does the same, and records it
        if manifest.mode != ABANDONED:
            erase_digests(storage, manifest, TombstoneFile(storage).list_digests(key), key, signer)
        removed = remove_unlisted(storage, stem, manifest.files)
        outcome = "removed" if manifest.mode == ABANDONED else "committed"
        return {"outcome": outcome, "removed": removed, **summarize_revisions([manifest])}
    return None


def erase_digests(
    storage: Storage, manifest: Manifest, digests: Iterable[str], key: Key | None, signer: Key | None
) -> None:
    """Remove the rows of erased people, whose digests are under `key`, from the files of an export in an object store.

    Raises:
        ConflictError: Another process does the same.
    """
    finish_rewrites(storage, manifest, signer)
    digests, links = {*digests}, read_links(storage, manifest)

    def is_erased(pseudonym: str) -> bool:
        return hash_identity("pseudonym", pseudonym, key) in digests

    def find_unwanted(file: DataFile) -> tuple[DataFile, set[str]]:
        pseudonyms = read_pseudonyms(storage, file)
        if links is not None and file.kind in LINKED_KINDS:
            return file, pseudonyms & find_rows(links, is_erased)
        return file, set(filter(is_erased, pseudonyms))

    searched = map_files(storage, manifest.files, find_unwanted) if digests else []
    unwanted = [(file, pseudonyms) for file, pseudonyms in searched if pseudonyms]
    removal = remove_rows(storage, manifest, unwanted, signer, dry_run=False)
    if removal.conflict:
        raise removal.conflict


def abort_runs(storage: Storage, log: LockedAuditLog, started: Iterable[Record], signer: Key | None) -> None:
    """Abort runs in an object store that have not committed, at any age, and delete their objects."""
    by_id = _map_by_id(signer)
    ends = find_ends(log.records())
    for record in (run for run in started if run.get("run") not in ends and _is_genuine(run, signer, by_id)):
        manifest = read_manifest(storage, record["stem"]) or put_abort_marker(storage, record, log)
        if manifest and manifest.run == record["run"] and manifest.mode == ABANDONED:
            removed = remove_unlisted(storage, manifest.stem, manifest.files)
            log.append("recovered", signer, run=record["run"], outcome="removed", removed=removed)


def _map_by_id(*keys: Key | None) -> dict[str | None, Key | None]:
    return {get_key_id(key): key for key in (None, *keys)}


def _is_genuine(record: Record, signer: Key | None, by_id: Mapping[str | None, Key | None]) -> bool:
    """Return whether a record is authentic, so that a forged one cannot make recovery delete objects."""
    key_id = record.get("key_id")
    if not has_valid_stem(record) or key_id not in by_id or (signer is not None and key_id is None):
        return False
    return bool(record["mac"] == compute_mac(record, by_id[key_id]))


def put_abort_marker(
    storage: Storage, started: Record, log: LockedAuditLog, if_match: Version | None = None
) -> Manifest | None:
    """Put an abort marker under the manifest's name; return None if a manifest was put first.

    A late worker finds the marker and deletes its part.
    """
    manifest = build_abort_marker(started, str(log.records()[-1]["mac"]))
    name, content = manifest_path(manifest.stem), manifest.to_json().encode()
    try:
        if if_match is None:
            storage.put_new(name, content)
        else:
            storage.replace(name, content, if_match)
    except FileExistsError:
        return None
    return manifest


def _recover_files(storage: Storage, started: Record) -> dict[str, Any] | None:
    """Remove the announced files of a dead run that did not commit, and its staged files; return None if it lives."""
    if find_writer_state(storage, started) is WriterState.ALIVE:
        return None
    folder, stem, removed = Path(storage.absolute_uri()), started["stem"], list[str]()
    manifest = folder / manifest_path(stem)
    is_committed = False
    with suppress(ExportFileError):
        is_committed = read_committed(storage, started) is not None
    if not is_committed:
        for name in export_paths(stem):
            if _belongs_to_run(folder / name, manifest):
                (folder / name).unlink()
                removed.append(name)
        if all(name in started.get("names", ()) for name in part_folders(stem)):
            removed += remove_parts(folder, stem)
    # The manifest's temporary name goes last: it identifies the files of this run.
    for name in export_paths(stem):
        if staged_path(folder / name).is_file():
            staged_path(folder / name).unlink()
            removed.append(staged_path(Path(name)).as_posix())
    return {"outcome": "committed" if is_committed else "removed", "removed": removed}


def _belongs_to_run(path: Path, manifest: Path) -> bool:
    """Return whether a published file belongs to the run, by its staged link or by its staged manifest."""
    if path.is_symlink() or not path.is_file():
        return False
    if staged_path(path).exists():
        return path.samefile(staged_path(path))
    with suppress(ExportFileError, OSError):
        files = parse_manifest(read_regular_file(staged_path(manifest)), str(manifest)).files
        return any(path.as_posix().endswith(file.path) and hash_file(path) == file.sha256 for file in files)
    return False
