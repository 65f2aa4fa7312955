"""Verify the seals of tombstones: sets that were written after the last recorded state have to be of their folder."""

from collections.abc import Iterator, Mapping, Sequence

from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import Record
from feedback_etl.records.manifest_verification import Problem
from feedback_etl.records.tombstones import Tombstone, TombstoneFile, TombstoneState, compute_seal
from feedback_etl.storage.base import Storage


def find_unsealed(tombstones: TombstoneFile, records: Sequence[Record], by_id: Mapping[str, Key]) -> Iterator[Problem]:
    """Yield a problem for each set of tombstones after the recorded state that was not sealed for its folder.

    A set without a complete seal is of an interrupted erasure, or was added, and so is one that an earlier version
    sealed for any folder. Any other seal is certain to be of another folder, or of other lines. Sets of unavailable
    keys are not verified; a set without a key has no seal.

    Args:
        tombstones: The tombstones of the folder.
        records: The records of its audit log.
        by_id: The available keys.
    """
    heads = [str(record["mac"]) for record in records]
    sets: dict[tuple[str, str], list[tuple[bytes, Tombstone]]] = {}
    for line, record in tombstones.list_lines(TombstoneState.from_records(records).bytes):
        if record["key_id"] in by_id:
            sets.setdefault((record["erasure"], str(record["key_id"])), []).append((line, record))
    for (erasure, key_id), lines in sets.items():
        content, (_, last), key = [line for line, _ in lines[:-1]], lines[-1], by_id[key_id]
        if last["kind"] == "seal" and any(last["digest"] == compute_seal(content, key, head) for head in heads):
            continue
        is_certain = last["kind"] == "seal" and last["digest"] != compute_seal(content, key)
        reason, remedy = "it was interrupted, or they were added", "Run the erasure again"
        if is_certain:
            reason, remedy = "they are of another folder, or were changed", "Restore the file from a backup"
        text = f"{tombstones.path} has lines of the erasure {erasure} that its key has not sealed: {reason}. {remedy}"
        yield Problem(text, is_certain=is_certain)


def require_own(storage: Storage, tombstones: TombstoneFile, by_id: Mapping[str, Key]) -> None:
    """Require that no tombstones were sealed for another folder; those that the log records were verified before.

    Raises:
        ExportFileError: Some were.
    """
    for problem in find_unsealed(tombstones, AuditLog(storage).records(), by_id):
        if problem.is_certain:
            raise ExportFileError(f"{problem.text}, or export into another folder (--output).")
