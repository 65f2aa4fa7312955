"""Recovery of dead runs in an object store: finish them if their manifest exists, or remove their objects.

An object store has no locks, so the liveness of a run on another host cannot be determined. A run without a manifest
is therefore left alone for a day. Then its manifest's name is taken, so that it can never commit, and its parts are
removed.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta

from feedback_etl.clock import resolve_now
from feedback_etl.exports.audit import AuditLog, LockedAuditLog
from feedback_etl.exports.audit_records import END_EVENTS, Record, compute_mac, has_valid_stem
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.layout import manifest_path, part_folders
from feedback_etl.exports.manifest import ABANDONED, DataFile, Manifest
from feedback_etl.exports.manifest_details import summarize_revisions
from feedback_etl.exports.rewrite import finish_rewrites, map_files, read_pseudonyms, remove_rows
from feedback_etl.exports.tombstones import hash_identity, list_digests
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.storage.base import ConflictError, Storage, Version

STALE_AFTER = timedelta(days=1)
"""The age at which a run without a manifest counts as dead."""


def recover_objects(storage: Storage, log: LockedAuditLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Finish or undo every export that was started and has not ended, and record it.

    Args:
        storage: The object store.
        log: Its log.
        signer: The key that signs audit records.
        keys: The available keys; an export of another key is finished by a process that has it.
    """
    records, by_id = log.records(), {get_key_id(key): key for key in [None, *keys]}
    ended = {record.get("run") for record in records if record["event"] in END_EVENTS}
    for number, record in enumerate(records):
        if record["event"] != "started" or record["run"] in ended or not _is_genuine(record, signer, by_id):
            continue
        is_swept = any(later.get("swept") for later in records[number:])
        manifest = _resolve_manifest(storage, log, record, is_swept=is_swept)
        if manifest is None or manifest.run != record["run"] or manifest.key_id not in by_id:
            continue
        key = by_id[manifest.key_id]
        with suppress(ConflictError):  # another process does the same, and records it
            if manifest.mode != ABANDONED:
                erase_digests(storage, manifest, list_digests(storage, key), key, signer)
            removed = remove_unlisted(storage, manifest.stem, manifest.files)
            outcome = "removed" if manifest.mode == ABANDONED else "committed"
            revisions = summarize_revisions([manifest])
            log.append("recovered", signer, run=record["run"], outcome=outcome, removed=removed, **revisions)


def abort_runs(storage: Storage, log: AuditLog, started: Iterable[Record], signer: Key | None) -> None:
    """Abort runs that have not committed, whatever their age, and delete their objects."""
    by_id = {get_key_id(key): key for key in (None, signer)}
    with log.lock() as opened:
        ended = {record.get("run") for record in opened.records() if record["event"] in END_EVENTS}
        for record in (run for run in started if run.get("run") not in ended and _is_genuine(run, signer, by_id)):
            manifest = read_manifest(storage, record["stem"]) or put_abort_marker(storage, record, opened)
            if manifest and manifest.run == record["run"] and manifest.mode == ABANDONED:
                removed = remove_unlisted(storage, manifest.stem, manifest.files)
                opened.append("recovered", signer, run=record["run"], outcome="removed", removed=removed)


def _is_genuine(record: Record, signer: Key | None, by_id: Mapping[str | None, Key | None]) -> bool:
    """Return whether a record is authentic, so that a forged one cannot make recovery delete objects."""
    key_id = record.get("key_id")
    if not has_valid_stem(record) or key_id not in by_id or (signer is not None and key_id is None):
        return False
    return bool(record["mac"] == compute_mac(record, by_id[key_id]))


def _resolve_manifest(storage: Storage, log: LockedAuditLog, started: Record, *, is_swept: bool) -> Manifest | None:
    """Return the manifest of an unfinished run; None if the run is left alone."""
    manifest, is_old = read_manifest(storage, started["stem"]), _get_age(started) > STALE_AFTER
    if manifest and manifest.run == started["run"] and manifest.mode != ABANDONED and is_swept:
        # A sweep may not have seen it. It looks for that itself, if it lives.
        if not is_old:
            return None
        storage.delete(manifest_path(manifest.stem))
        manifest = None
    return put_abort_marker(storage, started, log) if manifest is None and is_old else manifest


def erase_digests(
    storage: Storage, manifest: Manifest, digests: Iterable[str], key: Key | None, signer: Key | None
) -> int:
    """Remove the rows of erased people from the files of an export and return their number.

    Args:
        storage: The object store.
        manifest: The manifest of the export.
        digests: The digests of the pseudonyms of erased people.
        key: The key of the digests.
        signer: The key that signs the manifest.

    Raises:
        ConflictError: Another process does the same.
    """
    finish_rewrites(storage, manifest, signer)
    digests = {*digests}

    def find_unwanted(file: DataFile) -> tuple[DataFile, set[str]]:
        return file, {
            pseudonym
            for pseudonym in read_pseudonyms(storage, file)
            if hash_identity("pseudonym", pseudonym, key) in digests
        }

    searched = map_files(storage, manifest.files, find_unwanted) if digests else []
    unwanted = [(file, pseudonyms) for file, pseudonyms in searched if pseudonyms]
    removal = remove_rows(storage, manifest, unwanted, signer, dry_run=False)
    if removal.conflict:
        raise removal.conflict
    return sum(rows for _, rows in removal.rows)


def remove_unlisted(storage: Storage, stem: str, files: Iterable[DataFile] = ()) -> list[str]:
    """Delete objects in the folders of an export that are not its files, and return their names.

    The manifest exists already, so a worker that puts a part later finds it and deletes its part itself. After a crash
    the next start repeats this, since the run is not recorded as ended.
    """
    listed = {file.path for file in files}
    unlisted = [name for folder in part_folders(stem) for name in storage.list_files(folder) if name not in listed]
    if unlisted:
        storage.delete(*unlisted)
    return unlisted


def _get_age(started: Record) -> timedelta:
    return resolve_now() - datetime.fromisoformat(started["at"].removesuffix("Z"))


def find_unrecorded_keys(storage: Storage, records: Iterable[Record], key: Key | None) -> list[str | None]:
    """Return the key ids of exports with another key that are published and not yet recorded."""
    records, mine = list(records), get_key_id(key)
    ended = {record.get("run") for record in records if record["event"] in END_EVENTS}
    unfinished = [
        run for run in records if run["event"] == "started" and has_valid_stem(run) and run["run"] not in ended
    ]
    manifests = [(run, read_manifest(storage, run["stem"])) for run in unfinished if run["key_id"] != mine]
    return [
        manifest.key_id
        for run, manifest in manifests
        if manifest and manifest.run == run["run"] and manifest.mode != ABANDONED
    ]


def put_abort_marker(
    storage: Storage, started: Record, log: LockedAuditLog, if_match: Version | None = None
) -> Manifest | None:
    """Put an abort marker under the manifest's name; return None if a manifest was put first.

    A late worker finds the marker and deletes its part.
    """
    at = started["at"][:19]
    manifest = Manifest(
        stem=started["stem"],
        mode=ABANDONED,
        created_at=at,
        run=started["run"],
        window=[None, None],
        settings={},
        statistics={},
        columns=[],
        files=[],
        key_id=started["key_id"],
        scheme="",
        source="",
        tools={},
        audit_head=str(log.records()[-1]["mac"]),
        pruned_at=at,
    )
    try:
        name, content = manifest_path(manifest.stem), manifest.to_json().encode()
        if if_match is None:
            storage.put_new(name, content)
        else:
            storage.replace(name, content, if_match)
    except FileExistsError:
        return None
    return manifest
