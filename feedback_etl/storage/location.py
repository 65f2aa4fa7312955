"""Open the storage that a path or URL names."""

from pathlib import Path

from feedback_etl.errors import UsageError
from feedback_etl.storage.base import Storage
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url

StorageLike = str | Path | Storage
"""A storage, or the path or URL of one."""


def open_storage(where: StorageLike) -> Storage:
    """Open the storage at a path or a URL (`s3://bucket/prefix`).

    Raises:
        UsageError: The URL names no bucket, contains credentials, or is not that of an object store.

    >>> str(open_storage("ml/feedback_training")), str(open_storage("s3://bucket/exports/"))
    ('ml/feedback_training', 's3://bucket/exports')
    """
    if not isinstance(where, str | Path):
        return where
    refuse_unsupported_url(str(where))
    return ObjectStorage(str(where)) if is_object_store(str(where)) else LocalStorage(Path(where))


def require_storage(storage: Storage) -> None:
    """Require that the storage exists.

    Raises:
        UsageError: It does not.
    """
    if not storage.exists():
        missing = f"There is no folder {storage}" if storage.local_path() else f"There is nothing at {storage}"
        raise UsageError(f"{missing}: name the folder of the exports, or create it by an export.")
