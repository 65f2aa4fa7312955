"""The files of an export: written privately under temporary names, then published whole or not at all.

A temporary file is made in the folder of its final name, 0600 from its first byte, and locked while its writer lives.
When it is complete and on disk, a hard link gives it its final name: a link never replaces what is there. If anything
fails before that, or somebody interrupts it, the temporary file is removed and the folder is as it was.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import polars as pl

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.csv import write_csv
from feedback_etl.private_files import (
    create_private_file,
    give_name,
    make_private_folder,
    sync_folder,
    take_name_back,
    temporary_path,
)

REJECTED_FOLDER = "rejected"
_MOST_SUFFIXES = 10_000


class Published(NamedTuple):
    """Where the files of an export are; None for a file that was not needed."""

    pairs: Path | None
    rejected: Path | None


class _TemporaryCsv:
    """A CSV file that has no final name yet."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder = folder
        self.path = temporary_path(folder, stem)
        self.rows = 0
        self._file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        if self._file is None:
            with _explained(self.folder):
                make_private_folder(self.folder)
                self._file = open(create_private_file(self.path), "wb")  # noqa: SIM115  closed by `discard`
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._file

    def append(self, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        with _explained(self.folder):
            write_csv(frame, self.open(), header=not self.rows)
        self.rows += frame.height

    def sync(self) -> None:
        file = self.open()
        file.flush()
        os.fsync(file.fileno())

    def discard(self) -> None:
        """Remove it, whatever state it is in; may be called again."""
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take is not wanted any more
                self._file.close()
        with suppress(OSError):
            self.path.unlink()


class ExportFiles:
    """The data file of one export and its list of rejected rows, as a context that leaves nothing half-done.

    with ExportFiles("ml/feedback_training", now) as files:
        files.append(pairs)
        published = files.publish()

    Every method raises ExportFileError if a folder or a file cannot be used; the message says which and why.
    """

    def __init__(self, folder: str | Path, now: datetime) -> None:
        self._folder = Path(folder)
        self._stem = f"feedback_training_{now:%Y%m%d_%H%M%S}"
        self._pairs = _TemporaryCsv(self._folder, self._stem)
        self._rejected = _TemporaryCsv(self._folder / REJECTED_FOLDER, f"{self._stem}_rejected")

    def __enter__(self) -> Self:
        try:
            self._pairs.open()  # a folder that cannot be used shows before the work is done
            return self
        except BaseException:
            self._discard()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        try:
            self._pairs.discard()
            self._rejected.discard()
        except BaseException:  # an interrupt may come at any point
            self._pairs.discard()
            self._rejected.discard()
            raise

    def append(self, pairs: pl.DataFrame) -> None:
        """Add rows to the data file."""
        self._pairs.append(pairs)

    def reject(self, rows: pl.DataFrame) -> None:
        """Add rows to the list of the rejected; the file is made with the first."""
        _refuse_links(self._rejected.folder)
        self._rejected.append(rows)

    def publish(self) -> Published:
        """Give the files their final names, the data file last; without rows a file gets none.

        A name that is taken gets the suffix `_1`, `_2`, ...; a symbolic link at a name is refused.
        """
        with _explained(self._folder):
            for file in (self._rejected, self._pairs):
                if file.rows:
                    file.sync()
            published = self._give_names()
        self._discard()
        return published

    def _give_names(self) -> Published:
        """Name all files under one stem, or none of them."""
        for number in range(_MOST_SUFFIXES):
            stem = f"{self._stem}_{number}" if number else self._stem
            pairs, rejected = self._folder / f"{stem}.csv", self._rejected.folder / f"{stem}_rejected.csv"
            _refuse_links(self._rejected.folder, pairs, rejected)
            if pairs.exists() or rejected.exists():
                continue
            files = [(file, path) for file, path in ((self._rejected, rejected), (self._pairs, pairs)) if file.rows]
            try:
                for file, path in files:
                    give_name(file.path, path)
                for file, _ in files:
                    sync_folder(file.folder)
            except BaseException as error:
                for file, path in files:
                    take_name_back(file.path, path)
                if not isinstance(error, FileExistsError):
                    raise
            else:
                return Published(pairs if self._pairs.rows else None, rejected if self._rejected.rows else None)
        raise ExportFileError(f"{self._folder} holds {_MOST_SUFFIXES} exports of this second; no name is left.")


def _refuse_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise ExportFileError(f"{path} is a symbolic link, which no export makes. Remove it and run again.")


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EIO: "the disk reports an error",
    errno.ENOTSUP: "its file system can neither link files nor rename them without replacing others",
}


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system says into one sentence."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise ExportFileError(
            f"Nothing was written to {folder}: {reason}. Choose another folder with --output."
        ) from None
