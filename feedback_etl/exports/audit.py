"""The audit log of an export folder: who did what to it and when, in a chain that shows tampering.

`.feedback_etl/audit.jsonl` holds one JSON object a line. Each record carries a MAC (HMAC-SHA256, RFC 2104) over itself
and the MAC before it, under a key derived from the pseudonym key that it names; without a key, a plain SHA-256. So a
record that was changed, removed, put in or moved does not fit. A cut tail shows up to the last head that something
else holds: each manifest has one, and so has what `--json` prints. Whoever holds the key can rewrite the whole log.

No record holds an id, a pseudonym or a value of a row.
"""

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from feedback_etl.clock import resolve_now
from feedback_etl.errors import FolderLockedError, KeyMissingError
from feedback_etl.privacy.keys import Key, sign
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.errors import explain_read_errors, refuse_links
from feedback_etl.storage.locks import acquire_lock
from feedback_etl.storage.posix import fsync_directory, make_private_folder, open_private_file
from feedback_etl.storage.whole_files import WholeFile

CHAIN_START = "0" * 64
"""What the first record of a chain follows."""

LOG_TIMEOUT = 60.0
_BLOCK_BYTES = 65_536

Record = dict[str, Any]


class AuditLog:
    """Read and append to the audit log of one folder, which the first record creates."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATE_FOLDER / "audit.jsonl"

    @contextmanager
    def lock(self, timeout: float = LOG_TIMEOUT) -> Iterator["LockedAuditLog"]:
        """Lock the log for one process and one thread, for a short time.

        Raises:
            OSError: It cannot be opened.
            FolderLockedError: It was held for longer than `timeout` seconds.
        """
        refuse_links(self.path.parent, self.path)
        make_private_folder(self.path.parent)
        is_new = not self.path.exists()
        with open_private_file(self.path) as file:
            if not acquire_lock(file.fileno(), timeout):
                raise FolderLockedError(f"{self.path} has been held by another process for {timeout:g} s; run again.")
            if is_new:
                fsync_directory(self.path.parent)
            yield LockedAuditLog(file)

    def records(self) -> list[Record]:
        """Return all readable records in order; none if there is no log."""
        return [line.record for line in self.lines() if line.record is not None]

    def lines(self) -> list["Line"]:
        """Return all lines, including those without a record."""
        return [Line.of(line) for line in self._content().split(b"\n") if line]

    def _content(self) -> bytes:
        refuse_links(self.path.parent, self.path)
        with explain_read_errors(self.path):
            return self.path.read_bytes() if self.path.is_file() else b""

    def require_signer(self, key: Key | None) -> None:
        """Require a key if the log is signed, so that no unsigned record, which anyone could write, follows.

        Raises:
            KeyMissingError: There is no key, and the last record is signed.
        """
        if key is None and any(record["key_id"] for record in self.records()[-1:]):
            raise KeyMissingError(
                "The audit log of this folder is signed, and there is no key to sign what is done now. Pass the key, "
                "or configure it (feedback-etl keys show)."
            )

    def head(self) -> str:
        """Return the MAC of the last record."""
        records = self.records()
        return str(records[-1]["mac"]) if records else CHAIN_START


class Line(NamedTuple):
    """Contain a line of a log and its record; None if a crash tore the line or it is invalid."""

    content: bytes
    record: Record | None

    @classmethod
    def of(cls, content: bytes) -> "Line":
        """Parse a line."""
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            return cls(content, None)
        return cls(content, record if _is_record(record) else None)


_TEXTS = ("mac", "previous", "at", "event", "user", "host")


def _is_record(record: Any) -> bool:
    """Return whether a parsed line has the fields of a record."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("number"), int)
        and isinstance(record.get("key_id", 0), str | None)
        and all(isinstance(record.get(name), str) for name in _TEXTS)
    )


class LockedAuditLog:
    """Read and append to an audit log under its lock."""

    def __init__(self, file: WholeFile) -> None:
        self._file = file

    def records(self) -> list[Record]:
        """Return all records so far."""
        self._file.seek(0)
        lines = map(Line.of, self._file.read().split(b"\n"))
        return [line.record for line in lines if line.record is not None]

    def append(self, event: str, key: Key | None, /, **facts: Any) -> str:
        """Append a record durably and return its MAC, the new head.

        Raises:
            OSError: It cannot be written; what cannot be removed of it counts as torn.
        """
        last, torn = self._last()
        facts |= {"torn": hashlib.sha256(torn).hexdigest()} if torn else {}
        record = build_record(event, key, facts, last)
        self._file.append(b"\n" * bool(torn) + encode_record(record))
        return str(record["mac"])

    def _last(self) -> tuple[Record | None, bytes]:
        """Return the last record and the unterminated line that a crash left after it."""
        tail = self._tail()
        complete, _, torn = tail.rpartition(b"\n")
        for line in reversed(complete.split(b"\n")):
            if (record := Line.of(line).record) is not None:
                return record, torn
        return None, torn

    def _tail(self) -> bytes:
        """Return the end of the file, with at least one complete record if the file has one."""
        start = self._file.seek(0, os.SEEK_END)
        while start:
            start = max(0, start - _BLOCK_BYTES)
            self._file.seek(start)
            tail = self._file.read()
            _, _, rest = tail.partition(b"\n")
            whole = (tail if start == 0 else rest).rpartition(b"\n")[0]
            if any(Line.of(line).record for line in whole.split(b"\n")):
                return tail if start == 0 else rest
        self._file.seek(0)
        return self._file.read()


def build_record(event: str, key: Key | None, facts: Mapping[str, Any], last: Record | None) -> Record:
    """Build the record of an event that happens now, linked to the last record."""
    record = {
        "number": last["number"] + 1 if last else 1,
        "at": resolve_now().isoformat(timespec="milliseconds") + "Z",
        "event": event,
        "user": _user(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        **facts,
        "key_id": key.id if key else None,
        "previous": last["mac"] if last else CHAIN_START,
    }
    return record | {"mac": compute_mac(record, key)}


def encode_record(record: Record) -> bytes:
    """Encode a record as a line of the log."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def compute_mac(record: Mapping[str, Any], key: Key | None) -> str:
    """Compute the MAC of a record over all other fields, the previous MAC included: 64 hex characters."""
    content = {name: value for name, value in record.items() if name != "mac"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return sign(key, "audit", text)


class VerificationResult(NamedTuple):
    """Contain the result of verifying an audit log.

    Attributes:
        records: How many there are.
        problems: Sentences on what does not match, by line; empty for an intact log.
        unsigned: Records without a key's signature, which anybody could have written.
        unknown: Records signed with unavailable keys, each a problem: it may contain anything.
        head: The MAC of the last record, to be kept elsewhere.
    """

    records: int
    problems: list[str]
    unsigned: int
    unknown: int
    head: str


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
            fault = _find_problem(record, number, macs[-1], torn, by_id, signed)
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


def _find_problem(
    record: Record, number: int, previous: str, torn: bytes, by_id: Mapping[str, Key], signed: bool
) -> str:
    """Return the problem of a record at its position; "" if there is none."""
    if record.get("number") != number:
        return f"record {record.get('number')} stands where {number} should"
    if record.get("previous") != previous:
        return "it does not follow the record before it"
    if record.get("torn") != (hashlib.sha256(torn).hexdigest() if torn else None):
        return "the line before it is no record"
    key_id = record.get("key_id")
    if key_id is None and signed:
        return "it is not signed by a key, as it has to be"
    if key_id is not None and key_id not in by_id:
        return "it is signed with an unavailable key: pass it with --key-file"
    if record["mac"] != compute_mac(record, by_id[key_id] if key_id else None):
        return "it was changed"
    return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())
