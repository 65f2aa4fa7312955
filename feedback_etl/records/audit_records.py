"""Records of an audit log: JSON objects that carry a MAC over themselves and over the MAC before them."""

import getpass
import json
import os
import pwd
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from feedback_etl.clock import resolve_now
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records import canonical_json
from feedback_etl.records.layout import STEM

CHAIN_START = "0" * 64
"""The MAC that the first record of a chain follows."""

RECORD_VERSION = 2
"""The version of records; since version 2, the manifests of the exports that a record names are signed."""

END_EVENTS = {"committed", "failed", "recovered"}
"""The events that end a run."""

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


class Line(NamedTuple):
    """Contain a line of a log and its record; None if a crash tore the line or it is invalid."""

    content: bytes
    record: Record | None

    @classmethod
    def of(cls, content: bytes) -> "Line":
        """Parse a line."""
        try:
            record: Record = canonical_json.load_unique(content)
            _RECORD.validate_python(record)  # its own order of the fields stays
        except (ValueError, RecursionError):  # ValidationError is a ValueError
            return cls(content, None)
        return cls(content, record)


def build_record(event: str, key: Key | None, details: Mapping[str, Any], last: Record | None) -> Record:
    """Build the record of an event that happens now, linked to the last record."""
    record = {
        "number": last["number"] + 1 if last else 1,
        "at": resolve_now().isoformat(timespec="milliseconds") + "Z",
        "event": event,
        "user": _get_user(),
        "login": _get_claimed_login(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "version": RECORD_VERSION,
        **details,
        "key_id": get_key_id(key),
        "previous": last["mac"] if last else CHAIN_START,
    }
    return record | {"mac": compute_mac(record, key)}


def encode_record(record: Record) -> bytes:
    """Encode a record as a line of the log."""
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def compute_mac(record: Mapping[str, Any], key: Key | None) -> str:
    """Compute the MAC of a record over all other fields, the previous MAC included: 64 hex characters."""
    return canonical_json.compute_mac("audit", record, key)


def _get_user() -> str:
    """Return the name of the process's real user id, or the id itself: a container's user may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _get_claimed_login() -> str:
    """Return the login name of the environment, which its user can set to anything: a claim."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def has_valid_stem(record: Record) -> bool:
    """Return whether a record has a valid stem, so that a forged log cannot point elsewhere."""
    texts = record.get("stem"), record.get("run")
    return all(isinstance(text, str) for text in texts) and STEM.fullmatch(record["stem"]) is not None


def find_ends(records: Iterable[Record]) -> dict[Any, Record]:
    """Return the record of the end of each run that has one, by run."""
    return {record.get("run"): record for record in records if record["event"] in END_EVENTS}


def list_unfinished(records: Iterable[Record]) -> list[Record]:
    """Return the records of the starts of the runs without an end, if they have a valid stem."""
    records = list(records)
    ends, starts = find_ends(records), [record for record in records if record["event"] == "started"]
    return [record for record in starts if has_valid_stem(record) and record["run"] not in ends]


def is_swept_since(records: Iterable[Record], run: str) -> bool:
    """Return whether a sweep (`erase --not-in-database`) was recorded after the start of a run."""
    records = list(records)
    start = next((number for number, record in enumerate(records) if record.get("run") == run), len(records))
    return any(record.get("swept") for record in records[start:])
