"""Verify the tombstones of a folder by the state that the audit log records, and by their seals."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.tombstones import SEAL, compute_seal, describe_path, parse_tombstone, read_content
from feedback_etl.storage.location import StorageLike


class TombstoneState(NamedTuple):
    """Contain the size in bytes and the digest of the append-only file at some time."""

    bytes: int
    sha256: str


def get_state(folder: StorageLike) -> TombstoneState:
    """Return the current state of the file."""
    content = read_content(folder)
    return TombstoneState(len(content), hashlib.sha256(content).hexdigest())


def find_last_state(records: Iterable[dict[str, Any]]) -> TombstoneState:
    """Return the state that the last erasure recorded in the audit log."""
    states = [record.get("tombstones") for record in records if record["event"] == "erased"]
    match [state for state in states if state is not None][-1:]:
        case [[int(size), str(digest)]]:
            return TombstoneState(size, digest)
    return TombstoneState(0, hashlib.sha256(b"").hexdigest())


def is_signed(folder: StorageLike, content: bytes) -> bool:
    """Return whether the content of the file has tombstones under a key."""
    records = (parse_tombstone(line, folder) for line in content.splitlines())
    return any(record["key_id"] for record in records if record)


def require_state(folder: StorageLike, content: bytes, state: TombstoneState) -> None:
    """Require that the content of the file still begins with the recorded one.

    Raises:
        ExportFileError: It was changed or removed.
    """
    content = content[: state.bytes]
    if len(content) < state.bytes or hashlib.sha256(content).hexdigest() != state.sha256:
        raise ExportFileError(
            f"{describe_path(folder)} is missing or was changed: erased people could come back. "
            "Restore it, or export into another folder (--output)."
        )


def find_unsealed(folder: StorageLike, content: bytes, state: TombstoneState, by_id: Mapping[str, Key]) -> list[str]:
    """Return a problem for each set of tombstones after the recorded state that its key has not sealed.

    Sets of unavailable keys are not verified; a set without a key has no seal.
    """
    sets: dict[tuple[str, str], list[bytes]] = {}
    sealed = set[tuple[str, str]]()
    for line in content[state.bytes :].splitlines():
        record = parse_tombstone(line, folder)
        key = by_id.get(record["key_id"] or "") if record else None
        if record and key:
            name = record["erasure"], key.id
            lines = sets.setdefault(name, [])
            is_seal = record["kind"] == SEAL and record["digest"] == compute_seal(lines, key)
            sealed = sealed | {name} if is_seal else sealed - {name}
            lines.append(line)
    return [
        f"{describe_path(folder)} has lines of the erasure {name[0]} that its key has not sealed: it was interrupted, "
        "or they were added. Run the erasure again"
        for name in sets
        if name not in sealed
    ]
