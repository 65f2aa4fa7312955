"""Rows that leave the files of an export: first its manifest says what a file is becoming, then the file is replaced.

Whatever interrupts that, the manifest tells both contents, and `settle` lets it tell the one that is there. In a folder
the lock is held. In an object store nobody can hold one: an object is replaced only if it is still the one that was
read, and so is a manifest; of two who rewrite the same export, one finds it `Changed` and begins again. There a
manifest tells of many files at once what they are becoming, each of which is then one or the other.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.adoption import ADOPTED
from feedback_etl.exports.catalog import keep_manifest, manifest_at
from feedback_etl.exports.layout import folders_of, rewritten
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.exports.row_filter import count_rows, pseudonyms_in, write_without
from feedback_etl.storage.base import Folder
from feedback_etl.storage.object_store import Bucket, Changed, Version
from feedback_etl.storage.posix import create_private_file, sha256_of, sync_folder, take_access

_AT_ONCE = 4
"""How many objects are looked into or put at once: of each, the pseudonyms are in memory."""

_TOGETHER = 16
"""Of how many files a manifest tells at once what they are becoming: they are in the temporary folder meanwhile."""

Result = TypeVar("Result")


def looked_into(place: Folder | Bucket, files: Sequence[DataFile], look: Callable[[DataFile], Result]) -> list[Result]:
    """What a look into each of some files gives; several objects of a store are looked into at once."""
    if not isinstance(place, Bucket):
        return [look(file) for file in files]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(look, files))


def leave_out(
    place: Folder | Bucket, manifest: Manifest, unwanted: Sequence[tuple[DataFile, Set[str]]], *, dry_run: bool
) -> Iterator[tuple[DataFile, int]]:
    """Files without the rows of some pseudonyms take the place of the old ones; how many rows each has less.

    Raises:
        OSError: One cannot be written.
        Changed: Somebody else has rewritten a file or the manifest; those that were given before are done.
    """
    if not isinstance(place, Bucket):
        for file, pseudonyms in unwanted:
            yield file, _leave_out_of_file(place, manifest, file, pseudonyms, dry_run)
        return
    for start in range(0, len(unwanted), _TOGETHER):
        yield from _leave_out_of_objects(place, manifest, unwanted[start : start + _TOGETHER], dry_run)


def _leave_out_of_file(place: Folder, manifest: Manifest, file: DataFile, unwanted: Set[str], dry_run: bool) -> int:
    path = place.path / file.path
    if manifest.mode == ADOPTED:  # whose empty lines an earlier version has counted
        file.rows = count_rows(path)
    new = rewritten(path)
    new.unlink(missing_ok=True)  # of an erasure that was killed
    try:
        with create_private_file(new) as target:
            written, rows = write_without(path, path.name, unwanted, target)
            take_access(target.fileno(), path)
            target.sync(written.bytes, written.sha256)
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


class _Draft(NamedTuple):
    """What is to take the place of an object, and of which content of it."""

    file: DataFile
    path: Path
    instead_of: Version
    becoming: dict[str, Any]


def _leave_out_of_objects(
    bucket: Bucket, manifest: Manifest, unwanted: Sequence[tuple[DataFile, Set[str]]], dry_run: bool
) -> Iterator[tuple[DataFile, int]]:
    with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as pool:
        drafts = list(pool.map(lambda each: _drafted(bucket, stack, *each), unwanted))
        erased = [(draft.file, draft.file.rows - draft.becoming["rows"]) for draft in drafts]
        if dry_run:
            yield from erased
            return
        for draft in drafts:
            draft.file.becoming = draft.becoming
        keep_manifest(bucket, manifest)
        puts = [pool.submit(bucket.put, draft.file.path, draft.path, draft.instead_of) for draft in drafts]
        wait(puts)
    # Those that were replaced are told of, whatever became of the others: these go on becoming what was told.
    done = [number for number, put in enumerate(puts) if put.exception() is None]
    _tell(bucket, manifest, [(drafts[number], puts[number].result()) for number in done])
    yield from (erased[number] for number in done)
    for put in puts:
        put.result()


def _drafted(bucket: Bucket, stack: ExitStack, file: DataFile, unwanted: Set[str]) -> _Draft:
    new = stack.enter_context(bucket.draft(file.path))
    with bucket.fetched_version(file.path) as (old, version):
        return _Draft(file, new, version, _written_without(old, new, unwanted))


def _written_without(old: Path, new: Path, unwanted: Set[str]) -> dict[str, Any]:
    with create_private_file(new) as target:
        written, rows = write_without(old, old.name, unwanted, target)
        target.sync(written.bytes, written.sha256)
    return {"rows": rows, "bytes": written.bytes, "sha256": written.sha256}


def _tell(bucket: Bucket, manifest: Manifest, replaced: Sequence[tuple[_Draft, Version]]) -> None:
    """Tell of objects that were replaced; in the manifest that somebody else has written meanwhile, if there is one."""
    for draft, version in replaced:
        _became(manifest, draft.file, version.etag)
    now: Manifest | None = manifest
    while replaced and now:
        try:
            keep_manifest(bucket, now)
            break
        except Changed:  # that manifest is out of date from now on; whoever goes on with it begins again
            now = manifest_at(bucket, manifest.stem)
            replaced = _told_again(bucket, now, replaced) if now else []


def _told_again(
    bucket: Bucket, manifest: Manifest, replaced: Sequence[tuple[_Draft, Version]]
) -> list[tuple[_Draft, Version]]:
    """Those that still are what was put: who has replaced one again tells what it is."""
    files, told = {file.path: file for file in manifest.files}, []
    there = {name: each for folder in folders_of(manifest.stem) for name, each in bucket.listed(folder).items()}
    for draft, version in replaced:
        path = draft.file.path
        if path in files and there.get(path) == (draft.becoming["bytes"], version.etag):
            files[path].becoming = draft.becoming
            _became(manifest, files[path], version.etag)
            told.append((draft, version))
    return told
