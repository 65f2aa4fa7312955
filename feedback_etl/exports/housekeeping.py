"""Access to a storage for changes: its audit log, its lock, and recovery of dead runs.

Every process that changes a folder holds the folder's lock. An object store has no locks: conditional puts order
concurrent processes.
"""

from collections.abc import Iterable

from feedback_etl.exports.audit import LockedAuditLog
from feedback_etl.exports.object_recovery import recover_objects
from feedback_etl.exports.recovery import recover, remove_replacements
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import StorageLike, open_storage


def recover_storage(where: StorageLike, log: LockedAuditLog, signer: Key | None, keys: Iterable[Key | None]) -> None:
    """Finish or undo runs that died; in a folder, the caller has acquired its lock.

    Args:
        where: The storage.
        log: Its log, opened.
        signer: Signs what is recorded.
        keys: The available keys.
    """
    storage = open_storage(where)
    folder = storage.local_path()
    if folder is None:
        recover_objects(storage, log, signer, keys)
    else:
        recover(folder, log, signer)
        remove_replacements(folder, log)
