"""Writing a part of an export to its place: whole or not at all, and the same however often it is done."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Self

import polars as pl

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.catalog import read_object_manifest
from feedback_etl.exports.file_formats import FileFormat, RowWriter
from feedback_etl.exports.manifest import DataFile
from feedback_etl.storage.base import Storage
from feedback_etl.storage.errors import explain_staging_errors, explain_write_errors
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.storage.posix import create_private_file, hash_file
from feedback_etl.storage.whole_files import WholeFile


class PartFile:
    """A file that is made on this machine and then gets a name in a place; without rows, there is none.

    with PartFile(place, name, Form("parquet"), {}) as file:
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
                self._draft = self._stack.enter_context(self._place.draft(self._name))
                self._file = self._stack.enter_context(create_private_file(self._draft))
                self._rows = RowWriter(self._file, self._form, self._metadata)
            self._rows.append(frame)

    def publish(self, kind: str) -> list[DataFile]:
        """Give it its name, and say what it is; nothing where no row was added.

        A file that an earlier attempt has left under the name is as good, if it is the same.

        Raises:
            ExportFileError: It is another, or the place cannot take it.
        """
        if self._rows is None or self._file is None:
            return []
        with self._explained():
            self._rows.finish()
            written = self._rows.written
            self._file.sync(written.bytes, written.sha256)
            try:
                self._place.create(self._name, self._draft)
            except FileExistsError:
                self._require_same(written.bytes, written.sha256)
            self._require_open()
        return [DataFile(self._name, kind, self._rows.rows, written.bytes, written.sha256)]

    def _explained(self) -> AbstractContextManager[None]:
        """What went wrong, and where: a part for a store is made in the temporary folder of this machine."""
        return (
            explain_staging_errors(str(self._place))
            if isinstance(self._place, ObjectStorage)
            else explain_write_errors(self._place)
        )

    def _require_open(self) -> None:
        """Leave nothing in a store where the export has ended: whoever ended it has looked there before.

        In a folder nothing can be left: the folder of the parts is gone.
        """
        stem = self._name.split("/")[-2]
        manifest = read_object_manifest(self._place, stem) if isinstance(self._place, ObjectStorage) else None
        if manifest and self._name not in [file.path for file in manifest.files]:
            self._place.remove(self._name)
            raise ExportFileError(f"Meanwhile the export {stem} has ended: {self._name} was removed again.")

    def _require_same(self, size: int, digest: str) -> None:
        if self._place.described(self._name) != (size, digest):
            raise ExportFileError(
                f"{self._name} is there already, and of another content than this attempt gave: have all workers the "
                "same versions, and does a --query give the same rows in the same order each time (created_at and "
                "feedback_id tell all rows apart, and there is no now() in it)? Nothing was published."
            )


@contextmanager
def frames_in(place: Storage, waiting: DataFile) -> Iterator[Iterator[pl.DataFrame]]:
    """The rows of a file that waits, in order.

    It is read twice, for its digest first: a file that was cut off between two batches looks complete.

    Raises:
        ExportFileError: It is missing, or another than was written.
    """
    import pyarrow as pa

    with ExitStack() as stack:
        try:
            path = stack.enter_context(place.fetched(waiting.path))
            there = path.stat().st_size, hash_file(path)
        except FileNotFoundError:
            there = None
        if there != (waiting.bytes, waiting.sha256):
            raise ExportFileError(
                f"{waiting.path} is {'not as it was written' if there else 'missing'}, and {waiting.rows:,} rows wait "
                "in it: do all workers share the place? Nothing was published."
            )
        file = stack.enter_context(pa.OSFile(str(path)))
        stream = stack.enter_context(pa.ipc.open_stream(file))
        yield (pl.DataFrame(batch) for batch in stream)
