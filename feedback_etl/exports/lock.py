"""The lock of an export folder: held while files get or lose their names, by one program or thread at a time."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedback_etl.errors import FolderLockedError
from feedback_etl.exports.layout import STATE_FOLDER
from feedback_etl.storage.errors import refuse_links
from feedback_etl.storage.posix import make_private_folder, open_private_file

LOCK_TIMEOUT = 60.0
_SECONDS_BETWEEN_TRIES = 0.01


@contextmanager
def lock_folder(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Acquire the folder's lock; the system releases it when the process dies.

    Raises:
        FolderLockedError: Somebody else holds it for longer than `timeout` seconds.
        OSError: The folder cannot be used.
    """
    state = folder / STATE_FOLDER
    refuse_links(state, state / "lock")
    make_private_folder(state)
    with open_private_file(state / "lock") as file:
        if not acquire_lock(file.fileno(), timeout):
            raise FolderLockedError(
                f"{folder} is in use: another export, erasure or prune has held its lock for {timeout:g} s. "
                "Wait for it, or give --lock-timeout more seconds."
            )
        yield


def acquire_lock(descriptor: int, timeout: float) -> bool:
    """Lock an open file exclusively and return whether that succeeded within the timeout in seconds.

    It never waits for ever: an interrupt in the wrong moment may have left a lock to an object that is not yet gone.
    """
    end = time.monotonic() + timeout
    while not _try_lock(descriptor):
        if time.monotonic() >= end:
            return False
        time.sleep(_SECONDS_BETWEEN_TRIES)
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
