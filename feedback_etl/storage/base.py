"""Where exports are: a folder of this machine, or a prefix of an object store.

Names are paths in the place, with `/` between their parts, as a manifest has them. Whoever writes a training set anew,
removes or looks at it needs no more than this; how an export gets there is another matter, since a folder has locks and
links, and an object store has neither.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.storage.posix import (
    fsync_directory,
    hash_file,
    link_exclusive,
    make_private_folder,
    open_private_file,
    temporary_path,
)
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url


class Storage(Protocol):
    """What a folder and an object store have in common."""

    def exists(self) -> bool:
        """Whether there is a folder, or anything in a store."""

    def names(self, folder: str = "") -> list[str]:
        """The files in a folder of it (itself unless one is named), sorted; hidden ones aside."""

    def folders(self) -> list[str]:
        """The folders in it, hidden ones aside."""

    def present(self, names: Iterable[str]) -> set[str]:
        """Those of some names that are there."""

    def address(self, name: str) -> str:
        """Where a file is, as Polars takes it."""

    def read(self, name: str) -> bytes:
        """The content of a small file.

        Raises:
            FileNotFoundError: There is none.
        """

    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """A file on this machine, as long as the context lasts: to be read only."""

    def draft(self, name: str) -> AbstractContextManager[Path]:
        """A path of this machine at which to make a file that is to get a name here; what is left of it is removed."""

    def create(self, name: str, source: Path) -> None:
        """Give a file that was made in a `draft`, complete and on disk, its name here; never replaces another.

        Raises:
            FileExistsError: The name is taken; in a store, by something else.
        """

    def described(self, name: str) -> tuple[int, str]:
        """The size and the digest (SHA-256) of a file.

        Raises:
            FileNotFoundError: There is none.
        """

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there needs no removal."""

    def grow(self, name: str, content: bytes) -> None:
        """Add lines to a file that only ever grows; kept for good when this returns."""

    def grown(self, name: str) -> bytes:
        """All lines of a file that only ever grows; nothing where there is none."""


class LocalStorage:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether it is there."""
        return self.path.is_dir()

    def present(self, names: Iterable[str]) -> set[str]:
        """Those of some names that are there."""
        return {name for name in names if (self.path / name).exists()}

    def address(self, name: str) -> str:
        """Its path."""
        return str(self.path / name)

    def names(self, folder: str = "") -> list[str]:
        """The files in a folder of it, sorted; hidden ones aside."""
        place = self.path / folder
        return sorted(path.relative_to(self.path).as_posix() for path in place.glob("[!.]*") if path.is_file())

    def folders(self) -> list[str]:
        """The folders in it, hidden ones aside."""
        return sorted(path.name for path in self.path.glob("[!.]*") if path.is_dir())

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """The file itself."""
        yield self.path / name

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """A hidden path beside it, that nobody else chooses."""
        path = self.path / name
        refuse_links(*(each for each in path.parents if each.is_relative_to(self.path) and each != self.path))
        draft = temporary_path(path.parent, path.name)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def create(self, name: str, source: Path) -> None:
        """Link it, so that it is there whole or not at all."""
        path = self.path / name
        refuse_links(path)
        link_exclusive(source, path)
        fsync_directory(path.parent)

    def described(self, name: str) -> tuple[int, str]:
        """The size and the digest of a file."""
        path = self.path / name
        return path.stat().st_size, hash_file(path)

    def remove(self, name: str) -> None:
        """Remove it, and wait until that is on disk."""
        path = self.path / name
        path.unlink(missing_ok=True)
        fsync_directory(path.parent)

    def grow(self, name: str, content: bytes) -> None:
        """Write them at its end, alone; what a crash has torn there becomes a line of its own."""
        path = self.path / name
        make_private_folder(path.parent)
        with open_private_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            start = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.append(start + content)

    def grown(self, name: str) -> bytes:
        """The file as it is."""
        path = self.path / name
        refuse_links(path.parent, path)
        return path.read_bytes() if path.exists() else b""


StorageLike = str | Path | LocalStorage | ObjectStorage
"""What names a place, or is one."""


def open_storage(where: StorageLike) -> LocalStorage | ObjectStorage:
    """The place that a path or a URL (`s3://bucket/prefix`, `gs://`, `az://`) names.

    Raises:
        UsageError: The URL names no bucket, holds credentials, or is another than of an object store.

    >>> str(open_storage("ml/feedback_training")), str(open_storage("s3://bucket/exports/"))
    ('ml/feedback_training', 's3://bucket/exports')
    """
    if isinstance(where, LocalStorage | ObjectStorage):
        return where
    refuse_unsupported_url(str(where))
    return ObjectStorage(str(where)) if is_object_store(str(where)) else LocalStorage(Path(where))
