"""How a place is kept: its log, who may change it, and what dead runs have left there.

A folder has a lock, which whoever changes it holds. An object store has none: everybody may come at any time, and puts
that succeed on condition alone decide who was first.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from feedback_etl.exports.audit import AuditLog, OpenLog
from feedback_etl.exports.lock import LOCK_TIMEOUT, locked
from feedback_etl.exports.object_audit import StoredLog
from feedback_etl.exports.object_recovery import recover_stored
from feedback_etl.exports.recovery import clear_rewritten, recover
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.base import Where, place_of
from feedback_etl.storage.object_store import Bucket


def log_of(where: Where) -> AuditLog:
    """The audit log of a place."""
    place = place_of(where)
    return StoredLog(place) if isinstance(place, Bucket) else AuditLog(place.path)


def held(where: Where, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
    """The lock of a folder; nothing for an object store.

    Raises:
        FolderLockedError: Somebody else holds it for longer than `timeout` seconds.
    """
    place = place_of(where)
    return nullcontext() if isinstance(place, Bucket) else locked(place.path, timeout)


def take_up(where: Where, log: OpenLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Finish or undo what dead runs have left; in a folder, for one that holds its lock.

    Args:
        where: The place.
        log: Its log, opened.
        signer: Signs what is recorded.
        keys: Those at hand.
    """
    place = place_of(where)
    if isinstance(place, Bucket):
        recover_stored(place, log, signer, keys)
    else:
        recover(place.path, log, signer)
        clear_rewritten(place.path, log)
