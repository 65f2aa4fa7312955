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
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from feedback_etl.errors import FolderLockedError, KeyMissingError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_records import CHAIN_START, Line, Record, build_record, encode_record
from feedback_etl.storage.base import STATE_FOLDER, Storage
from feedback_etl.storage.errors import explain_read_errors, refuse_links
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.storage.locks import acquire_lock
from feedback_etl.storage.posix import fsync_directory, make_private_folder, open_private_file, read_regular_file
from feedback_etl.storage.whole_files import WholeFile

LOG = f"{STATE_FOLDER}/audit.jsonl"
LOG_TIMEOUT = 60.0
_BLOCK_BYTES = 65_536


class AuditLog:
    """Read and append to the audit log of a storage, which the first record creates.

    Attributes:
        path: The path of the log of a folder.
    """

    def __init__(self, where: StorageLike) -> None:
        self._storage = open_storage(where)
        self.path = (self._storage.local_path() or Path()) / LOG

    @contextmanager
    def lock(self, timeout: float = LOG_TIMEOUT) -> Iterator["LockedAuditLog"]:
        """Lock the log for one process and one thread, for a short time; an object store has no lock to wait for.

        Raises:
            OSError: It cannot be opened.
            FolderLockedError: It was held for longer than `timeout` seconds.
        """
        if not self._storage.has_locks:
            yield LockedAuditLog(_NumberedObjects(self._storage))
            return
        refuse_links(self.path.parent, self.path)
        make_private_folder(self.path.parent)
        is_new = not self.path.exists()
        with open_private_file(self.path) as file:
            if not acquire_lock(file.fileno(), timeout):
                raise FolderLockedError(f"{self.path} has been held by another process for {timeout:g} s; run again.")
            if is_new:
                fsync_directory(self.path.parent)
            yield LockedAuditLog(_LockedFile(file))

    def records(self) -> list[Record]:
        """Return all readable records in order; none if there is no log."""
        return [line.record for line in self.lines() if line.record is not None]

    def lines(self) -> list["Line"]:
        """Return all lines, including those without a record."""
        return [Line.of(line) for line in self.content().split(b"\n") if line]

    def content(self) -> bytes:
        """Return the log as it is stored; empty if there is none."""
        if not self._storage.has_locks:
            return self._join_objects()
        refuse_links(self.path.parent, self.path)
        with explain_read_errors(self.path):
            return read_regular_file(self.path) if self.path.exists() else b""

    def _join_objects(self) -> bytes:
        """Return one line a record; an empty object or a gap in the numbers gives one invalid line."""
        lines, last = list[bytes](), 0
        for number, content in self._storage.read_numbered(LOG).items():
            lines += [b"missing"] if number > last + 1 else []  # one, however long the gap: anyone can put any number
            lines.append(content.strip() or b"missing")
            last = number
        return b"".join(line + b"\n" for line in lines)

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

    def __init__(self, lines: "_LockedFile | _NumberedObjects") -> None:
        self._lines = lines

    def records(self) -> list[Record]:
        """Return all records so far."""
        return [line.record for line in self.lines() if line.record is not None]

    def lines(self) -> list[Line]:
        """Return all lines so far, including those without a record."""
        self._lines.read_new()
        return self._lines.all()

    def append(self, event: str, key: Key | None, /, **details: Any) -> str:
        """Append a record durably after all others and return its MAC, the new head.

        Raises:
            OSError: It cannot be written; what cannot be removed of it counts as torn.
        """
        while True:
            self._lines.read_new()
            with suppress(FileExistsError):
                return self.append_next(event, key, **details)

    def append_next(self, event: str, key: Key | None, /, **details: Any) -> str:
        """Append a record to those that were read; under a lock, none can have been added since.

        Raises:
            FileExistsError: One was added, in an object store.
        """
        last, origin = self._lines.find_last()
        record = build_record(event, key, details | origin, last)
        self._lines.append(encode_record(record))
        return str(record["mac"])


class _LockedFile:
    """Read and append the lines of the log of a folder, whose file is locked."""

    def __init__(self, file: WholeFile) -> None:
        self._file = file

    def read_new(self) -> None:
        """Do nothing: no other process appends."""

    def all(self) -> list[Line]:
        """Return all lines."""
        self._file.seek(0)
        return [Line.of(line) for line in self._file.read().split(b"\n") if line]

    def find_last(self) -> tuple[Record | None, dict[str, str]]:
        """Return the last record, and the digest of the unterminated line that a crash left after it."""
        complete, _, torn = self._read_tail().rpartition(b"\n")
        records = (Line.of(line).record for line in reversed(complete.split(b"\n")))
        last = next((record for record in records if record is not None), None)
        return last, {"torn": hashlib.sha256(torn).hexdigest()} if torn else {}

    def append(self, content: bytes) -> None:
        """Append a line, after terminating a torn one."""
        self._file.append_lines(content)

    def _read_tail(self) -> bytes:
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


class _NumberedObjects:
    """Read and append the lines of the log of an object store, each of which is an object with a number."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lines: dict[int, Line] = {}

    def read_new(self) -> None:
        """Read the lines that were added since the last reading."""
        new = self._storage.read_numbered(LOG, after=max(self._lines, default=0))
        self._lines |= {number: Line.of(content.rstrip(b"\n")) for number, content in new.items()}

    def all(self) -> list[Line]:
        """Return all lines that were read; a gap in the numbers gives an invalid one."""
        gap = [Line(b"missing", None)] if len(self._lines) != max(self._lines, default=0) else []
        return [*gap, *self._lines.values()]

    def find_last(self) -> tuple[Record | None, dict[str, str]]:
        """Return the last record that was read, and a nonce.

        The nonce keeps equal records of two processes apart: an equal object counts as a put of one's own.
        """
        records = (line.record for line in reversed(self._lines.values()))
        return next((record for record in records if record is not None), None), {"nonce": secrets.token_hex(8)}

    def append(self, content: bytes) -> None:
        """Put a line under the number after those that were read, if that is free; else raise FileExistsError."""
        number = max(self._lines, default=0) + 1
        self._storage.put_numbered(LOG, number, content)
        self._lines[number] = Line.of(content)
