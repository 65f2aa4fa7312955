"""Removal of the files that an export leaves beside its committed ones: parts, staged files and replacements."""

import re
from collections.abc import Iterable
from pathlib import Path

from feedback_etl.records.audit import LockedAuditLog
from feedback_etl.records.audit_records import has_valid_stem
from feedback_etl.records.layout import (
    DATA_FOLDERS,
    PREFIX,
    STEM,
    export_paths,
    manifest_path,
    part_folders,
    staged_path,
)
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import STATE_FOLDER, Storage
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.posix import replacement_path

_PART = re.compile(r"\.?(part-\d{5,}|small_classes)\.[a-z.]+[a-z](\.\d+-[0-9a-f]+)?(\.tmp2?)?")
"""The names of parts, of the files that workers write them to, and of their replacements."""


def find_staged_stems(storage: Storage) -> set[str]:
    """Return the stems of the staged files in a folder, of running and of killed exports."""
    folders = [folder for name in ("", *DATA_FOLDERS, STATE_FOLDER) if (folder := storage.local_path(name))]
    names = [path.name for folder in folders for path in folder.glob(f".{PREFIX}*.tmp*")]
    return {match[0] for name in names if (match := STEM.match(name[1:]))}


def remove_parts(folder: Path, stem: str) -> list[str]:
    """Remove the parts of a run and its folders, unless these contain other files; return the names of the parts.

    A folder first loses its name: a worker that still lives then finds none, and leaves nothing behind.

    Raises:
        OSError: A file cannot be removed.
    """
    removed = list[str]()
    for name in part_folders(stem):
        part_folder = folder / name
        hidden = staged_path(part_folder)
        refuse_links(part_folder.parent, part_folder, hidden)
        if part_folder.is_dir():  # else it never existed, or a killed process had renamed it
            part_folder.rename(hidden)
        for path in hidden.glob("*"):
            if _PART.fullmatch(path.name) and not path.is_symlink():
                path.unlink()
                removed.append(f"{name}/{path.name}")
        if hidden.is_dir() and any(hidden.iterdir()):
            hidden.rename(part_folder)
        elif hidden.is_dir():
            hidden.rmdir()
    return removed


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


def remove_replacements(storage: Storage, log: LockedAuditLog) -> None:
    """Remove replacements whose writer died; the caller has acquired the folder's lock.

    Only the holder of the lock writes such files; objects have none. Files that a worker left in a folder of published
    parts are removed as well.

    Raises:
        OSError: A file cannot be removed.
    """
    folder = storage.local_path()
    if folder is None:
        return
    announced = {
        record["stem"]
        for record in log.records()
        if record["event"] in {"started", "adopted"} and has_valid_stem(record)
    }
    for stem in announced & find_staged_stems(storage):
        for name in export_paths(stem):
            replacement_path(folder / name).unlink(missing_ok=True)
    for stem in announced:
        # If the manifest exists, late workers have nothing to write, either.
        pattern = ".part-*.tmp*" if (folder / manifest_path(stem)).exists() else ".part-*.tmp2"
        for part_folder in (folder / name for name in part_folders(stem) if (folder / name).is_dir()):
            for path in part_folder.glob(pattern):
                path.unlink(missing_ok=True)
