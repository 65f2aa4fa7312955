"""Row removal: the manifest first announces the new content of a file, then the file is replaced.

After an interruption the manifest contains both descriptions, and `finish_rewrites` keeps the one of the content that
exists. In a folder the caller holds the lock. In an object store, which has no locks, objects and manifests are
replaced only if they are still those that were read; of two processes that rewrite the same export, one gets a
`ConflictError` and starts again. There a manifest announces many files at once, each of which is then old or new.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from feedback_etl.data_files.row_filter import count_rows, list_pseudonyms, write_without
from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import read_manifest, replace_manifest
from feedback_etl.records.manifest import ADOPTED, COUNTED_KINDS, DataFile, Manifest
from feedback_etl.storage.base import ConflictError, Storage, Version
from feedback_etl.storage.posix import copy_access, create_private_file

_FILES_PER_MANIFEST = 16
"""Files that a manifest announces at once: their new contents are in the temporary folder meanwhile."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Unwanted = Sequence[tuple[DataFile, Set[str]]]
"""Files and the pseudonyms whose rows are to be removed."""


def map_files(storage: Storage, files: Sequence[Item], function: Callable[[Item], Result]) -> list[Result]:
    """Apply a function to each file, to as many at once as the storage suggests."""
    if storage.files_at_once == 1:
        return [function(file) for file in files]
    with ThreadPoolExecutor(storage.files_at_once) as pool:
        return list(pool.map(function, files))


class Removal(NamedTuple):
    """Contain the result of a removal of rows.

    Attributes:
        rows: The number of removed rows of each file that was rewritten; with `dry_run`, that would be.
        conflict: The error if another process had changed a file or the manifest; other files may not be done then.
    """

    rows: list[tuple[DataFile, int]]
    conflict: ConflictError | None = None


def remove_rows(
    storage: Storage, manifest: Manifest, unwanted: Unwanted, signer: Key | None, *, dry_run: bool
) -> Removal:
    """Replace files without the rows of the given pseudonyms, and update the manifest, signed by `signer`.

    The links of a shared export, by which its rows are found, come after all other files.

    Raises:
        OSError: A file cannot be written.
    """
    removed, size = list[tuple[DataFile, int]](), 1 if storage.files_at_once == 1 else _FILES_PER_MANIFEST
    try:
        for chunk in _divide(unwanted, size):
            rows, error = _rewrite(storage, manifest, chunk, signer, dry_run=dry_run)
            removed += rows
            if error is not None:
                raise error
    except ConflictError as conflict:
        return Removal(removed, conflict)
    return Removal(removed)


def _divide(unwanted: Unwanted, size: int) -> Iterator[Unwanted]:
    """Divide files into those that a manifest announces at once."""
    for _, entries in groupby(sorted(unwanted, key=_is_links), _is_links):
        while chunk := list(islice(entries, size)):
            yield chunk


def _is_links(entry: tuple[DataFile, Set[str]]) -> bool:
    return entry[0].kind == "links"


def finish_rewrites(storage: Storage, manifest: Manifest, signer: Key | None) -> None:
    """Update the manifest to the content that exists, whether a crash came before or after a replacement.

    In an object store an announced content that does not exist may still be put by a running process.
    """
    if not any(file.becoming for file in manifest.files):
        return
    for file in manifest.files:
        if file.becoming and _get_digest(storage, file) == file.becoming["sha256"]:
            _apply_replacement(manifest, file)
        if storage.has_locks:
            file.becoming = {}
    replace_manifest(storage, manifest, signer)


def _apply_replacement(manifest: Manifest, file: DataFile, etag: str = "") -> None:
    manifest.risk |= {"stale": True} if manifest.risk else {}
    manifest.erased_rows += file.rows - file.becoming["rows"] if file.kind in COUNTED_KINDS else 0
    file.rows, file.bytes, file.sha256 = (file.becoming[name] for name in ("rows", "bytes", "sha256"))
    file.becoming, file.etag = {}, etag


def _get_digest(storage: Storage, file: DataFile) -> str:
    with suppress(FileNotFoundError):  # pruned
        return storage.stat_with_digest(file.path)[1]
    return ""


@contextmanager
def fetch_if_present(storage: Storage, name: str) -> Iterator[Path | None]:
    """Provide a local copy of a file of an export; None if it was pruned."""
    with ExitStack() as stack:
        path = None
        with suppress(FileNotFoundError):
            path = stack.enter_context(storage.local_copy(name))
        yield path if path and path.exists() else None


def read_pseudonyms(storage: Storage, file: DataFile) -> set[str]:
    """Return all pseudonyms in a file of an export; none if it was pruned.

    Raises:
        ExportFileError: It cannot be read.
    """
    with fetch_if_present(storage, file.path) as path:
        try:
            return list_pseudonyms(path, path.name) if path else set()
        except ExportFileError:  # it names the copy
            where = storage.uri(file.path)
            raise ExportFileError(f"{where} cannot be read: it is damaged, or not what its name says.") from None


class _Draft(NamedTuple):
    """Contain a staged replacement of a file and the version that it replaces."""

    file: DataFile
    path: Path
    if_match: Version
    becoming: dict[str, Any]


def _rewrite(
    storage: Storage, manifest: Manifest, unwanted: Unwanted, signer: Key | None, *, dry_run: bool
) -> tuple[list[tuple[DataFile, int]], Exception | None]:
    """Return the number of removed rows of each replaced file, and the error of the first other one."""
    with ExitStack() as stack:
        drafts = map_files(storage, unwanted, lambda entry: _write_draft(storage, stack, manifest, *entry))
        removed = [(draft.file, draft.file.rows - draft.becoming["rows"]) for draft in drafts]
        if dry_run:
            return removed, None
        for draft in drafts:
            draft.file.becoming = draft.becoming
        replace_manifest(storage, manifest, signer)
        outcomes = map_files(storage, drafts, partial(_replace, storage))
    # Record the replaced files, also if others failed: those keep their announcement.
    done = [(draft, outcome) for draft, outcome in zip(drafts, outcomes, strict=True) if isinstance(outcome, Version)]
    _record_replacements(storage, manifest, done, signer)
    replaced = [draft.file for draft, _ in done]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    return [(file, rows) for file, rows in removed if file in replaced], next(iter(errors), None)


def _write_draft(storage: Storage, stack: ExitStack, manifest: Manifest, file: DataFile, unwanted: Set[str]) -> _Draft:
    new = stack.enter_context(storage.replacement_path(file.path))
    with storage.local_copy_version(file.path) as (old, version):
        if manifest.mode == ADOPTED:  # whose empty lines an earlier version has counted
            file.rows = count_rows(old)
        return _Draft(file, new, version, write_remaining(old, new, unwanted))


def _replace(storage: Storage, draft: _Draft) -> Version | Exception:
    try:
        return storage.replace(draft.file.path, draft.path, draft.if_match)
    except (OSError, ExportFileError) as error:
        return error


def write_remaining(old: Path, new: Path, unwanted: Set[str], *, name: str = "") -> dict[str, Any]:
    """Write a file without the rows of the given pseudonyms to the disk and describe it; its name gives its format."""
    with create_private_file(new) as target:
        written, rows = write_without(old, name or old.name, unwanted, target)
        copy_access(target.fileno(), old)
        target.sync(written.bytes, written.sha256)
    return {"rows": rows, "bytes": written.bytes, "sha256": written.sha256}


def _record_replacements(
    storage: Storage, manifest: Manifest, replaced: Sequence[tuple[_Draft, Version]], signer: Key | None
) -> None:
    """Record replaced files in the manifest; after a conflict, in the manifest that another process wrote."""
    for draft, version in replaced:
        _apply_replacement(manifest, draft.file, storage.etag(version))
    now: Manifest | None = manifest
    while replaced and now:
        try:
            replace_manifest(storage, now, signer)
            break
        except ConflictError:  # another process replaced the manifest: apply the replacements to that one
            now = read_manifest(storage, manifest.stem)
            replaced = _reapply(storage, now, replaced) if now else []


def _reapply(
    storage: Storage, manifest: Manifest, replaced: Sequence[tuple[_Draft, Version]]
) -> list[tuple[_Draft, Version]]:
    """Return the replacements that still exist unchanged, after applying them to the manifest."""
    files, applied = {file.path: file for file in manifest.files}, []
    existing = storage.stat_files(draft.file.path for draft, _ in replaced)
    for draft, version in replaced:
        path = draft.file.path
        if path in files and (info := existing.get(path)) and info[:2] == (draft.becoming["bytes"], version):
            files[path].becoming = draft.becoming
            _apply_replacement(manifest, files[path], storage.etag(version))
            applied.append((draft, version))
    return applied
