"""Storage of exports in a local folder."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath

from feedback_etl.storage.base import LOCK_TIMEOUT, ConflictError, FileInfo, Storage, Version
from feedback_etl.storage.errors import explain_write_errors, refuse_links
from feedback_etl.storage.final_names import link_exclusive, unlink_if_ours
from feedback_etl.storage.locks import lock_folder, open_locked
from feedback_etl.storage.posix import (
    create_private_file,
    fsync_directory,
    hash_file,
    make_private_folder,
    open_regular_file,
    read_regular_file,
    replace_private_file,
    replacement_path,
    temporary_path,
)
from feedback_etl.storage.whole_files import WholeFile


class LocalStorage(Storage):
    """Store exports in a local folder: files 0600, folders 0700.

    New files are linked under their names, so that they appear completely or not at all and never replace another.
    """

    has_locks = True
    files_at_once = 1
    polars_options = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        make_private_folder(self.path)

    def explain_write_errors(self, folder: str) -> AbstractContextManager[None]:
        return explain_write_errors(self.path / folder)

    def exists(self) -> bool:
        return self.path.is_dir()

    def names(self, folder: str = "") -> list[str]:
        paths = (self.path / folder).glob("[!.]*")
        return sorted(path.relative_to(self.path).as_posix() for path in paths if path.is_file())

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.path.glob("[!.]*") if path.is_dir())

    def list_files(self, folder: str = "") -> dict[str, FileInfo]:
        paths = sorted(path for path in (self.path / folder).rglob("*") if path.is_file())
        return self.stat_files(path.relative_to(self.path).as_posix() for path in paths)

    def list_entries(self) -> list[str]:
        entries, unreadable = list[Path](), list[OSError]()
        for name, folders, files in os.walk(self.path, onerror=unreadable.append):
            entries += [Path(name, file) for file in files]
            entries += [path for path in (Path(name, folder) for folder in folders) if path.is_symlink()]
        names = [path.relative_to(self.path).as_posix() for path in entries]
        closed = [Path(error.filename) for error in unreadable if not isinstance(error, FileNotFoundError)]
        return sorted([*names, *(f"{folder.relative_to(self.path).as_posix()}/" for folder in closed)])

    def stat_files(self, names: Iterable[str]) -> dict[str, FileInfo]:
        paths = {name: self.path / name for name in names}
        return {name: _get_info(path.stat()) for name, path in paths.items() if path.is_file()}

    def stat_with_digest(self, name: str) -> tuple[int, str]:
        self.refuse_links(name)
        path = self.path / name
        return path.stat().st_size, hash_file(path)

    def uri(self, name: str) -> str:
        return str(self.path / name)

    def absolute_uri(self) -> str:
        return str(self.path.absolute())

    def local_path(self, name: str = "") -> Path:
        return self.path / name

    def refuse_links(self, *names: str) -> None:
        for path in (self.path / name for name in names):
            refuse_links(path, *(parent for parent in path.parents if self.path in parent.parents))

    def read_version(self, name: str) -> tuple[bytes, Version]:
        with open(open_regular_file(self.path / name), "rb") as file:
            return file.read(), _get_version(os.fstat(file.fileno()))

    @contextmanager
    def local_copy_version(self, name: str) -> Iterator[tuple[Path, Version]]:
        """Provide the path of the file itself and its version."""
        path = self.path / name
        with open(open_regular_file(path), "rb") as file:
            version = _get_version(os.fstat(file.fileno()))
        yield path, version

    @contextmanager
    def staging_path(self, name: str) -> Iterator[Path]:
        """Provide a hidden, unique path in the folder of the file."""
        path = self.path / name
        self.refuse_links(*map(str, PurePosixPath(name).parents[:-1]))
        staged = temporary_path(path.parent, path.name)
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    @contextmanager
    def replacement_path(self, name: str) -> Iterator[Path]:
        path = replacement_path(self.path / name)
        path.unlink(missing_ok=True)  # left by a process that was killed
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def etag(self, version: Version) -> str:  # noqa: ARG002
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
        return _get_version(path.stat())

    def replace(self, name: str, content: bytes | Path, if_match: Version) -> Version:
        """Compare the version, rename the new file over the old one, then fsync its folder."""
        path = self.path / name
        if not path.exists() or _get_version(path.stat()) != if_match:
            raise ConflictError(f"{path} was changed meanwhile.")
        if isinstance(content, bytes):
            replace_private_file(path, replacement_path(path), content)
        else:
            content.replace(path)
            fsync_directory(path.parent)
        return _get_version(path.stat())

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
        """Append under the lock of the file; a line torn by a crash is terminated first."""
        with self._open_locked(name, LOCK_TIMEOUT) as file:
            file.append_lines(content)

    def read_lines(self, name: str) -> bytes:
        path = self.path / name
        self.refuse_links(name)
        return read_regular_file(path) if path.exists() else b""

    def read_numbered(self, name: str, *, after: int = 0) -> dict[int, bytes]:
        return _number_lines(self.read_lines(name), after)

    @contextmanager
    def open_lines(self, name: str, timeout: float = LOCK_TIMEOUT) -> Iterator["_LockedLines"]:
        """Open the file under an exclusive lock."""
        with self._open_locked(name, timeout) as file:
            yield _LockedLines(file)

    @contextmanager
    def _open_locked(self, name: str, timeout: float) -> Iterator[WholeFile]:
        path = self.path / name
        is_new = not path.exists()
        with open_locked(
            path, timeout, f"{path} has been held by another process for {timeout:g} s; run again."
        ) as file:
            if is_new:
                fsync_directory(path.parent)
            yield file

    def lock(self, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
        """Lock the folder; the system releases the lock when the process dies."""
        return lock_folder(self.path, timeout)


class _LockedLines:
    """The lines of a file that is locked."""

    def __init__(self, file: WholeFile) -> None:
        self._file = file

    def read(self, *, after: int = 0) -> dict[int, bytes]:
        self._file.seek(0)
        return _number_lines(self._file.read(), after)

    def put(self, number: int, content: bytes) -> None:
        if len(self.read()) >= number:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._file.append_lines(content)


def _number_lines(content: bytes, after: int) -> dict[int, bytes]:
    """Return the lines after a number, with their newlines; other line separators may be part of a line."""
    *complete, torn = content.split(b"\n")
    lines = [*(line + b"\n" for line in complete if line), *([torn] if torn else [])]
    return {number: line for number, line in enumerate(lines, 1) if number > after}


def _get_version(status: os.stat_result) -> Version:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _get_info(status: os.stat_result) -> FileInfo:
    return FileInfo(status.st_size, _get_version(status), status.st_mtime_ns)
