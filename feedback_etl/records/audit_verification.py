"""Verify a folder: its audit log, manifests, tombstones and data files, each against the others."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_records import CHAIN_START, Line, Record, compute_mac
from feedback_etl.records.catalog import find_latest_increments, list_manifests
from feedback_etl.records.layout import STATE_KINDS
from feedback_etl.records.legacy_key_ids import name_keys
from feedback_etl.records.manifest import Manifest
from feedback_etl.records.manifest_verification import (
    UNAVAILABLE_KEY,
    LogEvidence,
    Problem,
    find_manifest_problems,
)
from feedback_etl.records.tombstone_seals import find_unsealed
from feedback_etl.records.tombstones import TombstoneFile, TombstoneState
from feedback_etl.storage.base import Storage
from feedback_etl.storage.location import StorageLike, open_storage

_UNAVAILABLE = f"it {UNAVAILABLE_KEY}"


class VerificationResult(NamedTuple):
    """Contain the result of verifying an audit log.

    Attributes:
        records: The number of records.
        problems: A sentence for each problem, by line; empty for an intact log.
        unsigned: The number of records without a signature, which anyone could have written.
        unknown: The number of records and manifests signed with unavailable keys; each is a problem too.
        head: The MAC of the last record, to be stored elsewhere.
        uncertain: Those of the problems that may be no tampering: a key is not available, a manifest is missing, or a
            crash tore a line or interrupted an erasure.
    """

    records: int
    problems: list[str]
    unsigned: int
    unknown: int
    head: str
    uncertain: tuple[str, ...] = ()

    @property
    def tampering(self) -> list[str]:
        """Return the problems that are not `uncertain`."""
        return [problem for problem in self.problems if problem not in self.uncertain]

    @property
    def unverified(self) -> list[str]:
        """Return those of the `uncertain` problems that an unavailable key causes."""
        return [problem for problem in self.uncertain if problem.endswith(UNAVAILABLE_KEY)]

    @property
    def is_protected(self) -> bool:
        """Return whether a key protects the log: without one, anyone who can write there can forge all of it."""
        return self.unsigned < self.records


def verify_folder(
    folder: StorageLike, keys: Iterable[Key], *, data: bool = False, head: str = ""
) -> VerificationResult:
    """Verify the log of a folder against its manifests, its tombstones and, with `data`, its data files.

    Another process may change the folder meanwhile, so that problems are reported only if they are found twice.

    Args:
        folder: The folder or the object store of the exports.
        keys: The available keys.
        data: Whether to compare the digest of every data file, which reads it.
        head: A MAC that the log has to contain, as it was stored elsewhere; "" for none.

    Raises:
        ExportFileError: A manifest cannot be read.
    """
    storage, keys = open_storage(folder), list(keys)
    result = _verify_once(storage, keys, data=data, head=head)
    return _verify_once(storage, keys, data=data, head=head) if result.problems else result


def require_untampered(folder: StorageLike, keys: Iterable[Key], action: str) -> None:
    """Refuse to rewrite, and thereby to sign, what someone else has changed.

    Args:
        folder: The folder or the object store of the exports.
        keys: The available keys; what others have signed is not verified.
        action: What is not done then, as a participle such as "removed".

    Raises:
        ExportFileError: The log, a manifest or the tombstones were changed.
    """
    if problems := verify_folder(folder, keys).tampering:
        raise ExportFileError(
            f"{folder} does not verify ({problems[0]}), so nothing was {action}. Restore the file from a backup; "
            "`feedback-etl audit verify` shows all problems."
        )


def _verify_once(storage: Storage, keys: Sequence[Key], *, data: bool, head: str) -> VerificationResult:
    exports, lines = list_manifests(storage), AuditLog(storage).lines()
    result = verify_exports(storage, lines, exports, keys)
    if head and not any(line.record and line.record["mac"] == head for line in lines):
        result.problems.append(f"the head {head} is missing: the log was cut or replaced")
    result.problems.extend(_find_changed_files(storage, exports) if data else ())
    return result


def verify_exports(
    storage: Storage, lines: Sequence[Line], exports: Sequence[Manifest], keys: Iterable[Key]
) -> VerificationResult:
    """Verify the lines of a log, manifests and tombstones that were read together.

    Whatever is signed in the folder requires the log to be signed.
    """
    tombstones = TombstoneFile(storage)
    names = b"".join(line.content for line in lines) + tombstones.content
    by_id = {key.id: key for key in name_keys(keys, names)}
    records = [line.record for line in lines if line.record is not None]
    tombstone_problems, are_signed = _verify_tombstones(tombstones, records, by_id)
    signed = are_signed or any(export.key_id or export.signed_by for export in exports)
    anchors = {f"{export.stem}.manifest.json": export.audit_head for export in exports}
    result = verify_lines(lines, by_id.values(), anchors, signed=signed)
    problems = list(find_manifest_problems(exports, LogEvidence.from_records(records), by_id))
    problems += tombstone_problems
    result.problems.extend(problem.text for problem in problems)
    uncertain = tuple(problem.text for problem in problems if not problem.is_certain)
    unknown = sum(export.signed_by is not None and export.signed_by not in by_id for export in exports)
    return result._replace(uncertain=result.uncertain + uncertain, unknown=result.unknown + unknown)


def _verify_tombstones(
    tombstones: TombstoneFile, records: Sequence[Record], by_id: Mapping[str, Key]
) -> tuple[list[Problem], bool]:
    """Return the problems of the tombstones, and whether they are signed."""
    try:
        tombstones.require_state(TombstoneState.from_records(records))
        return list(find_unsealed(tombstones, records, by_id)), tombstones.are_signed
    except ExportFileError as error:
        return [Problem(str(error))], False


def _find_changed_files(storage: Storage, exports: Iterable[Manifest]) -> Iterator[str]:
    """Yield a problem for each file that differs from its manifest; an announced replacement is not one.

    The files of the state of a series are deleted once its next export is committed.
    """
    exports = list(exports)
    latest = find_latest_increments(exports)
    for export, file in ((manifest, file) for manifest in exports if not manifest.pruned_at for file in manifest.files):
        try:
            if storage.stat_with_digest(file.path) not in file.versions:
                yield f"{file.path} was changed"
        except FileNotFoundError:
            if file.kind not in STATE_KINDS or latest.get(export.settings_digest) is export:
                yield f"{file.path} is missing"
        except ExportFileError as error:  # no regular file
            yield str(error)


def verify_lines(
    lines: Iterable[Line], keys: Iterable[Key], anchors: Mapping[str, str], *, signed: bool = False
) -> VerificationResult:
    """Verify the MAC chain of the lines of an audit log.

    Unsigned records before the first signed one are a part of what it signs.

    Args:
        lines: All lines.
        keys: The available keys.
        anchors: Heads that are stored elsewhere, with the names of their storages.
        signed: Whether a record has to be signed, since something in the folder is.
    """
    by_id, lines = {key.id: key for key in keys}, list(lines)
    problems, uncertain, macs, torn = list[str](), list[str](), [CHAIN_START], b""
    key_ids = [line.record["key_id"] for line in lines if line.record is not None]
    must_be_signed = signed and not any(key_ids)
    for number, line in enumerate(lines, 1):
        record = line.record
        if record is None:
            problem = "no record" if torn else ""  # a crash leaves one torn line, which the next record declares
            torn = line.content
        else:
            link = _Link(len(macs), macs[-1], hashlib.sha256(torn).hexdigest() if torn else None)
            problem = _find_problem(record, link, by_id, is_signed=must_be_signed)
            must_be_signed = must_be_signed or record["key_id"] is not None
            torn = b""
            macs.append(record["mac"])
        if problem:
            problems.append(f"line {number}: {problem}")
            uncertain += [problems[-1]] if problem == _UNAVAILABLE else []
    if torn:
        problems.append("the last line is torn; the next record will say so")
        uncertain.append(problems[-1])
    logged = {*macs}
    missing = [name for name, mac in anchors.items() if mac not in logged]
    problems += [f"the head in {name} is missing: the log was cut" for name in missing]
    unknown = sum(key_id is not None and key_id not in by_id for key_id in key_ids)
    return VerificationResult(len(key_ids), problems, key_ids.count(None), unknown, macs[-1], tuple(uncertain))


class _Link(NamedTuple):
    """Contain what a record must have at its position: the number, the previous MAC, the digest of a torn line."""

    number: int
    previous: str
    torn: str | None


def _find_problem(record: Record, link: _Link, by_id: Mapping[str, Key], *, is_signed: bool) -> str:
    """Return the problem of a record at its position; "" if there is none."""
    key_id = record["key_id"]
    if record["number"] != link.number:
        return f"record {record['number']} is in the position of record {link.number}"
    if record["previous"] != link.previous:
        return "it does not follow the record before it"
    if record.get("torn") != link.torn:
        return "the line before it is not a record"
    if key_id is None and is_signed:
        return "it is not signed by a key, as it has to be"
    if key_id is not None and key_id not in by_id:
        return _UNAVAILABLE
    if record["mac"] != compute_mac(record, by_id[key_id] if key_id else None):
        return "it was changed"
    return ""
