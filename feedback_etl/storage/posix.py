"""POSIX operations on files (0600) and folders (0700) that only their owner can read, with any umask.

A file is written under a temporary name; `final_names` gives it its final one when it is complete and on disk.
"""

import errno
import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.storage.whole_files import WholeFile

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents durably, each with mode 0700; an existing folder keeps its mode.

    Raises:
        OSError: A parent is a file, or a folder cannot be created.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent or os.path.lexists(folder):
            break
        folder = folder.parent
    for path in reversed(missing):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if path.is_dir():  # created by another process meanwhile
                continue
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        path.chmod(0o700)
        with suppress(PermissionError):  # a parent that is writable but not readable
            fsync_directory(path.parent)


def temporary_path(folder: Path, name: str) -> Path:
    """Return a hidden, unique path in a folder, with the process id and a random part."""
    return folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def replacement_path(path: Path) -> Path:
    """Return the path of a replacement of a file; the caller has acquired the folder's lock."""
    return path.with_name(f".{path.name}.tmp2")


def create_private_file(path: Path) -> WholeFile:
    """Create a file that does not exist yet, mode 0600, and open it; never follows a symbolic link.

    Raises:
        FileExistsError: The path exists, if only as a symbolic link.
        OSError: The file cannot be created.
    """
    file = _create(path, 0o600)
    os.fchmod(file.fileno(), 0o600)
    return file


def _create(path: Path, mode: int) -> WholeFile:
    return WholeFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode))


def write_private_file(path: Path, content: bytes) -> None:
    """Create a file with the given content durably.

    Raises:
        FileExistsError: The path exists, if only as a symbolic link.
        OSError: The file cannot be written; it may exist in part.
    """
    with create_private_file(path) as file:
        file.fill(content)


def copy_access(descriptor: int, path: Path) -> None:
    """Copy mode, owner and group of a file to the open file that replaces it, as far as this user is permitted to."""
    status = path.stat()
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def open_private_file(path: Path) -> WholeFile:
    """Open a file for reading and writing, created with mode 0600 if it is missing; never follows a symbolic link.

    Raises:
        ExportFileError: It is not a regular file.
        OSError: The file cannot be opened.
    """
    with suppress(FileExistsError):
        return create_private_file(path)
    return WholeFile(open_regular_file(path, os.O_RDWR | os.O_NOFOLLOW))


def open_regular_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open an existing regular file and return its descriptor; it never waits for the writer of a pipe.

    Raises:
        ExportFileError: It is a pipe, a socket, a device or a folder.
        OSError: It cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        raise _build_special_file_error(path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _build_special_file_error(path)
    return descriptor


def _build_special_file_error(path: Path) -> ExportFileError:
    return ExportFileError(f"{path} is not a regular file, and no export creates others. Remove it and run again.")


def read_regular_file(path: Path) -> bytes:
    """Return the content of a regular file; the errors are those of `open_regular_file`."""
    with open(open_regular_file(path), "rb") as file:
        return file.read()


def replace_private_file(path: Path, temporary: Path, content: bytes, *, is_public: bool = False) -> None:
    """Replace the content of a file atomically and durably, or create the file.

    Args:
        path: The file; it may be missing.
        temporary: The path in the same folder to which the content is written first.
        content: The complete new content.
        is_public: Take the mode from the umask, or from the file that is replaced, instead of 0600.

    Raises:
        OSError: The file cannot be written.
    """
    temporary.unlink(missing_ok=True)  # left by a process that was killed
    try:
        with _create(temporary, 0o666) if is_public else create_private_file(temporary) as file:
            if is_public and path.exists():
                copy_access(file.fileno(), path)
            file.fill(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def fsync_directory(folder: Path) -> None:
    """Flush created, renamed and removed names of a folder to disk, where the file system supports it.

    Raises:
        OSError: The folder cannot be opened, or the disk reports an error.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return the SHA-256 digest of a regular file's bytes, as 64 hex digits."""
    with open(open_regular_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
