"""Pseudonym keys: generate, read, write and retire them. A key is shown by its id alone, which does not reveal it."""

import hashlib
import hmac
import os
import secrets
import stat
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

import polars as pl

from feedback_etl.errors import ExportFileError, KeyUnusableError
from feedback_etl.storage.posix import (
    fsync_directory,
    link_exclusive,
    make_private_folder,
    temporary_path,
    write_private_file,
)
from feedback_etl.transform.expressions import MIN_KEY_BYTES
from feedback_etl.transform.keyed_digest import hmac_sha256

_ID_MESSAGE = b"feedback_etl pseudonym key id"
"""Message whose HMAC is the id of a key. It contains no colon, so it equals no input of a pseudonym."""

_MAX_BYTES = 65_536
"""Far more than a key file needs: a larger file is no key file."""


class KeyPermissionWarning(UserWarning):
    """Warn that users other than the owner can read a key file."""


@dataclass(frozen=True)
class Key:
    """A pseudonym key: text of at least 32 bytes; surrounding white space is stripped, and the repr shows the id alone.

    Raises:
        KeyUnusableError: The key has fewer than 32 bytes, or is no UTF-8 text.

    >>> Key("daa0871acd4ebc9edb39ffe5bb8b89c8")
    Key(id='e9bcd2a2c7ee')
    """

    text: str = field(repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        content = _encode(self.text)
        if content is None:  # raised here, since the original error contains the key
            raise KeyUnusableError("The pseudonym key is not UTF-8 text.")
        if len(content) < MIN_KEY_BYTES:
            raise KeyUnusableError(
                f"The pseudonym key has {len(content)} bytes; it needs at least {MIN_KEY_BYTES}. "
                "Create one with `feedback-etl keys new`."
            )
        object.__setattr__(self, "text", content.decode())
        object.__setattr__(self, "id", hmac.new(content, _ID_MESSAGE, hashlib.sha256).hexdigest()[:12])

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Key cannot be pickled, so that it does not leave its process. Look it up in each process.")

    @classmethod
    def parse(cls, key: "Key | str") -> "Key":
        """Return the key itself, or the key with this text."""
        return key if isinstance(key, Key) else cls(key)

    @classmethod
    def parse_all(cls, keys: "Key | str | Iterable[Key | str]") -> "list[Key]":
        """Return a list of keys from keys or their texts; a single one gives a list of one."""
        return [cls.parse(key) for key in ([keys] if isinstance(keys, Key | str) else keys)]


def get_key_id(key: Key | None) -> str | None:
    """Return the id of a key; None without one."""
    return key.id if key else None


def sign(key: Key | None, purpose: str, content: bytes) -> str:
    """Return the HMAC-SHA256 (RFC 2104) of content under a key derived for the purpose, as 64 hex characters.

    The derived key keeps it apart from pseudonyms. Without a key it is a SHA-256 digest, which anyone can compute.

    >>> sign(Key("daa0871acd4ebc9edb39ffe5bb8b89c8"), "audit", b"content")[:16], sign(None, "audit", b"content")[:16]
    ('7dcefb7f215152d9', 'da0cb5e496d242f2')
    """
    if key is None:
        return hashlib.sha256(f"feedback_etl {purpose}:".encode() + content).hexdigest()
    return hmac.new(_derive_key(key, purpose).encode(), content, hashlib.sha256).hexdigest()


def sign_column(text: pl.Expr, purpose: str, key: Key | None) -> pl.Expr:
    """Sign a column of text as `sign` does; null stays null."""
    if key is None:
        plain: pl.Expr = (pl.lit(f"feedback_etl {purpose}:") + text).chash.sha2_256()  # type: ignore[attr-defined]
        return plain
    return hmac_sha256(text, _derive_key(key, purpose))


def _derive_key(key: Key, purpose: str) -> str:
    """Derive the text of a key for one purpose: the HMAC of the purpose's name."""
    return hmac.new(key.text.encode(), f"feedback_etl {purpose}".encode(), hashlib.sha256).hexdigest()


def _encode(text: str) -> bytes | None:
    """Return the bytes of a key; None if it is no text, or was decoded with another encoding."""
    try:
        return text.strip().encode()
    except (AttributeError, UnicodeEncodeError):
        return None


def generate_key() -> Key:
    """Generate a key: 64 hex characters from 32 random bytes of the operating system."""
    return Key(secrets.token_hex(32))


def write_key(path: Path) -> Key:
    """Generate a key and write it to a new file that only its owner can read (0600; created folders 0700).

    Raises:
        ExportFileError: The file exists (a key is never overwritten), or cannot be written.
    """
    key = generate_key()
    _write_key(key, path)
    return key


def _write_key(key: Key, path: Path) -> None:
    temporary = temporary_path(path.parent, path.name)
    try:
        make_private_folder(path.parent)
        write_private_file(temporary, f"{key.text}\n".encode())
        link_exclusive(temporary, path)
        fsync_directory(path.parent)
    except FileExistsError:
        raise ExportFileError(
            f"The key file {path} exists and is not overwritten: exports made with its key need it. Name another file."
        ) from None
    except OSError as error:
        raise ExportFileError(f"The key could not be written to {path}: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


class RetiredKey(NamedTuple):
    """A key that is used for erasure and audit only, and its file."""

    key: Key
    path: Path


def read_retired_keys(folder: Path | None) -> list[RetiredKey]:
    """Read the retired keys of a folder, ordered by id; a missing folder has none.

    Raises:
        KeyUnusableError: A key or the folder cannot be read.
    """
    return [RetiredKey(read_key(path), path) for path in _list_retired(folder)]


def is_retired(key: Key, folder: Path | None) -> bool:
    """Return whether a key is retired.

    Raises:
        KeyUnusableError: The folder cannot be read.
    """
    return any(path.name == key.id for path in _list_retired(folder))


def _list_retired(folder: Path | None) -> list[Path]:
    """List the files of retired keys; a missing folder has none."""
    try:
        paths = sorted(folder.iterdir()) if folder else []
        return [path for path in paths if not path.name.startswith(".") and path.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KeyUnusableError(
            f"The folder of retired keys {folder} cannot be read: {error.strerror}. Make it readable for this user, or "
            "set retired_keys to another folder."
        ) from None


def retire_key(path: Path, folder: Path) -> RetiredKey:
    """Move a key file to the folder of retired keys, under its id; a mounted secret is copied.

    Raises:
        KeyUnusableError: The file contains no key.
        ExportFileError: The retired key cannot be written.
    """
    key = read_key(path)
    retired_path = folder / key.id
    if not is_retired(key, folder):
        _write_key(key, retired_path)
    with suppress(OSError):
        path.unlink()
    return RetiredKey(key, retired_path)


def read_key(path: Path) -> Key:
    """Read a key file.

    Warns:
        KeyPermissionWarning: Users other than the owner can read the file, as is usual for mounted secrets.

    Raises:
        KeyUnusableError: The file is missing or unreadable, other users can write to it, or it contains no key.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_BYTES + 1) if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        raise KeyUnusableError(
            f"The key file {path} does not exist. Create it: feedback-etl keys new --file {path}"
        ) from None
    except OSError as error:
        raise KeyUnusableError(f"The key file {path} cannot be read: {error.strerror}.") from None
    if content is None or len(content) > _MAX_BYTES:
        raise KeyUnusableError(f"{path} is not a key file: it is no regular file, or larger than {_MAX_BYTES:,} bytes.")
    if mode & 0o022:
        raise KeyUnusableError(
            f"Other users can write to the key file {path}, so it is not used. Fix it: chmod 600 {path}"
        )
    if mode & 0o044:
        warnings.warn(
            f"Other users can read the key file {path}. Unless it is a mounted secret, run: chmod 600 {path}",
            KeyPermissionWarning,
            stacklevel=2,
        )
    try:
        return Key(content.decode(errors="surrogateescape"))
    except KeyUnusableError as error:
        raise KeyUnusableError(f"{path}: {error}") from None
