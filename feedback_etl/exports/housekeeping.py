"""Access to a storage for changes: its audit log, its lock, and recovery of dead runs.

Every process that changes a folder holds the folder's lock. An object store has no locks: conditional puts order
concurrent processes.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from feedback_etl.exports.audit import AuditLog, LockedAuditLog
from feedback_etl.exports.object_audit import ObjectAuditLog
from feedback_etl.exports.object_recovery import recover_objects
from feedback_etl.exports.recovery import recover, remove_replacements
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.storage.locks import LOCK_TIMEOUT, lock_folder
from feedback_etl.storage.object_store import ObjectStorage


def open_audit_log(where: StorageLike) -> AuditLog:
    """Open the audit log of a storage."""
    place = open_storage(where)
    return ObjectAuditLog(place) if isinstance(place, ObjectStorage) else AuditLog(place.path)


def lock_storage(where: StorageLike, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
    """Acquire the lock of a folder; do nothing for an object store.

    Raises:
        FolderLockedError: Somebody else holds it for longer than `timeout` seconds.
    """
    place = open_storage(where)
    return nullcontext() if isinstance(place, ObjectStorage) else lock_folder(place.path, timeout)


def recover_storage(where: StorageLike, log: LockedAuditLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Finish or undo runs that died; in a folder, the caller has acquired its lock.

    Args:
        where: The place.
        log: Its log, opened.
        signer: Signs what is recorded.
        keys: The available keys.
    """
    place = open_storage(where)
    if isinstance(place, ObjectStorage):
        recover_objects(place, log, signer, keys)
    else:
        recover(place.path, log, signer)
        remove_replacements(place.path, log)
