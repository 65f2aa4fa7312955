"""The files of an export: written privately under temporary names, then published whole or not at all.

A temporary file is made in the folder of its final name, 0600 from its first byte, and locked while its writer lives.
When it is complete and on disk, a hard link gives it its final name: a link never replaces what is there. If anything
fails before that, the temporary file is removed and the folder is as it was.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.csv import write_csv
from feedback_etl.exports.names import give_name
from feedback_etl.private_files import create_private_file, make_private_folder, sync_folder

REJECTED_FOLDER = "rejected"
_MOST_SUFFIXES = 10_000


class Published(NamedTuple):
    """Where the files of an export are; None for a file that was not needed."""

    pairs: Path | None
    rejected: Path | None


class _TemporaryCsv:
    """A CSV file that has no final name yet."""

    def __init__(self, folder: Path, stem: str) -> None:
        with _explained(folder):
            make_private_folder(folder)
            self.path = folder / f".{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
            self._file = open(create_private_file(self.path), "wb")  # noqa: SIM115  closed by `discard`
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.rows = 0
        self._begun = False

    def append(self, frame: pl.DataFrame) -> None:
        with _explained(self.path.parent):
            write_csv(frame, self._file, header=not self._begun)
        self._begun = True
        self.rows += frame.height

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        with suppress(OSError):  # what a full disk did not take is not wanted any more
            self._file.close()
        self.path.unlink(missing_ok=True)


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
        self._rejected: _TemporaryCsv | None = None

    def __enter__(self) -> Self:
        self._pairs = _TemporaryCsv(self._folder, self._stem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pairs.discard()
        if self._rejected is not None:
            self._rejected.discard()

    def append(self, pairs: pl.DataFrame) -> None:
        """Add rows to the data file."""
        self._pairs.append(pairs)

    def reject(self, rows: pl.DataFrame) -> None:
        """Add rows to the list of the rejected; the file is made with the first."""
        if rows.is_empty():
            return
        if self._rejected is None:
            self._rejected = _TemporaryCsv(self._folder / REJECTED_FOLDER, f"{self._stem}_rejected")
        self._rejected.append(rows)

    def publish(self) -> Published:
        """Give the files their final names, the data file last; without pairs there is none.

        A name that is taken gets the suffix `_1`, `_2`, ...; a symbolic link at a name is refused.
        """
        targets = [(self._rejected, self._folder / REJECTED_FOLDER, "_rejected.csv")]
        targets.append((self._pairs if self._pairs.rows else None, self._folder, ".csv"))
        with _explained(self._folder):
            for file, _, _ in targets:
                if file is not None:
                    file.sync()
            rejected, pairs = self._name_all(targets)
        return Published(pairs, rejected)

    def _name_all(self, targets: list[tuple[_TemporaryCsv | None, Path, str]]) -> list[Path | None]:
        """Publish all files under one stem, or none of them."""
        for number in range(_MOST_SUFFIXES):
            stem = f"{self._stem}_{number}" if number else self._stem
            named: list[tuple[Path, _TemporaryCsv]] = []
            try:
                for file, folder, ending in targets:
                    if file is not None:
                        give_name(file.path, folder / f"{stem}{ending}")
                        named.append((folder / f"{stem}{ending}", file))
                for path, _ in named:
                    sync_folder(path.parent)
            except BaseException as error:
                for path, _ in named:
                    path.unlink()
                if isinstance(error, FileExistsError):
                    continue
                raise
            return [folder / f"{stem}{ending}" if file is not None else None for file, folder, ending in targets]
        raise ExportFileError(f"{self._folder} holds {_MOST_SUFFIXES} exports of this second; no name is left.")


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EIO: "the disk reports an error",
}


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system says into one sentence."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise ExportFileError(
            f"Nothing was written to {folder}: {reason}. Choose another folder with --output."
        ) from None
