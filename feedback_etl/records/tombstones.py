"""Tombstones: keyed digests of erased people, which keep them out of later exports.

`.feedback_etl/tombstones.jsonl` has a line for each user and each analysis of an erasure; in an object store, where
nothing can be added to a file, `.feedback_etl/tombstones/` has an object for each erasure and key. A digest is an HMAC
under a key that is derived for this purpose alone, so that it is not a pseudonym and nothing in an export equals it. An
erasure writes a complete set under each key that it knows; a holder of one of these keys can determine from raw rows
who was erased. The last line of each set is its seal: a MAC over the lines before it and the head that the audit log of
the folder had, so that the set is of no use in another folder. The log may be moved with it, and the folder renamed.

Without a key the digests are plain SHA-256, and anyone who can list the ids can determine who was erased.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import polars as pl
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from feedback_etl.errors import ExportFileError, KeyMissingError
from feedback_etl.privacy.keys import Key, get_key_id, sign, sign_column
from feedback_etl.records.canonical_json import load_unique
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.location import StorageLike, open_storage
from feedback_etl.transform.expressions import hash_id

Kind = Literal["user", "pseudonym"]

TOMBSTONES = f"{STATE_FOLDER}/tombstones.jsonl"

_LENGTH = 32


class Tombstone(TypedDict):
    """A line of the file: the digest of a user id or a pseudonym, or the seal that ends a set, under a key."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)  # type: ignore[misc]

    erasure: str
    kind: Literal["user", "pseudonym", "seal"]
    digest: str
    key_id: str | None


_TOMBSTONE = TypeAdapter(Tombstone)


class Tombstones(NamedTuple):
    """Contain the digests under one key.

    Attributes:
        key: Under which; None for plain digests.
        users: Of user ids.
        pseudonyms: Of the pseudonyms that the same key makes of analyses.
    """

    key: Key | None
    users: frozenset[str]
    pseudonyms: frozenset[str]


def hash_identity(kind: Kind, text: str, key: Key | None) -> str:
    """Return the digest of a user id or a pseudonym: 32 hex characters."""
    return sign(key, f"tombstone {kind}", text.encode())[:_LENGTH]


def is_erased(tombstones: Sequence[Tombstones]) -> pl.Expr:
    """Return an expression that is true for raw rows of erased people."""
    matches = [pl.lit(value=False)]
    for key, users, pseudonyms in tombstones:
        pseudonym = hash_id("analysis_id", key=key, unkeyed=key is None)
        matches.append(hash_column("user", pl.col("user_id").cast(pl.String), key).is_in(sorted(users)))
        matches.append(hash_column("pseudonym", pseudonym, key).is_in(sorted(pseudonyms)))
    return pl.any_horizontal(match.fill_null(value=False) for match in matches)


def hash_column(kind: Kind, text: pl.Expr, key: Key | None) -> pl.Expr:
    """Return `hash_identity` of a column."""
    return sign_column(text, f"tombstone {kind}", key).str.slice(0, _LENGTH)


class TombstoneState(NamedTuple):
    """Contain the size in bytes and the digest of the append-only file at some time."""

    bytes: int
    sha256: str

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> "TombstoneState":
        """Return the state that the last erasure recorded in the audit log."""
        states = [record.get("tombstones") for record in records if record["event"] == "erased"]
        match [state for state in states if state is not None][-1:]:
            case [[int(size), str(digest)]]:
                return cls(size, digest)
        return cls(0, hashlib.sha256(b"").hexdigest())


class TombstoneFile:
    """The tombstones of a storage as they are when this is created.

    Attributes:
        path: The path or URL of the file, for messages.
        content: The content of the file.
    """

    def __init__(self, where: StorageLike) -> None:
        self._storage = open_storage(where)
        self.path, self.content = f"{self._storage}/{TOMBSTONES}", self._storage.read_lines(TOMBSTONES)

    @property
    def state(self) -> TombstoneState:
        """Return the size and the digest of the file."""
        return TombstoneState(len(self.content), hashlib.sha256(self.content).hexdigest())

    @cached_property
    def _records(self) -> list[Tombstone]:
        return [record for _, record in self.list_lines()]

    def _parse(self, line: bytes) -> Tombstone | None:
        """Return the tombstone of a line; None if a crash tore it: that erasure was not done, and is run again."""
        try:
            return _TOMBSTONE.validate_python(load_unique(line))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return None
        except ValueError:  # ValidationError is one
            raise ExportFileError(f"{self.path} contains a line that is not a tombstone; nothing was done.") from None

    @property
    def erasures(self) -> frozenset[str]:
        """Return the ids of all erasures."""
        return frozenset(record["erasure"] for record in self._records)

    @property
    def are_signed(self) -> bool:
        """Return whether there are tombstones under a key."""
        return any(record["key_id"] for record in self._records)

    def list_digests(self, key: Key | None) -> set[str]:
        """Return all digests under a key."""
        return {record["digest"] for record in self._records if record["key_id"] == get_key_id(key)}

    def list_erased_since(self, erasures: frozenset[str], key: Key | None) -> frozenset[str]:
        """Return the digests of the pseudonyms that were erased after these erasures.

        Raises:
            ExportFileError: There was an erasure that did not know the key.
        """
        new, key_id = [record for record in self._records if record["erasure"] not in erasures], get_key_id(key)
        if any(key_id not in ids for ids in _find_signers(new).values()):
            raise ExportFileError("Meanwhile people were erased under another key: nothing was published. Run again.")
        own = [record for record in new if (record["kind"], record["key_id"]) == ("pseudonym", key_id)]
        return frozenset(record["digest"] for record in own)

    def select(self, keys: Iterable[Key | None], *, only: frozenset[str] | None = None) -> list[Tombstones]:
        """Return the tombstones by key, using as few of the keys as possible, earlier keys first.

        Args:
            keys: The available keys.
            only: The ids of the erasures to include; all by default.

        Raises:
            KeyMissingError: An erasure has tombstones under other keys only.
        """
        records = [record for record in self._records if only is None or record["erasure"] in only]
        by_id: dict[str | None, Key | None] = {}
        for key in keys:
            by_id.setdefault(get_key_id(key), key)
        signers = _find_signers(records)
        chosen = {erasure: next((key_id for key_id in by_id if key_id in ids), "") for erasure, ids in signers.items()}
        if ids := sorted({str(key_id) for group, chose in chosen.items() if chose == "" for key_id in signers[group]}):
            raise KeyMissingError(
                f"{self._storage} contains erasures under the key {' or '.join(ids)}, which is not available: erased "
                "people could come back. Retire that key here (feedback-etl keys retire --file FILE), or export into "
                "another folder (--output)."
            )
        digests: dict[str | None, dict[str, set[str]]] = {}
        for record in records:
            if record["key_id"] == chosen[record["erasure"]] and record["kind"] != "seal":
                kinds = digests.setdefault(record["key_id"], {"user": set(), "pseudonym": set()})
                kinds[record["kind"]].add(record["digest"])
        return [
            Tombstones(by_id[key_id], frozenset(kinds["user"]), frozenset(kinds["pseudonym"]))
            for key_id, kinds in digests.items()
        ]

    def require_state(self, state: TombstoneState) -> None:
        """Require that the file still begins with the recorded content.

        Raises:
            ExportFileError: It was changed or removed.
        """
        start = self.content[: state.bytes]
        if len(start) < state.bytes or hashlib.sha256(start).hexdigest() != state.sha256:
            raise ExportFileError(
                f"{self.path} is missing or was changed: erased people could come back. Restore it, or export into "
                "another folder (--output)."
            )

    def list_lines(self, start: int = 0) -> list[tuple[bytes, Tombstone]]:
        """Return the lines from a position on that are not torn."""
        parsed = ((line, self._parse(line)) for line in self.content[start:].splitlines())
        return [(line, record) for line, record in parsed if record is not None]


def _find_signers(records: Iterable[Tombstone]) -> dict[str, set[str | None]]:
    """Return the key ids of each erasure."""
    signers: dict[str, set[str | None]] = {}
    for record in records:
        signers.setdefault(record["erasure"], set()).add(record["key_id"])
    return signers


def compute_seal(lines: Iterable[bytes], key: Key, head: str = "") -> str:
    """Compute the MAC over the lines of a set and a head of the audit log (without it, as earlier versions did)."""
    return sign(key, "tombstones", b"\n".join([*lines, *([head.encode()] if head else [])]))


def add_tombstones(  # noqa: PLR0913  one call
    folder: StorageLike, erasure: str, users: Iterable[str], pseudonyms: Iterable[str], key: Key | None, *, head: str
) -> None:
    """Append the tombstones of an erasure under a key; they are durable when this returns.

    Args:
        folder: The folder.
        erasure: The id of the erasure.
        users: The ids of users.
        pseudonyms: The pseudonyms of analyses under this key.
        key: The key of the digests; None for plain ones.
        head: The MAC of a record of the folder's audit log, which binds them to the folder.

    Raises:
        OSError: They cannot be written.
    """
    key_id = get_key_id(key)
    texts: dict[Kind, Iterable[str]] = {"user": users, "pseudonym": pseudonyms}
    digests = sorted({(kind, hash_identity(kind, text, key)) for kind, some in texts.items() for text in some})

    def encode(kind: str, digest: str) -> bytes:
        return json.dumps({"erasure": erasure, "kind": kind, "digest": digest, "key_id": key_id}).encode()

    lines = [encode(kind, digest) for kind, digest in digests]
    lines += [encode("seal", compute_seal(lines, key, head))] if key and lines else []
    if lines:
        open_storage(folder).append_lines(TOMBSTONES, b"\n".join(lines) + b"\n")
