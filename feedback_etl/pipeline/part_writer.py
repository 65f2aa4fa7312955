"""Write a part of an export: whole or not at all, and idempotently."""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Self

import polars as pl

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.catalog import read_manifest
from feedback_etl.exports.file_formats import FileFormat, RowWriter
from feedback_etl.exports.incremental import SupersededError
from feedback_etl.exports.layout import earlier_seen_rows_path, small_classes_path
from feedback_etl.exports.manifest import DataFile
from feedback_etl.storage.base import Storage
from feedback_etl.storage.errors import explain_staging_errors, explain_write_errors
from feedback_etl.storage.posix import create_private_file, hash_file, write_private_file
from feedback_etl.storage.whole_files import WholeFile


class PartWriter:
    """Write a file locally, then publish it under its name; without rows, no file exists.

    with PartWriter(place, name, Form("parquet"), {}) as file:
        file.append(frame)
        written = file.publish("pairs")
    """

    def __init__(self, place: Storage, name: str, form: FileFormat, metadata: dict[str, str]) -> None:
        self._place, self._name, self._form, self._metadata = place, name, form, metadata
        self._stack = ExitStack()
        self._rows: RowWriter | None = None
        self._draft = Path()
        self._file: WholeFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows is not None:
            self._rows.abandon()
        self._stack.close()

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows."""
        if not frame.height:
            return
        with self._explained():
            if self._rows is None:
                self._draft = self._stack.enter_context(self._place.staging_path(self._name))
                self._file = self._stack.enter_context(create_private_file(self._draft))
                self._rows = RowWriter(self._file, self._form, self._metadata)
            self._rows.append(frame)

    @property
    def escaped_texts(self) -> dict[str, int]:
        """Return the number of escaped texts by column."""
        return dict(self._rows.escaped_texts) if self._rows else {}

    def publish(self, kind: str) -> list[DataFile]:
        """Publish the file under its name and return its description; nothing if no row was added.

        A file with the same content that an earlier attempt left under the name is accepted.

        Raises:
            ExportFileError: A file with other content has the name, or the file cannot be written.
        """
        if self._rows is None or self._file is None:
            return []
        with self._explained():
            self._rows.finish()
            written = self._rows.written
            self._file.sync(written.bytes, written.sha256)
            try:
                self._place.put_new(self._name, self._draft)
            except FileExistsError:
                self._require_same(written.bytes, written.sha256)
            self._require_open()
        return [DataFile(self._name, kind, self._rows.rows, written.bytes, written.sha256)]

    def _explained(self) -> AbstractContextManager[None]:
        """Report where writing failed: a part for an object store is written to the local temporary folder first."""
        return (
            explain_staging_errors(str(self._place))
            if self._place.local_path() is None
            else explain_write_errors(self._place)
        )

    def _require_open(self) -> None:
        """Remove the part from an object store if the export has ended, since its cleanup may have run before.

        In a local folder nothing can remain: the folder of the parts is gone.
        """
        stem = self._name.split("/")[-2]
        manifest = read_manifest(self._place, stem) if not self._place.has_locks else None
        if manifest and self._name not in [file.path for file in manifest.files]:
            self._place.delete(self._name)
            raise SupersededError(f"The export {stem} ended while the part was written: {self._name} was removed.")

    def _require_same(self, size: int, digest: str) -> None:
        if self._place.stat_with_digest(self._name) != (size, digest):
            raise ExportFileError(
                f"{self._name} exists with other content than this attempt wrote: nothing was published. Use the same "
                "versions on all workers, and a --query that returns the same rows in the same order each time "
                "(created_at and feedback_id are unique together, no now())."
            )


@contextmanager
def open_spooled_part(place: Storage, spooled: DataFile) -> Iterator[Iterator[pl.DataFrame]]:
    """Open the spooled rows of a part, in order.

    The file is read twice, first for its digest: one that was truncated between two batches looks complete.

    Raises:
        ExportFileError: The file is missing or was changed.
    """
    import pyarrow as pa

    with ExitStack() as stack:
        try:
            path = stack.enter_context(place.local_copy(spooled.path))
            there = path.stat().st_size, hash_file(path)
        except FileNotFoundError:
            there = None
        if there != (spooled.bytes, spooled.sha256):
            raise ExportFileError(
                f"{spooled.path} with {spooled.rows:,} spooled rows {'was changed' if there else 'is missing'}: "
                "nothing was published. Let all workers share the folder."
            )
        file = stack.enter_context(pa.OSFile(str(path)))
        stream = stack.enter_context(pa.ipc.open_stream(file))
        yield (pl.DataFrame(batch) for batch in stream)


def write_small_classes(place: Storage, stem: str, small: pl.DataFrame) -> None:
    """Write the equivalence classes that are too small to where workers find them."""
    name, content = small_classes_path(stem), io.BytesIO()
    small.write_ipc(content)
    with place.staging_path(name) as draft:
        write_private_file(draft, content.getvalue())
        place.put_new(name, draft)


def write_earlier_seen_rows(place: Storage, stem: str, seen_rows: pl.DataFrame) -> DataFile | None:
    """Write the seen rows of earlier exports to where workers find them: others may delete the files of those."""
    with PartWriter(place, earlier_seen_rows_path(stem), FileFormat(), {}) as file:
        file.append(seen_rows)
        return next(iter(file.publish("rows")), None)
