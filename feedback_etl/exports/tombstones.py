"""Whom a folder has forgotten: keyed digests that keep them from coming back with a later export.

`.feedback_etl/tombstones.jsonl` holds a line for each erased user and analysis. A digest is an HMAC under a key that is
derived for this purpose alone, so that it is no pseudonym and nothing in an export equals it.
"""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from feedback_etl.exports.names import STATE_FOLDER
from feedback_etl.expressions import hash_id
from feedback_etl.privacy.keys import Key, sign, signed
from feedback_etl.private_files import make_private_folder, open_private_file

Kind = Literal["user", "pseudonym"]

_LENGTH = 32


class Tombstones(NamedTuple):
    """The digests of one key.

    Attributes:
        users: Of user ids.
        pseudonyms: Of the pseudonyms of analyses.
    """

    users: frozenset[str]
    pseudonyms: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.users or self.pseudonyms)


def digest(kind: Kind, text: str, key: Key | None) -> str:
    """What stands for a user id or a pseudonym: 32 hex characters."""
    return sign(key, f"tombstone {kind}", text.encode())[:_LENGTH]


def is_forgotten(tombstones: Tombstones, key: Key | None) -> pl.Expr:
    """Whether a raw row is of somebody who was forgotten."""
    pseudonym = hash_id("analysis_id", key=key, unkeyed=key is None)
    user = pl.col("user_id").cast(pl.String)
    return pl.any_horizontal(
        _digest_of("user", user, key).is_in(sorted(tombstones.users)),
        _digest_of("pseudonym", pseudonym, key).is_in(sorted(tombstones.pseudonyms)),
    ).fill_null(value=False)


def _digest_of(kind: Kind, text: pl.Expr, key: Key | None) -> pl.Expr:
    """`digest` for a column."""
    return signed(text, f"tombstone {kind}", key).str.slice(0, _LENGTH)


def read_tombstones(folder: Path, key: Key | None) -> Tombstones:
    """Whom exports under a key have forgotten."""
    path = folder / STATE_FOLDER / "tombstones.jsonl"
    found: dict[str, set[str]] = {"user": set(), "pseudonym": set()}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # torn by a crash; the erasure was not done and is run again
            continue
        if record["key_id"] == (key.id if key else None):
            found[record["kind"]].add(record["digest"])
    return Tombstones(frozenset(found["user"]), frozenset(found["pseudonym"]))


def add_tombstones(folder: Path, kind: Kind, texts: Iterable[str], key: Key | None) -> None:
    """Remember to forget; on disk when this returns. Who is remembered already is not added again.

    Raises:
        OSError: They cannot be written.
    """
    known = read_tombstones(folder, key)
    digests = {digest(kind, text, key) for text in texts} - (known.users if kind == "user" else known.pseudonyms)
    if not digests:
        return
    key_id = key.id if key else None
    lines = [json.dumps({"kind": kind, "digest": each, "key_id": key_id}) for each in sorted(digests)]
    make_private_folder(folder / STATE_FOLDER)
    with open(open_private_file(folder / STATE_FOLDER / "tombstones.jsonl"), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        start = "" if file.read(1) in (b"", b"\n") else "\n"
        file.seek(0, os.SEEK_END)
        file.write((start + "\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
