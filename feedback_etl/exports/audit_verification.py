"""Verify the audit log of a folder: its MAC chain, its anchors in manifests, and the manifests themselves."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.audit_records import CHAIN_START, Record, compute_mac
from feedback_etl.exports.key_binding import bind_keys
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.tombstones import find_last_state, require_state
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import StorageLike


class VerificationResult(NamedTuple):
    """Contain the result of verifying an audit log.

    Attributes:
        records: The number of records.
        problems: A sentence for each problem, by line; empty for an intact log.
        unsigned: The number of records without a signature, which anyone could have written.
        unknown: The number of records signed with unavailable keys; each is a problem too.
        head: The MAC of the last record, to be stored elsewhere.
    """

    records: int
    problems: list[str]
    unsigned: int
    unknown: int
    head: str


def verify_folder(folder: StorageLike, exports: Iterable[Manifest], keys: Iterable[Key]) -> VerificationResult:
    """Verify the log of a folder against its manifests and tombstones.

    Args:
        folder: The folder or the object store of the exports.
        exports: All manifests of the folder, each of which contains a head of the log.
        keys: The available keys.
    """
    log, exports = AuditLog(folder), list(exports)
    anchors = {f"{each.stem}.manifest.json": each.audit_head for each in exports}
    verdict = verify(
        log, bind_keys(folder, keys), anchors, signed=bool(exports) and all(each.key_id for each in exports)
    )
    try:
        require_state(folder, find_last_state(log.records()))
    except ExportFileError as error:
        verdict.problems.append(str(error))
    verdict.problems.extend(_unrecorded(log.records(), exports))
    return verdict


def _unrecorded(records: Iterable[Record], exports: Iterable[Manifest]) -> Iterator[str]:
    """Return the events that manifests prove and the log lacks, for example because its tail was cut."""
    records = list(records)
    runs, erasures = {each.get("run") for each in records}, [each for each in records if each["event"] == "erased"]
    for export in exports:
        if export.run not in runs:
            yield f"the log does not record how {export.stem} was created: records are missing"
        if export.erased_rows and not erasures:
            yield f"rows were erased from {export.stem}, and the log records no erasure: records are missing"


def verify(
    log: AuditLog, keys: Iterable[Key], anchors: Mapping[str, str], *, signed: bool = False
) -> VerificationResult:
    """Verify the MAC chain of an audit log.

    Args:
        log: Which.
        keys: The available keys.
        anchors: Heads that are held elsewhere, with the names of those who hold them.
        signed: Whether every record has to be signed, since all exports are of a key.
    """
    by_id = {key.id: key for key in keys}
    problems, macs, number, torn = [], [CHAIN_START], 0, b""
    unsigned = unknown = 0
    for place, line in enumerate(log.lines(), 1):
        record = line.record
        if record is None:
            torn, fault = line.content, torn and "no record"
        else:
            number += 1
            link = _Link(number, macs[-1], hashlib.sha256(torn).hexdigest() if torn else None)
            fault = _find_problem(record, link, by_id, is_signed=signed)
            unsigned += record.get("key_id") is None
            unknown += record.get("key_id") is not None and record["key_id"] not in by_id
            signed = signed or record.get("key_id") is not None
            torn = b""
            macs.append(str(record["mac"]))
        if fault:
            problems.append(f"line {place}: {fault}")
    if torn:
        problems.append("the last line is torn; the next record will say so")
    problems += [
        f"the head in {name} is missing: the log was cut" for name, mac in anchors.items() if mac not in {*macs}
    ]
    return VerificationResult(len(macs) - 1, problems, unsigned, unknown, macs[-1])


class _Link(NamedTuple):
    """Contain what a record must have at its position: the number, the previous MAC, the digest of a torn line."""

    number: int
    previous: str
    torn: str | None


def _find_problem(record: Record, link: _Link, by_id: Mapping[str, Key], *, is_signed: bool) -> str:
    """Return the problem of a record at its position; "" if there is none."""
    if record.get("number") != link.number:
        return f"record {record.get('number')} stands where {link.number} should"
    if record.get("previous") != link.previous:
        return "it does not follow the record before it"
    if record.get("torn") != link.torn:
        return "the line before it is no record"
    key_id = record.get("key_id")
    if key_id is None and is_signed:
        return "it is not signed by a key, as it has to be"
    if key_id is not None and key_id not in by_id:
        return "it is signed with an unavailable key: pass it with --key-file"
    if record["mac"] != compute_mac(record, by_id[key_id] if key_id else None):
        return "it was changed"
    return ""
