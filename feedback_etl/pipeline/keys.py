"""Find the keys of an export: the pseudonym key in use, and all available keys."""

from contextlib import suppress

from feedback_etl.errors import KeyMissingError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.retired_keys import read_retired_keys
from feedback_etl.settings.keys import find_active_key, find_key, find_retired_folder
from feedback_etl.transform.expressions import PSEUDONYM_LENGTH


def resolve_key(key: Key | str | None, *, unkeyed: bool, pseudonym_length: int) -> Key | None:
    """Resolve the pseudonym key: the given one or else the configured one; return None for unkeyed exports.

    Raises:
        UsageError: Both a key and `unkeyed` were given, or `unkeyed` and long pseudonyms, or (KeyMissingError) no key
            is configured.
    """
    if unkeyed:
        if key is not None:
            raise UsageError("Give a key or unkeyed=True, not both.")
        if pseudonym_length != PSEUDONYM_LENGTH:
            raise UsageError(f"Unkeyed pseudonyms have {PSEUDONYM_LENGTH} characters: leave `pseudonym_length` out.")
        return None
    return (Key.parse(key) if key is not None else find_active_key()).with_length(pseudonym_length)


def list_available_keys() -> list[Key]:
    """Return the configured key and the retired keys; tombstones may have been written with any of them."""
    keys = [retired.key for retired in read_retired_keys(find_retired_folder())]
    with suppress(KeyMissingError):
        keys.insert(0, find_key().key)
    return keys
