"""The audit log of a storage of exports: who did what to it and when, in a chain that shows tampering.

Each record carries a MAC (HMAC-SHA256, RFC 2104) over itself and the MAC before it, under a key derived from the
pseudonym key that it names; without a key, a plain SHA-256. A record that was changed, removed, inserted or moved
therefore does not match. A truncated tail is detected by the last head that was kept elsewhere: each manifest contains
one, and `--json` prints it. Anyone with the key can rewrite the whole log.

In a folder the log is `.feedback_etl/audit.jsonl`, one JSON object a line, and appended to under its lock. Objects can
be neither appended to nor locked: each record is an object `.feedback_etl/audit/00000001.json` and so on, put under the
next number on the condition that no object exists there; after a conflict the new records are read, and the put is
repeated under the number after them.

No record contains an id, a pseudonym or a value of a row.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from feedback_etl.errors import KeyMissingError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_records import CHAIN_START, Line, Record, build_record, encode_record
from feedback_etl.storage.base import LOCK_TIMEOUT, STATE_FOLDER, Lines
from feedback_etl.storage.errors import explain_read_errors
from feedback_etl.storage.location import StorageLike, open_storage

LOG = f"{STATE_FOLDER}/audit.jsonl"


class AuditLog:
    """Read and append to the audit log of a storage, which the first record creates.

    Attributes:
        path: The path of the log of a folder.
    """

    def __init__(self, where: StorageLike) -> None:
        self._storage = open_storage(where)
        self.path = Path(self._storage.uri(LOG))

    @contextmanager
    def lock(self, timeout: float = LOCK_TIMEOUT) -> Iterator["LockedAuditLog"]:
        """Lock the log for one process and one thread, for a short time; an object store has no lock to wait for.

        Raises:
            OSError: It cannot be opened.
            FolderLockedError: It was held for longer than `timeout` seconds.
        """
        with self._storage.open_lines(LOG, timeout) as lines:
            yield LockedAuditLog(lines, is_locked=self._storage.has_locks)

    def records(self) -> list[Record]:
        """Return all readable records in order; none if there is no log."""
        return [line.record for line in self.lines() if line.record is not None]

    def lines(self) -> list[Line]:
        """Return all lines, including those without a record."""
        with explain_read_errors(self._storage.uri(LOG)):
            return _parse(self._storage.read_numbered(LOG))

    def require_signer(self, key: Key | None) -> None:
        """Require a key if the log is signed, so that no unsigned record, which anyone could write, follows.

        Raises:
            KeyMissingError: There is no key, and the last record is signed.
        """
        if key is None and any(record["key_id"] for record in self.records()[-1:]):
            raise KeyMissingError(
                "The audit log of this folder is signed, and no key is configured to sign this change. Set "
                "FEEDBACK_ETL_KEY_FILE to the key file of its exports, or pass the key."
            )

    def head(self) -> str:
        """Return the MAC of the last record."""
        records = self.records()
        return str(records[-1]["mac"]) if records else CHAIN_START


class LockedAuditLog:
    """Read and append to an audit log under its lock; in an object store, against the log as it was last read."""

    def __init__(self, lines: Lines, *, is_locked: bool) -> None:
        self._file, self._is_locked = lines, is_locked
        self._lines: dict[int, bytes] = {}

    def records(self) -> list[Record]:
        """Return all records so far."""
        return [line.record for line in self.lines() if line.record is not None]

    def lines(self) -> list[Line]:
        """Return all lines so far, including those without a record."""
        self._read_new()
        return _parse(self._lines)

    def append(self, event: str, key: Key | None, /, **details: Any) -> str:
        """Append a record durably after all others and return its MAC, the new head.

        Raises:
            OSError: It cannot be written; what cannot be removed of it counts as torn.
        """
        while True:
            self._read_new()
            with suppress(FileExistsError):
                return self.append_next(event, key, **details)

    def append_next(self, event: str, key: Key | None, /, **details: Any) -> str:
        """Append a record to those that were read; under a lock, none can have been added since.

        Raises:
            FileExistsError: One was added, in an object store.
        """
        last, origin = self._find_last()
        record = build_record(event, key, details | origin, last)
        number, content = max(self._lines, default=0) + 1, encode_record(record)
        self._file.put(number, content)
        self._lines[number] = content
        return str(record["mac"])

    def _read_new(self) -> None:
        self._lines |= self._file.read(after=max(self._lines, default=0))

    def _find_last(self) -> tuple[Record | None, dict[str, str]]:
        """Return the last record that was read, and what the next record adds to it.

        In a folder that is the digest of an unterminated line that a crash left. In an object store it is a nonce,
        which keeps equal records of two processes apart: an equal object counts as one's own put.
        """
        contents, origin = [*self._lines.values()], dict[str, str]()
        if not self._is_locked:
            origin = {"nonce": secrets.token_hex(8)}
        elif contents and not contents[-1].endswith(b"\n"):
            origin = {"torn": hashlib.sha256(contents.pop()).hexdigest()}
        records = (Line.of(content.rstrip(b"\n")).record for content in reversed(contents))
        return next((record for record in records if record is not None), None), origin


def _parse(lines: Mapping[int, bytes]) -> list[Line]:
    """Parse numbered lines; a gap in the numbers, however long, and an empty object give an invalid line each."""
    parsed, last = list[Line](), 0
    for number, content in lines.items():
        contents = [b"", content] if number > last + 1 else [content]
        parsed += [Line.of(content.rstrip(b"\n") or b"missing") for content in contents]
        last = number
    return parsed
