"""Recovery of dead runs: remove only files that the log announced, never a committed export.

Every process that changes a folder holds the folder's lock. An object store has no locks: conditional puts order
concurrent processes, and `object_recovery` decides by the age of a run.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import LockedAuditLog
from feedback_etl.exports.audit_records import END_EVENTS, Record, has_valid_stem
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.layout import (
    PREFIX,
    REJECTED_FOLDER,
    STEM,
    export_paths,
    manifest_path,
    part_folders,
    staged_path,
)
from feedback_etl.exports.manifest import Manifest, parse_manifest
from feedback_etl.exports.object_recovery import recover_objects
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.storage.posix import hash_file, open_regular_file, read_regular_file, replacement_path

_PART = re.compile(r"\.?(part-\d{5,}|small_classes)\.[a-z.]+[a-z](\.\d+-[0-9a-f]+)?(\.tmp2?)?")
"""The names of parts, of the files that workers write them to, and of their replacements."""


def recover_storage(where: StorageLike, log: LockedAuditLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Finish or undo runs that died; in a folder, the caller has acquired its lock.

    Args:
        where: The storage.
        log: Its log, opened.
        signer: The key that signs audit records.
        keys: The available keys.
    """
    storage = open_storage(where)
    folder = storage.local_path()
    if folder is None:
        recover_objects(storage, log, signer, keys)
    else:
        recover(folder, log, signer)
        remove_replacements(folder, log)


def recover(folder: Path, log: LockedAuditLog, key: Key | None) -> None:
    """Finish or undo every export that was started and whose process is gone, and record it.

    Raises:
        OSError: A file cannot be removed.
    """
    records, leftovers = log.records(), _find_staged_stems(folder)
    ended = {record.get("run") for record in records if record["event"] in END_EVENTS}
    # A stem that a dead run has left may have become that of a later run: only the last one can own its files.
    started = {record["stem"]: record for record in records if record["event"] == "started" and has_valid_stem(record)}
    for record in started.values():
        is_open = record["run"] not in ended
        if (is_open or record["stem"] in leftovers) and not _is_alive(folder, record):
            removed = list(_remove_files(folder, record))
            outcome = "committed" if _find_manifest(folder, record) else "removed"
            if is_open or removed:
                log.append("recovered", key, run=record["run"], outcome=outcome, removed=removed)


def remove_replacements(folder: Path, log: LockedAuditLog) -> None:
    """Remove replacements whose writer died; the caller has acquired the folder's lock.

    Only the holder of the lock writes such files. Files that a worker left in a folder of published parts are removed
    as well.

    Raises:
        OSError: A file cannot be removed.
    """
    announced = {
        each["stem"] for each in log.records() if each["event"] in {"started", "adopted"} and has_valid_stem(each)
    }
    for stem in announced & _find_staged_stems(folder):
        for name in export_paths(stem):
            replacement_path(folder / name).unlink(missing_ok=True)
    for stem in announced:
        # Where the manifest is, workers that come too late have nothing to write any more, either.
        pattern = ".part-*.tmp*" if (folder / manifest_path(stem)).exists() else ".part-*.tmp2"
        for place in (folder / each for each in part_folders(stem) if (folder / each).is_dir()):
            for path in place.glob(pattern):
                path.unlink(missing_ok=True)


def _find_staged_stems(folder: Path) -> set[str]:
    """Return the stems of the staged files, of running and of killed exports."""
    places = (folder, folder / REJECTED_FOLDER, folder / STATE_FOLDER)
    names = [path.name for place in places for path in place.glob(f".{PREFIX}*.tmp*")]
    return {found[0] for name in names if (found := STEM.match(name[1:]))}


def _is_alive(folder: Path, started: Record) -> bool:
    """Return whether a process still locks the manifest of the run, staged or published."""
    manifest = folder / manifest_path(started["stem"])
    return any(map(_is_held, (staged_path(manifest), manifest)))


def _is_held(path: Path) -> bool:
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


def _find_manifest(folder: Path, started: Record) -> Manifest | None:
    """Return the published manifest of the run, or None."""
    with suppress(ExportFileError):
        manifest = read_manifest(open_storage(folder), started["stem"])
        return manifest if manifest and manifest.run == started["run"] else None
    return None


def _remove_files(folder: Path, started: Record) -> Iterator[str]:
    """Remove the announced files of a run that did not commit, and yield their names."""
    keep = _find_manifest(folder, started) is not None
    for name in export_paths(started["stem"]):
        path = folder / name
        if not keep and _belongs_to_run(path, folder / manifest_path(started["stem"])):
            path.unlink()
            yield name
    if not keep and all(name in started.get("names", ()) for name in part_folders(started["stem"])):
        yield from remove_parts(folder, started["stem"])
    # The manifest's temporary name goes last: it identifies the files of this run.
    for name in export_paths(started["stem"]):
        if staged_path(folder / name).is_file():
            staged_path(folder / name).unlink()
            yield staged_path(Path(name)).as_posix()


def remove_parts(folder: Path, stem: str) -> Iterator[str]:
    """Remove the parts of a run and its folders, unless these contain other files; yield the names of the parts.

    A folder first loses its name: a worker that still lives then finds none, and leaves nothing behind.

    Raises:
        OSError: A file cannot be removed.
    """
    for name in part_folders(stem):
        place = folder / name
        hidden = staged_path(place)
        refuse_links(place.parent, place, hidden)
        if place.is_dir():  # else it never existed, or a killed process had renamed it
            place.rename(hidden)
        for path in hidden.glob("*"):
            if _PART.fullmatch(path.name) and not path.is_symlink():
                path.unlink()
                yield f"{name}/{path.name}"
        if hidden.is_dir() and any(hidden.iterdir()):
            hidden.rename(place)
        elif hidden.is_dir():
            hidden.rmdir()


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
