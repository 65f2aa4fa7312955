"""A test of conditional puts, without which concurrent exports could overwrite each other unnoticed."""

import secrets
from collections.abc import Callable

from feedback_etl.errors import ExportFileError
from feedback_etl.storage.base import ConflictError, Storage


def require_conditional_puts(storage: Storage, folder: str) -> None:
    """Verify with a temporary object that the store honours If-None-Match and If-Match.

    Raises:
        ExportFileError: The store overwrites an existing object, or another version than the one that was read.
    """
    name = f"{folder}/conditions-{secrets.token_hex(8)}"
    try:
        first = storage.put_new(name, b"first")
        _require_refusal(storage, lambda: storage.put_new(name, b"second"), "If-None-Match")
        storage.replace(name, b"third", first)
        _require_refusal(storage, lambda: storage.replace(name, b"fourth", first), "If-Match")
    finally:
        storage.delete(name)


def _require_refusal(storage: Storage, put: Callable[[], object], condition: str) -> None:
    try:
        put()
    except (FileExistsError, ConflictError):
        return
    raise ExportFileError(
        f"The store of {storage} does not support conditional puts ({condition}), so exports could overwrite each "
        "other: nothing was written. Use a store that supports them, or a newer version of this one."
    )
