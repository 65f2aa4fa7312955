"""Storage of exports in a local folder."""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from feedback_etl.storage.base import ConflictError, FileInfo, Storage, Version
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.locks import LOCK_TIMEOUT, lock_folder
from feedback_etl.storage.posix import (
    create_private_file,
    fsync_directory,
    hash_file,
    link_exclusive,
    make_private_folder,
    open_private_file,
    open_regular_file,
    read_regular_file,
    replace_private_file,
    replacement_path,
    temporary_path,
    unlink_if_ours,
)
from feedback_etl.storage.whole_files import WholeFile


class LocalStorage(Storage):
    """Store exports in a local folder: files 0600, folders 0700.

    New files are linked under their names, so that they appear completely or not at all and never replace another.
    """

    has_locks = True
    polars_options = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Return whether the folder exists."""
        return self.path.is_dir()

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files in a folder, without hidden ones."""
        paths = (self.path / folder).glob("[!.]*")
        return sorted(path.relative_to(self.path).as_posix() for path in paths if path.is_file())

    def folders(self) -> list[str]:
        """Return the sorted names of the folders, without hidden ones."""
        return sorted(path.name for path in self.path.glob("[!.]*") if path.is_dir())

    def list_files(self, folder: str = "") -> dict[str, FileInfo]:
        """Return all files below a folder by name."""
        paths = sorted(path for path in (self.path / folder).rglob("*") if path.is_file())
        return self.stat_files(path.relative_to(self.path).as_posix() for path in paths)

    def list_entries(self) -> list[str]:
        """Return the names of all that exists below the folder and is no folder, and of unreadable folders."""
        entries, unreadable = list[Path](), list[OSError]()
        for name, folders, files in os.walk(self.path, onerror=unreadable.append):
            entries += [Path(name, file) for file in files]
            entries += [path for path in (Path(name, folder) for folder in folders) if path.is_symlink()]
        names = [path.relative_to(self.path).as_posix() for path in entries]
        closed = [Path(error.filename) for error in unreadable if not isinstance(error, FileNotFoundError)]
        return sorted([*names, *(f"{folder.relative_to(self.path).as_posix()}/" for folder in closed)])

    def stat_files(self, names: Iterable[str]) -> dict[str, FileInfo]:
        """Return those of the named files that exist."""
        paths = {name: self.path / name for name in names}
        return {name: _info(path.stat()) for name, path in paths.items() if path.is_file()}

    def stat_with_digest(self, name: str) -> tuple[int, str]:
        """Return the size in bytes and the SHA-256 digest of a file."""
        path = self.path / name
        return path.stat().st_size, hash_file(path)

    def uri(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.path / name)

    def absolute_uri(self) -> str:
        """Return the absolute path of the folder."""
        return str(self.path.absolute())

    def local_path(self, name: str = "") -> Path:
        """Return the path of a file, or of the folder."""
        return self.path / name

    def read_version(self, name: str) -> tuple[bytes, Version]:
        """Return the content of a file and its version."""
        with open(open_regular_file(self.path / name), "rb") as file:
            return file.read(), _version(os.fstat(file.fileno()))

    @contextmanager
    def local_copy_version(self, name: str) -> Iterator[tuple[Path, Version]]:
        """Provide the path of the file itself and its version."""
        path = self.path / name
        with open(open_regular_file(path), "rb") as file:
            version = _version(os.fstat(file.fileno()))
        yield path, version

    @contextmanager
    def staging_path(self, name: str) -> Iterator[Path]:
        """Provide a hidden, unique path in the folder of the file."""
        path = self.path / name
        refuse_links(*(parent for parent in path.parents if parent.is_relative_to(self.path) and parent != self.path))
        staged = temporary_path(path.parent, path.name)
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextmanager
    def replacement_path(self, name: str) -> Iterator[Path]:
        """Provide the path that `posix.replacement_path` returns."""
        path = replacement_path(self.path / name)
        path.unlink(missing_ok=True)  # left by a process that was killed
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def etag(self, version: Version) -> str:  # noqa: ARG002
        """Return ""."""
        return ""

    def put_new(self, name: str, content: bytes | Path) -> Version:
        """Hard-link a complete file under its name, then fsync its folder."""
        if isinstance(content, bytes):
            with self.staging_path(name) as staged:
                with create_private_file(staged) as file:
                    file.fill(content)
                return self.put_new(name, staged)
        path = self.path / name
        refuse_links(path)
        link_exclusive(content, path)
        try:
            fsync_directory(path.parent)
        except BaseException:
            unlink_if_ours(content, path)
            raise
        return _version(path.stat())

    def replace(self, name: str, content: bytes | Path, if_match: Version) -> Version:
        """Compare the version, rename the new file over the old one, then fsync its folder."""
        path = self.path / name
        if not path.exists() or _version(path.stat()) != if_match:
            raise ConflictError(f"{path} was changed meanwhile.")
        if isinstance(content, bytes):
            replace_private_file(path, replacement_path(path), content)
        else:
            content.replace(path)
            fsync_directory(path.parent)
        return _version(path.stat())

    def overwrite(self, name: str, content: bytes) -> None:
        """Rename a new file over an existing one."""
        path = self.path / name
        refuse_links(path)
        replace_private_file(path, temporary_path(path.parent, path.name), content)

    def delete(self, *names: str) -> None:
        """Delete the files, then fsync their folders."""
        paths = [self.path / name for name in names]
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in filter(Path.is_dir, {path.parent for path in paths}):
            fsync_directory(folder)

    def append_lines(self, name: str, content: bytes) -> None:
        """Append under an exclusive lock of the file; a line torn by a crash is terminated first."""
        with self._open_locked(name) as file:
            file.append_lines(content)

    def read_lines(self, name: str) -> bytes:
        """Return the whole file."""
        path = self.path / name
        refuse_links(path.parent, path)
        return read_regular_file(path) if path.exists() else b""

    def read_numbered(self, name: str, *, after: int = 0) -> dict[int, bytes]:
        """Return the lines after a number."""
        return {number: line for number, line in enumerate(_split(self.read_lines(name)), 1) if number > after}

    def put_numbered(self, name: str, number: int, content: bytes) -> None:
        """Append a line if the file has one line less, under an exclusive lock of the file."""
        with self._open_locked(name) as file:
            file.seek(0)
            if len(_split(file.read())) >= number:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path / name))
            file.append_lines(content)

    @contextmanager
    def _open_locked(self, name: str) -> Iterator[WholeFile]:
        path = self.path / name
        refuse_links(path.parent, path)
        make_private_folder(path.parent)
        is_new = not path.exists()
        with open_private_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_new:
                fsync_directory(path.parent)
            yield file

    def lock(self, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
        """Lock the folder; the system releases the lock when the process dies."""
        return lock_folder(self.path, timeout)


def _split(content: bytes) -> list[bytes]:
    """Split lines at newlines, which they keep; other line separators may be part of a line."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    return [*lines[:-1], lines[-1][:-1]] if content and not content.endswith(b"\n") else lines[:-1]


def _version(status: os.stat_result) -> Version:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _info(status: os.stat_result) -> FileInfo:
    return FileInfo(status.st_size, _version(status), status.st_mtime_ns)
