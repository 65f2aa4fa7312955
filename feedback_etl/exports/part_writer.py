"""Write a file of an export: whole or not at all, under a temporary name until it is published."""

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Self

import polars as pl

from feedback_etl.data_files.file_formats import FileFormat, RowWriter
from feedback_etl.data_files.row_filter import list_pseudonyms
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.rewrite import write_remaining
from feedback_etl.exports.series_conflicts import SupersededError
from feedback_etl.records.catalog import read_manifest
from feedback_etl.records.layout import DATA_FOLDERS, staged_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import create_private_file, make_private_folder
from feedback_etl.storage.whole_files import WholeFile


class PartWriter:
    """Write a file of an export; without rows, no file exists.

    with PartWriter(storage, name, FileFormat("parquet"), {}) as file:
        file.append(frame)
        written = file.publish("pairs")

    Attributes:
        name: The name that the file gets.
        staged: Its local path until then; None without rows.
        rows: The number of its rows.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        form: FileFormat,
        metadata: dict[str, str] | None = None,
        *,
        is_announced: bool = False,
    ) -> None:
        """Prepare to write a file; the metadata are those of a Parquet file.

        If the log announces the name (`is_announced`), recovery finds the file under its staged name; else the staged
        name is unique, and several attempts can write the same part at once.
        """
        self.name, self.rows = name, 0
        self.staged: Path | None = None
        self._storage, self._form, self._metadata, self._is_announced = storage, form, metadata, is_announced
        self._stack = ExitStack()
        self._file: WholeFile | None = None
        self._writer: RowWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows; the first ones create the file."""
        if frame.height:
            with self._explain_errors():
                if self._writer is None:
                    self._open()
                assert self._writer is not None  # noqa: S101  just opened
                self._writer.append(frame)
                self.rows += frame.height

    def _open(self) -> None:
        if self._is_announced:
            staged = staged_path(Path(self._storage.uri(self.name)))
            make_private_folder(staged.parent)
        else:
            staged = self._stack.enter_context(self._storage.staging_path(self.name))
        self.staged = staged  # before it exists: an interrupt may come at any point
        try:
            self._file = create_private_file(staged)
        except FileExistsError:  # of another process
            self.staged = None
            raise
        self._writer = RowWriter(self._file, self._form, self._metadata)

    def frames(self, *, keep: bool) -> Iterator[pl.DataFrame]:
        """Complete a spool, yield its frames in order, and remove it unless they are to be read once more (`keep`)."""
        if self._writer is not None:
            import pyarrow as pa

            self._writer.finish()
            with pa.OSFile(str(self.staged)) as file, pa.ipc.open_stream(file) as stream:
                rows = 0
                for batch in stream:
                    rows += batch.num_rows
                    yield pl.DataFrame(batch)
            if rows != self.rows:  # a stream that was cut off between two batches looks complete
                raise OSError(errno.EBADMSG, "a file does not contain what was written to it")
        if not keep:
            self.discard()

    def complete(self, kind: str) -> DataFile:
        """Complete a file with rows, fsync it, verify its content and describe it."""
        assert self._writer is not None and self._file is not None  # noqa: S101, PT018  it has rows
        self._writer.finish()
        written = self._writer.written
        self._file.sync(written.bytes, written.sha256)
        return DataFile(self.name, kind, self.rows, written.bytes, written.sha256)

    @property
    def escaped_texts(self) -> dict[str, int]:
        """Return the number of escaped texts by column."""
        return dict(self._writer.escaped_texts) if self._writer else {}

    def publish(self, kind: str) -> list[DataFile]:
        """Publish the file under its name and return its description; nothing if no row was added.

        A file with the same content that an earlier attempt left under the name is accepted.

        Raises:
            ExportFileError: A file with other content has the name, or the file cannot be written.
        """
        if self.staged is None:
            return []
        with self._explain_errors():
            part = self.complete(kind)
            try:
                self._storage.put_new(self.name, self.staged)
            except FileExistsError:
                self._require_same(part)
            self._require_open()
        return [part]

    def remove_rows(self, part: DataFile, is_erased: Callable[[str], bool]) -> DataFile:
        """Return the completed file without the rows of erased people, rewritten if it contained any."""
        assert self.staged is not None  # noqa: S101  it was completed
        unwanted = {pseudonym for pseudonym in list_pseudonyms(self.staged, self.name) if is_erased(pseudonym)}
        if not unwanted:
            return part
        with self._storage.replacement_path(self.name) as new:
            content = write_remaining(self.staged, new, unwanted, name=self.name)
            new.replace(self.staged)
        self.rows = content["rows"]
        return DataFile(self.name, part.kind, **content)

    def move(self, name: str) -> None:
        """Take another name."""
        if self.staged is not None:
            staged = staged_path(Path(self._storage.uri(name)))
            self.staged.rename(staged)
            self.staged = staged
        self.name = name

    def discard(self) -> None:
        """Remove the staged file; idempotent."""
        if self.staged is not None:
            with suppress(OSError):
                self.staged.unlink(missing_ok=True)
                self.staged = None
        if self._writer is not None:
            self._writer.abandon()
        if self._file is not None:
            with suppress(OSError):  # the disk may be full, and the file is removed anyway
                self._file.close()
        self._stack.close()

    def _explain_errors(self) -> AbstractContextManager[None]:
        folder = self.name.partition("/")[0]
        return self._storage.explain_write_errors(folder if folder in DATA_FOLDERS else "")

    def _require_open(self) -> None:
        """Remove the part from an object store if the export has ended, since its cleanup may have run before.

        In a local folder nothing can remain: the folder of the parts is gone.
        """
        stem = self.name.split("/")[-2]
        manifest = read_manifest(self._storage, stem) if not self._storage.has_locks else None
        if manifest and self.name not in [file.path for file in manifest.files]:
            self._storage.delete(self.name)
            raise SupersededError(f"The export {stem} ended while the part was written: {self.name} was removed.")

    def _require_same(self, part: DataFile) -> None:
        if self._storage.stat_with_digest(self.name) != (part.bytes, part.sha256):
            raise ExportFileError(
                f"{self.name} exists with other content than this attempt wrote: nothing was published. Use the same "
                "versions on all workers, and a query that returns the same rows in the same order each time "
                "(created_at and feedback_id are unique together, no now())."
            )
