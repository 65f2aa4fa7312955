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

_RETRY_SECONDS = 0.01


@contextmanager
def lock_folder(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Acquire the lock of an export folder, which protects the creation, renaming and removal of its files.

    Raises:
        FolderLockedError: Another process or thread has held the lock for `timeout` seconds.
        OSError: The folder cannot be used.
    """
    state = folder / STATE_FOLDER
    refuse_links(state, state / "lock")
    make_private_folder(state)
    with open_private_file(state / "lock") as file:
        if not acquire_lock(file.fileno(), timeout):
            raise FolderLockedError(
                f"{folder} is in use: another export, erasure or prune has held its lock for {timeout:g} s. "
                "Wait for it, or raise the setting lock_timeout."
            )
        yield


def acquire_lock(descriptor: int, timeout: float) -> bool:
    """Lock an open file exclusively and return whether that succeeded within the timeout in seconds.

    It never waits for ever: an interrupt at an unfortunate moment may leave a lock with an object that still exists.
    """
    end = time.monotonic() + timeout
    while not _try_lock(descriptor):
        if time.monotonic() >= end:
            return False
        time.sleep(_RETRY_SECONDS)
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
