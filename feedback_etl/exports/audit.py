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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from feedback_etl.clock import resolve_now
from feedback_etl.errors import FolderLockedError, KeyMissingError
from feedback_etl.privacy.keys import Key, get_key_id, sign
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
"""A record as JSON has it: the fields of `RecordFields`, and those of its event."""


class RecordFields(TypedDict):
    """The fields of every record; its MAC covers all others too, so they are not forbidden."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)  # type: ignore[misc]

    number: int
    at: str
    event: str
    user: str
    host: str
    key_id: str | None
    previous: str
    mac: str


_RECORD = TypeAdapter(RecordFields)


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
            record: Record = json.loads(content)
            _RECORD.validate_python(record)  # its own order of the fields stays
        except (ValueError, RecursionError):  # ValidationError is a ValueError
            return cls(content, None)
        return cls(content, record)


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
        "key_id": get_key_id(key),
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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())
