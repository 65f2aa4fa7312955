"""Locks of folders and files, held by one process or thread at a time, released by the system when it dies."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedback_etl.errors import FolderLockedError
from feedback_etl.storage.base import LOCK_TIMEOUT, STATE_FOLDER
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.posix import make_private_folder, open_private_file
from feedback_etl.storage.whole_files import WholeFile

_RETRY_SECONDS = 0.01


@contextmanager
def lock_folder(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Acquire the lock of an export folder, which protects the creation, renaming and removal of its files.

    Raises:
        FolderLockedError: Another process or thread has held the lock for `timeout` seconds.
        OSError: The folder cannot be used.
    """
    message = (
        f"{folder} is in use: another export, erasure or prune has held its lock for {timeout:g} s. "
        "Wait for it, or raise the setting lock_timeout."
    )
    with open_locked(folder / STATE_FOLDER / "lock", timeout, message):
        yield


@contextmanager
def open_locked(path: Path, timeout: float, message: str) -> Iterator[WholeFile]:
    """Open a private file, created if it is missing, and lock it exclusively while the context lasts.

    It never waits for ever: an interrupt at an unfortunate moment may leave a lock with an object that still exists.

    Raises:
        FolderLockedError: Another process or thread has held the lock for `timeout` seconds; with this message.
        OSError: It cannot be opened.
    """
    refuse_links(path.parent, path)
    make_private_folder(path.parent)
    end = time.monotonic() + timeout
    with open_private_file(path) as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() >= end:
                raise FolderLockedError(message)
            time.sleep(_RETRY_SECONDS)
        yield file


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
