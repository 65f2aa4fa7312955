"""Storage of exports: a local folder, or a prefix of an object store.

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
    """Provide what a local folder and an object store have in common."""

    def exists(self) -> bool:
        """Return whether the folder exists, or the prefix contains an object."""

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files in a folder (the root by default), without hidden ones."""

    def folders(self) -> list[str]:
        """Return the sorted names of the folders, without hidden ones."""

    def present(self, names: Iterable[str]) -> set[str]:
        """Return the given names that exist."""

    def address(self, name: str) -> str:
        """Return the path or URL of a file, as Polars accepts it."""

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            FileNotFoundError: There is none.
        """

    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """Provide a local, read-only copy of a file for the duration of the context."""

    def draft(self, name: str) -> AbstractContextManager[Path]:
        """Provide a local path to write a file to before `create` publishes it; a leftover is removed."""

    def create(self, name: str, source: Path) -> None:
        """Publish a complete file from `draft` under its final name; never replace another file.

        Raises:
            FileExistsError: The name is taken; in a store, by something else.
        """

    def described(self, name: str) -> tuple[int, str]:
        """Return the size in bytes and the SHA-256 digest of a file.

        Raises:
            FileNotFoundError: There is none.
        """

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""

    def grow(self, name: str, content: bytes) -> None:
        """Append lines to an append-only file; they are durable when this returns."""

    def grown(self, name: str) -> bytes:
        """Return all lines of an append-only file; empty if it does not exist."""


class LocalStorage:
    """Store exports in a local folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Return whether the folder exists."""
        return self.path.is_dir()

    def present(self, names: Iterable[str]) -> set[str]:
        """Return the given names that exist."""
        return {name for name in names if (self.path / name).exists()}

    def address(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.path / name)

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files in a folder, without hidden ones."""
        place = self.path / folder
        return sorted(path.relative_to(self.path).as_posix() for path in place.glob("[!.]*") if path.is_file())

    def folders(self) -> list[str]:
        """Return the sorted names of the folders, without hidden ones."""
        return sorted(path.name for path in self.path.glob("[!.]*") if path.is_dir())

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return (self.path / name).read_bytes()

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield the path of the file itself."""
        yield self.path / name

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """Provide a hidden, unique path in the same folder."""
        path = self.path / name
        refuse_links(*(each for each in path.parents if each.is_relative_to(self.path) and each != self.path))
        draft = temporary_path(path.parent, path.name)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def create(self, name: str, source: Path) -> None:
        """Hard-link the file, so that it appears completely or not at all."""
        path = self.path / name
        refuse_links(path)
        link_exclusive(source, path)
        fsync_directory(path.parent)

    def described(self, name: str) -> tuple[int, str]:
        """Return the size in bytes and the SHA-256 digest of a file."""
        path = self.path / name
        return path.stat().st_size, hash_file(path)

    def remove(self, name: str) -> None:
        """Delete the file and fsync its folder."""
        path = self.path / name
        path.unlink(missing_ok=True)
        fsync_directory(path.parent)

    def grow(self, name: str, content: bytes) -> None:
        """Append under an exclusive lock; a line torn by a crash is terminated first."""
        path = self.path / name
        make_private_folder(path.parent)
        with open_private_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            start = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.append(start + content)

    def grown(self, name: str) -> bytes:
        """Return the whole file."""
        path = self.path / name
        refuse_links(path.parent, path)
        return path.read_bytes() if path.exists() else b""


StorageLike = str | Path | LocalStorage | ObjectStorage
"""What names a place, or is one."""


def open_storage(where: StorageLike) -> LocalStorage | ObjectStorage:
    """Open the storage at a path or a URL (`s3://bucket/prefix`, `gs://`, `az://`).

    Raises:
        UsageError: The URL names no bucket, holds credentials, or is another than of an object store.

    >>> str(open_storage("ml/feedback_training")), str(open_storage("s3://bucket/exports/"))
    ('ml/feedback_training', 's3://bucket/exports')
    """
    if isinstance(where, LocalStorage | ObjectStorage):
        return where
    refuse_unsupported_url(str(where))
    return ObjectStorage(str(where)) if is_object_store(str(where)) else LocalStorage(Path(where))
