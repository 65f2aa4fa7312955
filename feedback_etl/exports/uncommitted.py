"""Remove the rows of people from the files of an export that is not committed yet."""

from collections.abc import Callable, Sequence

import polars as pl

from feedback_etl.exports.export_files import ExportFiles
from feedback_etl.exports.links import LINKED_KINDS, find_rows, join_links, scan_links
from feedback_etl.exports.rewrite import map_files, read_pseudonyms, write_remaining
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import Storage

IsErased = Callable[[str], bool]
"""Recognises the pseudonyms of erased analyses."""


def remove_erased(
    storage: Storage, files: Sequence[DataFile], staged: ExportFiles | None, is_erased: IsErased
) -> list[DataFile]:
    """Return completed files without the rows of erased people.

    Args:
        storage: The storage of the export.
        files: Its files.
        staged: The writers of the files if this process writes them; else they are parts.
        is_erased: Recognises the pseudonyms of erased analyses.
    """
    links = [_read_links(storage, file, staged) for file in files if file.kind == "links"]
    rows = find_rows(join_links(links), is_erased) if links else set[str]()

    def remove(file: DataFile) -> DataFile:
        is_unwanted = rows.__contains__ if links and file.kind in LINKED_KINDS else is_erased
        if staged is not None:
            return staged.writers[file.kind].remove_rows(file, is_unwanted)
        return remove_rows_from_part(storage, file, is_unwanted)

    return map_files(storage, files, remove)


def _read_links(storage: Storage, file: DataFile, staged: ExportFiles | None) -> pl.DataFrame:
    if staged is not None and (path := staged.writers[file.kind].staged):
        return scan_links(path)
    with storage.local_copy(file.path) as path:
        return scan_links(path)


def remove_rows_from_part(storage: Storage, part: DataFile, is_erased: Callable[[str], bool]) -> DataFile:
    """Return a part of an uncommitted export without the rows of erased people, rewritten if it contained any."""
    unwanted = {pseudonym for pseudonym in read_pseudonyms(storage, part) if is_erased(pseudonym)}
    if not unwanted:
        return part
    with storage.local_copy_version(part.path) as (old, version), storage.staging_path(part.path) as new:
        content = write_remaining(old, new, unwanted)
        version = storage.replace(part.path, new, if_match=version)
    return DataFile(part.path, part.kind, **content, etag=storage.etag(version))
