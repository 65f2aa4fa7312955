"""Pseudonym keys: generate, read and write them. A key is shown by its id alone, which does not reveal it."""

import functools
import hashlib
import hmac
import os
import secrets
import shlex
import stat
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import polars as pl

from feedback_etl.errors import ExportFileError, KeyUnusableError
from feedback_etl.storage.final_names import link_exclusive
from feedback_etl.storage.posix import (
    fsync_directory,
    make_private_folder,
    temporary_path,
    write_private_file,
)
from feedback_etl.transform.expressions import (
    MIN_KEY_BYTES,
    PSEUDONYM_LENGTH,
    PSEUDONYM_LENGTHS,
    require_pseudonym_length,
)
from feedback_etl.transform.key_strength import MIN_KEY_BITS, estimate_key_bits
from feedback_etl.transform.keyed_digest import hmac_sha256

_ID_MESSAGE = b"feedback_etl pseudonym key id"
"""The salt of the ids of keys, and the message whose HMAC is the id of earlier versions."""

_SCRYPT_COST = {"n": 2**14, "r": 8, "p": 1}
"""RFC 7914 section 2: 16 MiB and about 50 ms for each id, and so for each guess at the key of an id."""

_MAX_BYTES = 65_536
"""Far more than a key file needs: a larger file is not a key file."""


class KeyPermissionWarning(UserWarning):
    """Warn that users other than the owner can read a key file."""


@dataclass(frozen=True)
class Key:
    """A pseudonym key: text of at least 32 bytes; surrounding white space is stripped, and the repr shows the id alone.

    Args:
        text: The key.
        accept_weak: Accept a key that can be guessed: to read exports that were made with it, or for published data.
        has_legacy_id: Take the id of earlier versions, by which older folders name the key.
        pseudonym_length: The hex characters of its pseudonyms, 16 or 32.

    Raises:
        KeyUnusableError: The key has fewer than 32 bytes, is not UTF-8 text, or can be guessed (`estimate_key_bits`).
        UsageError: Pseudonyms have another length.

    >>> Key("daa0871acd4ebc9edb39ffe5bb8b89c8")
    Key(id='s-c52ffeb9e4a9')
    """

    text: str = field(repr=False)
    accept_weak: bool = field(default=False, repr=False, compare=False, kw_only=True)
    has_legacy_id: bool = field(default=False, repr=False, compare=False, kw_only=True)
    pseudonym_length: int = field(default=PSEUDONYM_LENGTH, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        content = _encode(self.text)
        if content is None:  # raised here, since the original error contains the key
            raise KeyUnusableError("The pseudonym key is not UTF-8 text.")
        if len(content) < MIN_KEY_BYTES:
            raise KeyUnusableError(
                f"The pseudonym key has {len(content)} bytes; it needs at least {MIN_KEY_BYTES}. "
                "Create one with `feedback-etl keys new --file FILE`."
            )
        if not self.accept_weak and estimate_key_bits(content.decode()) < MIN_KEY_BITS:
            raise KeyUnusableError(
                "The pseudonym key can be guessed. Create one with `feedback-etl keys new --file FILE`; to erase from "
                "or verify exports made with this one, retire it (`feedback-etl keys retire --file FILE`)."
            )
        require_pseudonym_length(self.pseudonym_length)
        object.__setattr__(self, "text", content.decode())

    def __repr__(self) -> str:
        return f"Key(id={self.id!r})"

    @property
    def id(self) -> str:
        """The id of the key: `s-` and 12 hex characters of scrypt, computed once per process when it is needed.

        With long pseudonyms `-32` follows: they match no short ones, as if they were of another key.
        """
        name = self.legacy_id if self.has_legacy_id else _derive_id(self.text)
        return name if self.pseudonym_length == PSEUDONYM_LENGTH else f"{name}-{self.pseudonym_length}"

    @property
    def legacy_id(self) -> str:
        """The id of earlier versions: 12 hex characters of an HMAC, against which guesses are tested at full speed."""
        return hmac.new(self.text.encode(), _ID_MESSAGE, hashlib.sha256).hexdigest()[:12]

    def with_legacy_id(self) -> "Key":
        """Return the same key under its id of earlier versions."""
        return replace(self, accept_weak=True, has_legacy_id=True)

    def with_length(self, length: int) -> "Key":
        """Return the same key for pseudonyms of at least this length; other lengths than 16 and 32 are refused."""
        require_pseudonym_length(length)
        return replace(self, accept_weak=True, pseudonym_length=max(length, self.pseudonym_length))

    def list_forms(self) -> "list[Key]":
        """Return the key under each id that it can have in a folder, legacy ids first, which are computed faster."""
        as_before = [replace(self, accept_weak=True, has_legacy_id=legacy) for legacy in (True, False)]
        return [replace(key, pseudonym_length=length) for key in as_before for length in PSEUDONYM_LENGTHS]

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Key cannot be pickled, so that it does not leave its process. Look it up in each process.")

    @classmethod
    def parse(cls, key: "Key | str") -> "Key":
        """Return the key itself, or the key with this text."""
        return key if isinstance(key, Key) else cls(key)

    @classmethod
    def parse_all(cls, keys: "Key | str | Iterable[Key | str]") -> "list[Key]":
        """Return a list of keys for existing exports, which may be weak; a single one gives a list of one."""
        given = [keys] if isinstance(keys, Key | str) else keys
        return [key if isinstance(key, Key) else cls(key, accept_weak=True) for key in given]


@functools.lru_cache(maxsize=16)
def _derive_id(text: str) -> str:
    digest = hashlib.scrypt(text.encode(), salt=_ID_MESSAGE, **_SCRYPT_COST, dklen=6)
    return f"s-{digest.hex()}"


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
    return hmac.new(derive_key(key, purpose).encode(), content, hashlib.sha256).hexdigest()


def sign_column(text: pl.Expr, purpose: str, key: Key | None) -> pl.Expr:
    """Sign a column of text as `sign` does; null stays null."""
    if key is None:
        plain: pl.Expr = (pl.lit(f"feedback_etl {purpose}:") + text).chash.sha2_256()  # type: ignore[attr-defined]
        return plain
    return hmac_sha256(text, derive_key(key, purpose))


def derive_key(key: Key, purpose: str) -> str:
    """Derive the text of a key for one purpose: the HMAC of the purpose's name."""
    return hmac.new(key.text.encode(), f"feedback_etl {purpose}".encode(), hashlib.sha256).hexdigest()


def _encode(text: str) -> bytes | None:
    """Return the bytes of a key; None if it is not text, or was decoded with another encoding."""
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
    write_key_file(key, path)
    return key


def write_key_file(key: Key, path: Path) -> None:
    """Write a key to a new file, as `write_key` does."""
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


def read_key(path: Path, *, accept_weak: bool = False) -> Key:
    """Read a key file; `accept_weak` as for `Key`.

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
            f"The key file {path} does not exist. For a new key: feedback-etl keys new --file {shlex.quote(str(path))}"
        ) from None
    except OSError as error:
        raise KeyUnusableError(f"The key file {path} cannot be read: {error.strerror}.") from None
    if content is None or len(content) > _MAX_BYTES:
        limit = f"larger than {_MAX_BYTES:,} bytes"
        raise KeyUnusableError(f"{path} is not a key file: it is not a regular file, or {limit}.")
    chmod = f"chmod 600 {shlex.quote(str(path))}"
    if mode & 0o022:
        raise KeyUnusableError(f"Other users can write to the key file {path}, so it is not used. Fix it: {chmod}")
    if mode & 0o044:
        warnings.warn(
            f"Other users can read the key file {path}. Unless it is a mounted secret, run: {chmod}",
            KeyPermissionWarning,
            stacklevel=2,
        )
    try:
        return Key(content.decode(errors="surrogateescape"), accept_weak=accept_weak)
    except KeyUnusableError as error:
        raise KeyUnusableError(f"{path}: {error}") from None
