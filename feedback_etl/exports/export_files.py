"""The files of an export that one process writes."""

from pathlib import Path

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.records.layout import (
    links_path,
    members_path,
    pending_path,
    rejected_path,
    seen_rows_path,
    spool_path,
)
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import Storage


class ExportFiles:
    """The files of an export that one process writes, and a spool.

    Attributes:
        writers: The writers by kind in the order of publication; last that of the spool, which is never published.
    """

    def __init__(self, storage: Storage, form: FileFormat, metadata: dict[str, str] | None) -> None:
        self._suffix = form.suffix
        state = {"rows": FileFormat(), "members": FileFormat("parquet"), "pending": FileFormat("parquet")}
        forms = state | {"rejected": FileFormat(), "links": FileFormat(), "pairs": form, "spool": FileFormat("arrow")}
        self.writers = {
            kind: PartWriter(storage, "", form, metadata if kind == "pairs" else None, is_announced=True)
            for kind, form in forms.items()
        }

    def names(self, stem: str) -> list[str]:
        """Return the names of the files that the log announces."""
        state = [seen_rows_path(stem), members_path(stem), pending_path(stem)]
        return [*state, rejected_path(stem), links_path(stem), f"{stem}{self._suffix}"]

    def move(self, stem: str) -> None:
        """Give the files the names of a stem."""
        for writer, name in zip(self.writers.values(), (*self.names(stem), spool_path(stem)), strict=True):
            writer.move(name)

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
