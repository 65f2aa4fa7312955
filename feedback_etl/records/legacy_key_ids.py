"""Key ids in folders that an earlier version created: name a key as its folder does, so that both names match."""

from collections.abc import Iterable
from typing import TypeVar

from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import LOG
from feedback_etl.records.tombstones import TOMBSTONES
from feedback_etl.storage.errors import explain_read_errors
from feedback_etl.storage.location import StorageLike, open_storage

AnyKey = TypeVar("AnyKey", Key, Key | None)


def bind_key(folder: StorageLike, key: AnyKey) -> AnyKey:
    """Return a key for new records under the name that a folder has for it: the legacy id if it contains that.

    A folder names a key by one id for good, so that readers without the key recognize its exports as those of one key.
    The id is searched in the text of the log: no one without the key can put it there.

    Raises:
        ExportFileError: The log or the tombstones cannot be read.
    """
    if not key:
        return key
    start = f'"{key.legacy_id}'.encode()  # without the closing quote: the id of long pseudonyms continues with -32
    return key.with_legacy_id() if start in _read_names(folder) else key


def bind_keys(folder: StorageLike, keys: Iterable[Key]) -> list[Key]:
    """Return keys for existing exports, each under all ids by which a folder names it, or else its own.

    Raises:
        ExportFileError: The log or the tombstones cannot be read.
    """
    return name_keys(keys, _read_names(folder))


def name_keys(keys: Iterable[Key], names: bytes) -> list[Key]:
    """Return what `bind_keys` returns, given the texts that name the keys of a folder: its log and its tombstones."""
    forms = [[form for form in key.list_forms() if f'"{form.id}"'.encode() in names] or [key] for key in keys]
    return list({form.id: form for matching in forms for form in matching}.values()) if names else list(keys)


def _read_names(folder: StorageLike) -> bytes:
    """Return the texts that name the keys of a folder."""
    storage = open_storage(folder)
    with explain_read_errors(storage):
        return storage.read_lines(LOG) + storage.read_lines(TOMBSTONES)
