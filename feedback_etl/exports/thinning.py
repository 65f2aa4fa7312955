"""Rows that leave the files of an export: first its manifest says what a file is becoming, then the file is replaced.

Whatever interrupts that, the manifest tells both contents, and `settle` lets it tell the one that is there. In a folder
the lock is held. In an object store nobody can hold one: an object is replaced only if it is still the one that was
read, and so is a manifest; of two who rewrite the same export, one finds it `Changed` and begins again.
"""

import os
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.bucket import Bucket, Changed, Version
from feedback_etl.exports.catalogue import keep_manifest, manifest_at
from feedback_etl.exports.manifest import DataFile, Manifest, sha256_of
from feedback_etl.exports.names import rewritten
from feedback_etl.exports.place import Folder
from feedback_etl.exports.rewriting import pseudonyms_in, write_without
from feedback_etl.private_files import create_private_file, sync_folder, take_access


def leave_out(place: Folder | Bucket, manifest: Manifest, file: DataFile, unwanted: Set[str], *, dry_run: bool) -> int:
    """A file without the rows of some pseudonyms takes the place of the old one; how many rows it has less.

    Raises:
        OSError: It cannot be written.
        Changed: Somebody else has rewritten the file or the manifest.
    """
    if isinstance(place, Bucket):
        return _leave_out_of_object(place, manifest, file, unwanted, dry_run)
    path = place.path / file.path
    new = rewritten(path)
    new.unlink(missing_ok=True)  # of an erasure that was killed
    try:
        with open(create_private_file(new), "wb", buffering=0) as target:
            written, rows = write_without(path, path.name, unwanted, target)
            take_access(target.fileno(), path)
            os.fsync(target.fileno())
        if not dry_run:
            file.becoming = {"rows": rows, "bytes": written.bytes, "sha256": written.sha256}
            keep_manifest(place, manifest)
            new.replace(path)
            sync_folder(path.parent)
    finally:
        new.unlink(missing_ok=True)
    erased = file.rows - rows
    if not dry_run:
        settle(place, manifest)
    return erased


def settle(place: Folder | Bucket, manifest: Manifest) -> None:
    """Let the manifest say what is there, whether a file got its new content before a crash or not.

    What an object in a store is not, or not yet, it may still become: whoever began that may be at work.
    """
    if not any(file.becoming for file in manifest.files):
        return
    for file in manifest.files:
        if file.becoming and _digest_of(place, file) == file.becoming["sha256"]:
            _became(manifest, file)
        if not isinstance(place, Bucket):
            file.becoming = {}
    keep_manifest(place, manifest)


def _became(manifest: Manifest, file: DataFile, etag: str = "") -> None:
    manifest.risk |= {"stale": True} if manifest.risk else {}
    manifest.erased_rows += file.rows - file.becoming["rows"] if file.kind != "rows" else 0
    file.rows, file.bytes, file.sha256 = (file.becoming[name] for name in ("rows", "bytes", "sha256"))
    file.becoming, file.etag = {}, etag


def _digest_of(place: Folder | Bucket, file: DataFile) -> str:
    if not isinstance(place, Bucket):
        return sha256_of(place.path / file.path)
    with suppress(FileNotFoundError):  # pruned
        return place.described(file.path)[1]
    return ""


@contextmanager
def fetched_if_there(place: Folder | Bucket, name: str) -> Iterator[Path | None]:
    """A file of an export on this machine, to be read; None where it was pruned."""
    with ExitStack() as stack:
        path = None
        with suppress(FileNotFoundError):
            path = stack.enter_context(place.fetched(name))
        yield path if path and path.exists() else None


def pseudonyms_at(place: Folder | Bucket, file: DataFile) -> set[str]:
    """All pseudonyms in a file of an export; none where it was pruned.

    Raises:
        ExportFileError: It cannot be read.
    """
    with fetched_if_there(place, file.path) as path:
        try:
            return pseudonyms_in(path, path.name) if path else set()
        except ExportFileError:  # it tells of the copy
            where = place.address(file.path)
            raise ExportFileError(f"{where} cannot be read: it is damaged, or not what its name says.") from None


def thinned(bucket: Bucket, file: DataFile, unwanted: Set[str]) -> DataFile:
    """A part that no manifest tells of yet, without the rows of some pseudonyms."""
    with bucket.fetched_version(file.path) as (old, version), bucket.draft(file.path) as new:
        facts = _written_without(old, new, unwanted)
        etag = bucket.put(file.path, new, instead_of=version).etag
    return DataFile(file.path, file.kind, **facts, etag=etag)


def _leave_out_of_object(bucket: Bucket, manifest: Manifest, file: DataFile, unwanted: Set[str], dry_run: bool) -> int:
    with bucket.fetched_version(file.path) as (old, version), bucket.draft(file.path) as new:
        becoming = _written_without(old, new, unwanted)
        erased: int = file.rows - becoming["rows"]
        if dry_run:
            return erased
        file.becoming = becoming
        keep_manifest(bucket, manifest)
        version = bucket.put(file.path, new, instead_of=version)
    _became(manifest, file, version.etag)
    try:
        keep_manifest(bucket, manifest)
    except Changed:
        _tell_again(bucket, manifest.stem, file, becoming, version)
        raise
    return erased


def _written_without(old: Path, new: Path, unwanted: Set[str]) -> dict[str, Any]:
    with open(create_private_file(new), "wb") as target:
        written, rows = write_without(old, old.name, unwanted, target)
    return {"rows": rows, "bytes": written.bytes, "sha256": written.sha256}


def _tell_again(bucket: Bucket, stem: str, file: DataFile, becoming: dict[str, Any], version: Version) -> None:
    """Tell of an object that was replaced in the manifest that somebody else has written meanwhile."""
    is_told = False
    while not is_told and (manifest := manifest_at(bucket, stem)):
        now = next((each for each in manifest.files if each.path == file.path), None)
        there = bucket.listed(file.path.rpartition("/")[0]).get(file.path)
        if now is None or there != (becoming["bytes"], version.etag):
            return  # who has replaced it again tells what it is
        now.becoming = becoming
        _became(manifest, now, version.etag)
        with suppress(Changed):
            keep_manifest(bucket, manifest)
            is_told = True
