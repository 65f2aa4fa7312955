"""Bind keys to a folder: name them as the folder does, which may have been begun by an earlier version."""

from collections.abc import Iterable
from typing import TypeVar

from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.tombstones import TOMBSTONES
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import StorageLike, open_storage

AnyKey = TypeVar("AnyKey", Key, Key | None)


def bind_keys(folder: StorageLike, keys: Iterable[AnyKey]) -> list[AnyKey]:
    """Return the keys under the ids by which a folder names them: the legacy id if its log or tombstones contain it.

    A folder names a key by one id for good, so that readers without the key recognize its exports as those of one key.
    The id needs no parsing: no one without the key can put it there.

    Raises:
        ExportFileError: The log or the tombstones cannot be read.
    """
    keys = list(keys)
    if not any(keys):
        return keys
    content = AuditLog(folder).content() + open_storage(folder).read_lines(TOMBSTONES)
    return [key.with_legacy_id() if key and f'"{key.legacy_id}"'.encode() in content else key for key in keys]


def bind_key(folder: StorageLike, key: AnyKey) -> AnyKey:
    """Return a key under the id by which a folder names it, as `bind_keys` does."""
    return bind_keys(folder, [key])[0]
