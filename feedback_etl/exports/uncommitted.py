"""The files of an export that is not committed yet: those that one process writes, and removal of rows from them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.data_files.links import LINKED_KINDS, find_rows, join_links, scan_links
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.exports.rewrite import map_files, read_pseudonyms, write_remaining
from feedback_etl.records.layout import items_path, rejected_path, state_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import Storage
from feedback_etl.transform.items import explode_items, without_items

_IsErased = Callable[[str], bool]
"""Recognises the pseudonyms of erased analyses."""


class ExportFiles:
    """The files of an export that one process writes, and a spool.

    Attributes:
        writers: The writers by kind in the order of publication; last that of the spool, which is never published.
    """

    def __init__(self, storage: Storage, file_format: FileFormat, metadata: dict[str, str] | None) -> None:
        self._suffix = file_format.suffix
        state = {"rows": FileFormat(), "members": FileFormat("parquet"), "pending": FileFormat("parquet")}
        data = {"rejected": FileFormat(), "links": FileFormat(), "items": file_format, "pairs": file_format}
        self.writers = {
            kind: PartWriter(storage, "", format_, metadata if kind == "pairs" else None, is_announced=True)
            for kind, format_ in (state | data | {"spool": FileFormat("arrow")}).items()
        }

    def names(self, stem: str) -> list[str]:
        """Return the names of the files that the log announces."""
        state = [state_path(stem, kind) for kind in ("rows", "members", "pending")]
        data = [items_path(stem, self._suffix), f"{stem}{self._suffix}"]
        return [*state, rejected_path(stem), state_path(stem, "links"), *data]

    def move(self, stem: str) -> None:
        """Give the files the names of a stem."""
        for writer, name in zip(self.writers.values(), (*self.names(stem), state_path(stem, "spool")), strict=True):
            writer.move(name)

    def write(self, rows: pl.DataFrame, kind: str) -> None:
        """Add rows to the file of a kind; pairs add the items that they carry to a file of their own."""
        if kind == "pairs":
            self.writers["items"].append(explode_items(rows))
            rows = without_items(rows)
        self.writers[kind].append(rows)

    def complete(self) -> list[DataFile]:
        """Complete the files that have rows, and describe them in the order of publication."""
        return [writer.complete(kind) for kind, writer in self._written().items()]

    def staged(self) -> list[tuple[str, Path]]:
        """Return the names of the files that have rows, in the order of publication, with their staged paths."""
        return [(writer.name, writer.staged) for writer in self._written().values() if writer.staged]

    def _written(self) -> dict[str, PartWriter]:
        return {kind: writer for kind, writer in self.writers.items() if writer.staged and kind != "spool"}

    def discard(self) -> None:
        """Remove the staged files; idempotent."""
        for writer in self.writers.values():
            writer.discard()


def remove_erased(
    storage: Storage, files: Sequence[DataFile], staged: ExportFiles | None, is_erased: _IsErased
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


def remove_rows_from_part(storage: Storage, part: DataFile, is_erased: _IsErased) -> DataFile:
    """Return a part of an uncommitted export without the rows of erased people, rewritten if it contained any."""
    unwanted = {pseudonym for pseudonym in read_pseudonyms(storage, part) if is_erased(pseudonym)}
    if not unwanted:
        return part
    with storage.local_copy_version(part.path) as (old, version), storage.staging_path(part.path) as new:
        content = write_remaining(old, new, unwanted)
        version = storage.replace(part.path, new, if_match=version)
    return DataFile(part.path, part.kind, **content, etag=storage.etag(version))
