"""A prefix of a bucket in an object store: Amazon S3 and whatever speaks its protocol, Google and Azure.

An object appears whole or not at all, and can be put on condition: that there is none of the name, or that it is still
the one that was read. That is all that is needed here; there are neither links nor modes nor locks. Credentials are
found where the store's own tools find them: environment, profile, role of the machine.

A request that fails is tried again a few times. When the answer to a conditional put was lost, what is there is
compared with what was sent before anything is called a conflict.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from feedback_etl.errors import ExportFileError
from feedback_etl.storage.errors import explain_staging_errors
from feedback_etl.storage.numbered import NumberedObjects
from feedback_etl.storage.posix import create_private_file
from feedback_etl.storage.urls import (
    RETRIES,
    TIMEOUT_SECONDS,
    AmbiguousRequestError,
    normalize_url,
    open_client,
    translate_errors,
)

MAX_ATTEMPTS = 3
"""Retries of operations that failed after the client's own retries of each request."""

_AT_ONCE = 16
_BLOCK_BYTES = 1 << 20

Result = TypeVar("Result")


class ObjectVersion(NamedTuple):
    """Identify one version of an object: by generation on Google Cloud Storage, by ETag elsewhere."""

    etag: str = ""
    generation: str | None = None


class ObjectInfo(NamedTuple):
    """Describe an object of a listing by its size in bytes and its ETag."""

    bytes: int
    etag: str


class ConflictError(ExportFileError):
    """Report that an object has changed since it was read."""


class ObjectStorage(NumberedObjects):
    """Store exports below a prefix of a bucket; implements `base.Storage`."""

    def __init__(self, url: str, *, retries: int = RETRIES, timeout: float = TIMEOUT_SECONDS) -> None:
        """Prepare a client; `timeout` is in seconds for each request."""
        super().__init__()
        self.url = normalize_url(url)
        self._retries, self._timeout = retries, timeout

    def __str__(self) -> str:
        return self.url

    @cached_property
    def _store(self) -> Any:
        return open_client(self.url, self._retries, self._timeout)

    @property
    def _client(self) -> Any:
        """Return the client library, once it is known to be installed."""
        _ = self._store
        import obstore

        return obstore

    def exists(self) -> bool:
        """Return whether any object exists below the prefix."""
        return bool(self._again(lambda client: next(iter(client.list(self._store, chunk_size=1)), [])))

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the objects in a folder, without hidden ones."""
        return list(self.etags(folder))

    def etags(self, folder: str) -> dict[str, str]:
        """Return the ETags of the objects in a folder by sorted name, without hidden ones."""
        found = self._again(lambda client: client.list_with_delimiter(self._store, folder or None)["objects"])
        etags = {each["path"]: each["e_tag"] or "" for each in found}
        return {path: etags[path] for path in sorted(etags) if not PurePosixPath(path).name.startswith(".")}

    def folders(self) -> list[str]:
        """Return the sorted names of the folders, without hidden ones."""
        found = self._again(lambda client: client.list_with_delimiter(self._store, None)["common_prefixes"])
        return sorted(name for each in found if not (name := str(each).rstrip("/")).startswith("."))

    def listed(self, folder: str = "") -> dict[str, ObjectInfo]:
        """Return all objects below a folder by name."""
        found = self._again(lambda client: client.list(self._store, folder or None).collect())
        return {each["path"]: ObjectInfo(each["size"], each["e_tag"] or "") for each in found}

    def present(self, names: Iterable[str]) -> set[str]:
        """Return the given names that exist, with a single listing."""
        return {*names} & {*self.listed()}

    def read(self, name: str) -> bytes:
        """Return the content of a small object."""
        return self.read_version(name)[0]

    def read_version(self, name: str) -> tuple[bytes, ObjectVersion]:
        """Return the content of a small object and its version."""

        def read(client: Any) -> tuple[bytes, ObjectVersion]:
            found = client.get(self._store, name)
            return bytes(found.bytes()), _version(found.meta)

        return self._again(read)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Download an object into a private temporary folder."""
        with self.fetched_version(name) as (path, _):
            yield path

    @contextmanager
    def fetched_version(self, name: str) -> Iterator[tuple[Path, ObjectVersion]]:
        """Download an object and return the path of the copy and its version."""

        def fetch(client: Any) -> ObjectVersion:
            found = client.get(self._store, name)
            path.unlink(missing_ok=True)  # of an attempt that was cut off
            with create_private_file(path) as file:
                for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                    file.write(block)
            return _version(found.meta)

        with self.draft(name) as path:
            yield path, self._again(fetch)

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        """Provide a path in a private temporary folder."""
        with explain_staging_errors(self.url), TemporaryDirectory(prefix="feedback_etl-") as folder:
            yield Path(folder, PurePosixPath(name).name)

    def create(self, name: str, source: Path) -> None:
        """Put a file as a new object; an existing object with the same content is no conflict."""
        self.put(name, source)

    def put(self, name: str, content: bytes | Path, instead_of: ObjectVersion | None = None) -> ObjectVersion:
        """Put an object that does not exist yet, or replace the version that was read.

        Raises:
            FileExistsError: There is one, with another content.
            Changed: It is no longer the one that was read.
        """
        taken: Exception = (
            ConflictError(f"{self.address(name)} was changed meanwhile.") if instead_of else FileExistsError(name)
        )
        failed = taken
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._put(name, content, instead_of)
            except (FileExistsError, FileNotFoundError):
                failed = taken
            except AmbiguousRequestError as error:
                failed = error
            there = self._version_of(name)
            if there and self._holds(name, content):
                return there
            if there != instead_of:  # neither what was sent nor what was there before
                raise taken
        raise failed

    def replace(self, name: str, content: bytes) -> None:
        """Put an object unconditionally."""
        self._again(lambda client: client.put(self._store, name, content))

    def _put(self, name: str, content: bytes | Path, instead_of: ObjectVersion | None) -> ObjectVersion:
        client = self._client
        mode: Any = "create"
        if instead_of is not None:
            version = {"version": instead_of.generation} if instead_of.generation is not None else {}
            mode = {"e_tag": instead_of.etag} | version
        with translate_errors(self.url):
            return _version(client.put(self._store, name, content, mode=mode))

    def _version_of(self, name: str) -> ObjectVersion | None:
        try:
            return self._again(lambda client: _version(client.head(self._store, name)))
        except FileNotFoundError:
            return None

    def _holds(self, name: str, content: bytes | Path) -> bool:
        """Return whether an object has this content."""
        try:
            return self.described(name) == _measure(content)
        except FileNotFoundError:
            return False

    def described(self, name: str) -> tuple[int, str]:
        """Return the size in bytes and the SHA-256 digest of an object, which is downloaded for it."""

        def describe(client: Any) -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            for block in client.get(self._store, name).stream(min_chunk_size=_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
            return size, digest.hexdigest()

        return self._again(describe)

    def remove(self, name: str) -> None:
        """Delete an object, if it exists."""
        with suppress(FileNotFoundError):
            self._again(lambda client: client.delete(self._store, name))

    def remove_all(self, names: Sequence[str]) -> None:
        """Delete many objects in few requests."""
        try:
            self._again(lambda client: client.delete(self._store, list(names)))
        except FileNotFoundError:  # some stores say so, and may have left out what follows
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self.remove, names))

    def address(self, name: str) -> str:
        """Return the URL of an object, for Polars."""
        return f"{self.url}/{name}"

    def _again(self, act: Callable[[Any], Result]) -> Result:
        """Run an idempotent request and retry it after an ambiguous failure."""
        client = self._client
        for _ in range(MAX_ATTEMPTS - 1):
            with suppress(AmbiguousRequestError), translate_errors(self.url):
                return act(client)
        with translate_errors(self.url):
            return act(client)


def _version(told: Any) -> ObjectVersion:
    return ObjectVersion(told["e_tag"] or "", told["version"])


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
