"""The pseudonym key: made, read, named by an id that reveals nothing, and never shown."""

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

from feedback_etl.errors import ExportFileError, KeyUnusable
from feedback_etl.storage.posix import (
    give_name,
    make_private_folder,
    sync_folder,
    temporary_path,
    write_private_file,
)
from feedback_etl.transform.expressions import MIN_KEY_BYTES

_ID_MESSAGE = b"feedback_etl pseudonym key id"
"""What a key signs to make its id. It holds no colon, so it can never be an id to pseudonymise."""

_MOST_BYTES = 65_536
"""Far more than a key file needs: a greater one is another file."""


class KeyPermissionWarning(UserWarning):
    """A key file can be read by others than its owner."""


@dataclass(frozen=True)
class Key:
    """A pseudonym key: text of at least 32 bytes, surrounding white space stripped. Its repr shows the id alone.

    Raises:
        KeyUnusable: The text has fewer than 32 bytes, or is no text.

    >>> Key("k" * 32)
    Key(id='f847815c5347')
    """

    text: str = field(repr=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        content = _stripped(self.text)
        if content is None:  # raised here, since an error about the text would hold it
            raise KeyUnusable("The pseudonym key is not UTF-8 text.")
        if len(content) < MIN_KEY_BYTES:
            raise KeyUnusable(
                f"The pseudonym key has {len(content)} bytes; it needs at least {MIN_KEY_BYTES}. "
                "`feedback-etl keys new` makes one."
            )
        object.__setattr__(self, "text", content.decode())
        object.__setattr__(self, "id", hmac.new(content, _ID_MESSAGE, hashlib.sha256).hexdigest()[:12])

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Key is not pickled: what is pickled travels. Let each process find its own.")

    @classmethod
    def parse(cls, key: "Key | str") -> "Key":
        """The key itself, or one made of its text."""
        return key if isinstance(key, Key) else cls(key)

    @classmethod
    def parse_all(cls, keys: "Key | str | Iterable[Key | str]") -> "list[Key]":
        """The keys of a list of them or of their texts; a single one is a list of one."""
        return [cls.parse(key) for key in ([keys] if isinstance(keys, Key | str) else keys)]


def sign(key: Key | None, purpose: str, content: bytes) -> str:
    """What nobody without the key can make: 64 hex characters; without a key, a digest that anybody can.

    HMAC-SHA256 (RFC 2104) under a key that is derived for the purpose, so that it equals no pseudonym.

    >>> sign(Key("k" * 32), "audit", b"content")[:16], sign(None, "audit", b"content")[:16]
    ('8059cd02156e07e0', 'da0cb5e496d242f2')
    """
    if key is None:
        return hashlib.sha256(f"feedback_etl {purpose}:".encode() + content).hexdigest()
    return hmac.new(_derived(key, purpose).encode(), content, hashlib.sha256).hexdigest()


def sign_column(text: pl.Expr, purpose: str, key: Key | None) -> pl.Expr:
    """`sign` for a column of text; null stays null."""
    if key is None:
        plain: pl.Expr = (pl.lit(f"feedback_etl {purpose}:") + text).chash.sha2_256()  # type: ignore[attr-defined]
        return plain
    keyed: pl.Expr = text.chash.hmac_sha256(key=_derived(key, purpose))  # type: ignore[attr-defined]
    return keyed


def _derived(key: Key, purpose: str) -> str:
    """A key for one purpose, as text: the HMAC of the purpose's name."""
    return hmac.new(key.text.encode(), f"feedback_etl {purpose}".encode(), hashlib.sha256).hexdigest()


def _stripped(text: str) -> bytes | None:
    """The bytes of a key; None for bytes instead of text, or text that an environment of another encoding gave."""
    try:
        return text.strip().encode()
    except (AttributeError, UnicodeEncodeError):
        return None


def generate_key() -> Key:
    """A fresh key: 64 hex characters from 32 random bytes of the operating system."""
    return Key(secrets.token_hex(32))


def write_key(path: Path) -> Key:
    """Make a key and write it to a file that only its owner can read (0600, folders we make 0700).

    Raises:
        ExportFileError: The file exists already (a key is never overwritten), or it cannot be written.
    """
    key = generate_key()
    _write_key(key, path)
    return key


def _write_key(key: Key, path: Path) -> None:
    temporary = temporary_path(path.parent, path.name)
    try:
        make_private_folder(path.parent)
        write_private_file(temporary, f"{key.text}\n".encode())
        give_name(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        raise ExportFileError(
            f"{path} exists and is left as it is: exports made with its key need it. Name another file."
        ) from None
    except OSError as error:
        raise ExportFileError(f"The key could not be written to {path}: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


class RetiredKey(NamedTuple):
    """A key that serves erasure and audit only, and its file."""

    key: Key
    path: Path


def read_retired_keys(folder: Path | None) -> list[RetiredKey]:
    """The keys that were retired, by their ids; none where there is no such folder.

    Raises:
        KeyUnusable: One cannot be read, or the folder cannot be.
    """
    return [RetiredKey(read_key(path), path) for path in _list_retired(folder)]


def is_retired(key: Key, folder: Path | None) -> bool:
    """Return whether a key is among the retired ones of a folder.

    Raises:
        KeyUnusable: The folder cannot be read.
    """
    return any(path.name == key.id for path in _list_retired(folder))


def _list_retired(folder: Path | None) -> list[Path]:
    """List the files of retired keys; none where there is no such folder."""
    try:
        paths = sorted(folder.iterdir()) if folder else []
        return [path for path in paths if not path.name.startswith(".") and path.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KeyUnusable(
            f"The folder of retired keys {folder} cannot be read: {error.strerror}. Make it readable for this user, or "
            "set retired_keys to another folder."
        ) from None


def retire_key(path: Path, folder: Path) -> RetiredKey:
    """Move a key file to the retired ones, where it is called by its id. A mounted secret stays where it is, too.

    Raises:
        KeyUnusable: There is no key in the file.
        ExportFileError: It cannot be written.
    """
    key = read_key(path)
    place = folder / key.id
    if not is_retired(key, folder):
        _write_key(key, place)
    with suppress(OSError):
        path.unlink()
    return RetiredKey(key, place)


def read_key(path: Path) -> Key:
    """Read a key file.

    Warns:
        KeyPermissionWarning: Others than the owner can read the file (mounted secrets are often so).

    Raises:
        KeyUnusable: The file is missing or unreadable, others can write to it, or it holds no key.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MOST_BYTES + 1) if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        raise KeyUnusable(f"There is no key file {path}. `feedback-etl keys new --file {path}` makes one.") from None
    except OSError as error:
        raise KeyUnusable(f"The key file {path} cannot be read: {error.strerror}.") from None
    if content is None or len(content) > _MOST_BYTES:
        raise KeyUnusable(f"{path} is no key file: it is no regular file, or larger than {_MOST_BYTES:,} bytes.")
    if mode & 0o022:
        raise KeyUnusable(f"Others can write to the key file {path}; it is not used. Mend it: chmod 600 {path}")
    if mode & 0o044:
        warnings.warn(
            f"Others can read the key file {path}; if it is not a mounted secret: chmod 600 {path}",
            KeyPermissionWarning,
            stacklevel=2,
        )
    try:
        return Key(content.decode(errors="surrogateescape"))
    except KeyUnusable as error:
        raise KeyUnusable(f"{path}: {error}") from None
