"""What callers give, as what the steps take: windows, keys and columns."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime

from feedback_etl.columns import IMAGE_URL, SUBJECT_HASH, ExtraColumn
from feedback_etl.database.window import Window, window_between, window_of_days
from feedback_etl.errors import KeyMissing, UsageError
from feedback_etl.privacy.keys import Key, read_retired_keys
from feedback_etl.settings import find_key, key_in_force, retired_folder
from feedback_etl.transform.overrides import Overrides

Time = str | date | datetime


def require_fitting(incremental: bool, since: Time | None, request_id: str | None, *, in_parts: bool = False) -> None:
    """Refuse what does not fit together.

    Raises:
        UsageError: An incremental export is told where to begin, or who asks, or is to be in parts.
    """
    if in_parts and incremental:
        raise UsageError(
            "An export in parts (by an executor, or in an object store) is of a window as a whole: leave incremental "
            "out."
        )
    if incremental and since is not None:
        raise UsageError("An incremental export goes on where the last one ended: leave since and until out.")
    if incremental and request_id is not None:
        raise UsageError("An incremental export never takes a row twice: leave request_id out.")


def require_own_process(overrides: Overrides, *, in_parts: bool, has_executor: bool, incremental: bool) -> None:
    """Refuse functions of an application where they cannot be called, or not for all rows.

    Raises:
        UsageError: Others make the export, or the function has to know rows that it does not see.
    """
    names = overrides.names()
    if names and has_executor:
        raise UsageError(
            "Overridden methods work in this process alone, and are not sent to an executor: leave executor out."
        )
    if in_parts and {"hash_id", "pair_hash"} & {*names}:
        raise UsageError(
            "An overridden _hash_id or _get_pair_hash needs an export in one file: name a folder, not an object store."
        )
    if incremental and "pair_hash" in names:
        raise UsageError(
            "An incremental export recognises duplicates of earlier exports by the built-in pair hash: leave "
            "incremental out, or do not override _get_pair_hash."
        )


def window_of(days_back: int, since: Time | None, until: Time | None, now: datetime) -> Window:
    """The window in days, or between two times."""
    if since is not None:
        return window_between(since, until, now=now)
    if until is not None:
        raise UsageError("An end of the window (until) needs a start (since).")
    return window_of_days(days_back, now=now)


def extra_of(
    columns: Sequence[ExtraColumn], query: str | None, *, images: bool, subjects: bool
) -> tuple[ExtraColumn, ...]:
    """The columns that follow the twelve."""
    if taken := {each.name for each in columns} & {IMAGE_URL.name, SUBJECT_HASH.name}:
        raise UsageError(f"A further column cannot be called {taken.pop()}: that name is taken.")
    if columns and query is None:
        raise UsageError(f"The default tables have no column {columns[0].name}: further columns need a query.")
    return (*columns, *([IMAGE_URL] if images else []), *([SUBJECT_HASH] if subjects else []))


def known_of(quasi_identifiers: Sequence[str], extra: Sequence[ExtraColumn]) -> tuple[str, ...]:
    """The columns that somebody may know of a person, those included that are declared so."""
    return tuple(dict.fromkeys((*quasi_identifiers, *(each.name for each in extra if each.role == "quasi_identifier"))))


def key_of(key: Key | str | None, unkeyed: bool) -> Key | None:
    """The key that was given, or the configured one; None if pseudonyms are to be unkeyed."""
    if unkeyed:
        if key is not None:
            raise UsageError("Give a key or unkeyed=True, not both.")
        return None
    return Key.parse(key) if key is not None else key_in_force()


def known_keys() -> list[Key]:
    """All keys at hand, the configured one and the retired ones: people may have been forgotten under any of them."""
    keys = [each.key for each in read_retired_keys(retired_folder())]
    with suppress(KeyMissing):
        keys.insert(0, find_key().key)
    return keys
