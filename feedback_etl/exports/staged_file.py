"""Files of an export before they are published."""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl

from feedback_etl.exports.file_formats import FileFormat, RowWriter
from feedback_etl.exports.layout import staged_path
from feedback_etl.exports.manifest import DataFile
from feedback_etl.exports.row_filter import list_pseudonyms, write_without
from feedback_etl.storage.posix import create_private_file, make_private_folder, replacement_path
from feedback_etl.storage.whole_files import WholeFile


class StagedFile:
    """Write a file of an export under a temporary name."""

    def __init__(self, kind: str, form: FileFormat, metadata: dict[str, str] | None = None) -> None:
        self.kind = kind
        self.path = Path()
        self._form, self._metadata = form, metadata
        self._file: WholeFile | None = None
        self._is_made = False
        self._rows: RowWriter | None = None

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self._rows.rows if self._rows else 0

    @property
    def escaped_texts(self) -> dict[str, int]:
        """Return the number of escaped texts by column."""
        return dict(self._rows.escaped_texts) if self._rows else {}

    def open(self) -> WholeFile:
        """Return the file, created by the first call and locked while it is open."""
        if self._file is None:
            make_private_folder(self.path.parent)
            self._is_made = True  # said before it is done: an interrupt may come at any point
            try:
                self._file = create_private_file(staged_path(self.path))
            except FileExistsError:
                self._is_made = False
                raise
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._file

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows."""
        if frame.height:
            if self._rows is None:
                self._rows = RowWriter(self.open(), self._form, self._metadata)
            self._rows.append(frame)

    def frames(self) -> Iterator[pl.DataFrame]:
        """Complete a spool and yield its frames in order."""
        import pyarrow as pa

        if self._rows is not None:
            self._rows.finish()
            with pa.OSFile(str(staged_path(self.path))) as file, pa.ipc.open_stream(file) as stream:
                rows = 0
                for batch in stream:
                    rows += batch.num_rows
                    yield pl.DataFrame(batch)
            if rows != self.rows:  # a stream that was cut off between two batches looks complete
                raise OSError(errno.EBADMSG, "a file does not contain what was written to it")

    def complete(self) -> None:
        """Complete the file and fsync it, verifying its content."""
        if self._rows is not None:
            self._rows.finish()
            self.open().sync(self._rows.written.bytes, self._rows.written.sha256)

    def described(self, folder: Path) -> DataFile:
        """Return the entry of the file in the manifest."""
        assert self._rows is not None  # noqa: S101  only files with rows are described
        written = self._rows.written
        return DataFile(self.path.relative_to(folder).as_posix(), self.kind, self.rows, written.bytes, written.sha256)

    def remove_rows(self, is_erased: Callable[[str], bool]) -> None:
        """Rewrite the file without the rows of erased people."""
        old = staged_path(self.path)
        unwanted = {pseudonym for pseudonym in list_pseudonyms(old, self.path.name) if is_erased(pseudonym)}
        if not unwanted or self._rows is None or self._file is None:
            return
        new = replacement_path(self.path)
        file = create_private_file(new)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._rows.written, self._rows.rows = write_without(old, self.path.name, unwanted, file)
            file.sync(self._rows.written.bytes, self._rows.written.sha256)
            new.replace(old)
        except BaseException:
            file.close()
            new.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = file

    def write_anew(self, content: bytes) -> None:
        """Replace the content of the file and fsync it."""
        self.open().fill(content)

    def move(self, path: Path) -> None:
        """Rename the staged file to that of another path."""
        if self._file is not None:
            staged_path(self.path).rename(staged_path(path))
        self.path = path

    def discard(self) -> None:
        """Remove the staged file and release its lock; idempotent."""
        if self._is_made:
            with suppress(OSError):
                staged_path(self.path).unlink()
        if self._rows is not None:
            self._rows.abandon()
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take is not wanted any more
                self._file.close()
