"""The audit log in an object store: `.feedback_etl/audit/00000001.json` and so on, an object for each record.

Objects can be neither appended to nor locked. A record is therefore put under the next number on the condition that no
object exists there; after a conflict the new records are read, and the put is repeated under the number after them.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from feedback_etl.exports.audit import LOG_TIMEOUT, AuditLog, Line, LockedAuditLog, Record, build_record, encode_record
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.base import STATE_FOLDER, Storage

LOG = f"{STATE_FOLDER}/audit.jsonl"


class ObjectAuditLog(AuditLog):
    """Read and append to the audit log in an object store."""

    def __init__(self, bucket: Storage) -> None:
        super().__init__(Path())
        self._bucket = bucket

    @contextmanager
    def lock(self, timeout: float = LOG_TIMEOUT) -> Iterator["OptimisticAuditLog"]:  # noqa: ARG002
        """Return the log; an object store has no lock to wait for."""
        yield OptimisticAuditLog(self._bucket)

    def _content(self) -> bytes:
        """Return one line a record; an empty object or a gap in the numbers gives one invalid line."""
        lines, last = list[bytes](), 0
        for number, content in self._bucket.read_numbered(LOG).items():
            lines += [b"missing"] if number > last + 1 else []  # one, however many: anybody can put any number
            lines.append(content.strip() or b"missing")
            last = number
        return b"".join(line + b"\n" for line in lines)


class OptimisticAuditLog(LockedAuditLog):
    """Append records with optimistic concurrency, against the log as it was last read."""

    def __init__(self, bucket: Storage) -> None:
        self._bucket = bucket
        self._lines: dict[int, Line] = {}

    def records(self) -> list[Record]:
        """Return all records so far."""
        new = self._bucket.read_numbered(LOG, after=self._number)
        self._lines |= {number: Line.of(content.rstrip(b"\n")) for number, content in new.items()}
        return self._known

    @property
    def _number(self) -> int:
        return max(self._lines, default=0)

    @property
    def _known(self) -> list[Record]:
        return [line.record for line in self._lines.values() if line.record is not None]

    def append(self, event: str, key: Key | None, /, **facts: Any) -> str:
        """Append a record after all others and return its MAC, the new head."""
        while True:
            self.records()
            with suppress(FileExistsError):
                return self.append_next(event, key, **facts)

    def append_next(self, event: str, key: Key | None, /, **facts: Any) -> str:
        """Append a record to those that were read, if none has been added since.

        Raises:
            FileExistsError: One has been.
        """
        # Records of two who did the same in the same moment differ: the second must not be taken for the first.
        facts["nonce"] = secrets.token_hex(8)
        record = build_record(event, key, facts, next(iter(self._known[::-1]), None))
        content, number = encode_record(record), self._number + 1
        self._bucket.put_numbered(LOG, number, content)
        self._lines[number] = Line.of(content)
        return str(record["mac"])
