"""The probe for conditional puts, without which exports and records could overwrite each other unnoticed."""

import secrets
from collections.abc import Callable

from feedback_etl.errors import ExportFileError
from feedback_etl.storage.object_store import ConflictError, ObjectStorage


def require_conditional_puts(bucket: ObjectStorage, folder: str) -> None:
    """Verify that the store honours If-None-Match and If-Match, with a temporary object.

    Raises:
        ExportFileError: The store puts an object where there is one, or in the place of another than was read.
    """
    name = f"{folder}/conditions-{secrets.token_hex(8)}"
    try:
        first = bucket.put(name, b"first")
        _require_refusal(bucket, lambda: bucket.put(name, b"second"), "If-None-Match")
        bucket.put(name, b"third", instead_of=first)
        _require_refusal(bucket, lambda: bucket.put(name, b"fourth", instead_of=first), "If-Match")
    finally:
        bucket.remove(name)


def _require_refusal(bucket: ObjectStorage, put: Callable[[], object], condition: str) -> None:
    try:
        put()
    except (FileExistsError, ConflictError):
        return
    raise ExportFileError(
        f"The store of {bucket} does not know conditional puts ({condition}), so that exports could overwrite each "
        "other: nothing was written. Use another store, or a version of it that knows them."
    )
