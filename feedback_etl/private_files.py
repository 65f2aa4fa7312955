"""Folders (0700) and files (0600) that only their owner can read, from the first byte and under any umask."""

import os
from pathlib import Path


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each with mode 0700; an existing folder keeps its mode.

    Raises:
        OSError: A part of the path is a file, or may not be created.
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
            if path.is_dir():  # made by another process in the meantime
                continue
            raise NotADirectoryError(20, "Not a directory", str(path)) from None
        path.chmod(0o700)


def create_private_file(path: Path) -> int:
    """Create a file that does not exist yet, mode 0600, and give its descriptor; never follows a symbolic link.

    Raises:
        FileExistsError: There is something at the path, a link included.
        OSError: The file cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
