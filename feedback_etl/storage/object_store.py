"""Storage of exports below a prefix of a bucket: Amazon S3, or a store that speaks its protocol.

An object appears completely or not at all. A put can require that no object of the name exists, or that it is still
the version that was read; there are no links, modes or locks. Credentials are those that the tools of the store find:
environment, profile, role of the machine.

Failed requests are retried. If the answer to a conditional put was lost, the existing object is compared with the
content that was sent before a conflict is reported.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from feedback_etl.storage.base import ConflictError, FileInfo, Version
from feedback_etl.storage.errors import explain_staging_errors
from feedback_etl.storage.numbered import NumberedObjects
from feedback_etl.storage.posix import create_private_file, hash_file
from feedback_etl.storage.urls import (
    POLARS_OPTIONS,
    RETRIES,
    TIMEOUT_SECONDS,
    AmbiguousRequestError,
    normalize_url,
    open_client,
    translate_errors,
)

MAX_ATTEMPTS = 3
"""Attempts of an operation; each request is also retried by the client."""

_CONCURRENCY = 16
_BLOCK_BYTES = 1 << 20

Result = TypeVar("Result")


class ObjectStorage(NumberedObjects):
    """Store exports below a prefix of a bucket."""

    has_locks = False
    files_at_once = 4
    polars_options = POLARS_OPTIONS

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

    def create(self) -> None:
        """Do nothing."""

    def explain_write_errors(self, folder: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Name the local temporary folder, in which files are written first."""
        return explain_staging_errors(self.url)

    def exists(self) -> bool:
        return bool(self._retry(lambda client: next(iter(client.list(self._store, chunk_size=1)), [])))

    def names(self, folder: str = "") -> list[str]:
        objects = self._retry(lambda client: client.list_with_delimiter(self._store, folder or None)["objects"])
        return sorted(meta["path"] for meta in objects if not PurePosixPath(meta["path"]).name.startswith("."))

    def folders(self) -> list[str]:
        prefixes = self._retry(lambda client: client.list_with_delimiter(self._store, None)["common_prefixes"])
        return sorted(name for prefix in prefixes if not (name := str(prefix).rstrip("/")).startswith("."))

    def list_files(self, folder: str = "") -> dict[str, FileInfo]:
        objects = self._retry(lambda client: client.list(self._store, folder or None).collect())
        return {meta["path"]: _get_info(meta) for meta in objects}

    def stat_files(self, names: Iterable[str]) -> dict[str, FileInfo]:
        """Return those of the named objects that exist, from one listing of their folder or of everything."""
        names = set(names)
        folders = {name.rpartition("/")[0] for name in names}
        listed = self.list_files(*folders) if len(folders) == 1 else self.list_files()
        return {name: info for name, info in listed.items() if name in names}

    def stat_with_digest(self, name: str) -> tuple[int, str]:
        def digest_content(client: Any) -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            for block in client.get(self._store, name).stream(min_chunk_size=_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
            return size, digest.hexdigest()

        return self._retry(digest_content)

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"

    def absolute_uri(self) -> str:
        return self.url

    def local_path(self, name: str = "") -> None:
        """Return None."""

    def refuse_links(self, *names: str) -> None:
        """Do nothing: an object store has no links."""

    def read_version(self, name: str) -> tuple[bytes, Version]:
        def read(client: Any) -> tuple[bytes, Version]:
            response = client.get(self._store, name)
            return bytes(response.bytes()), _get_version(response.meta)

        return self._retry(read)

    @contextmanager
    def local_copy_version(self, name: str) -> Iterator[tuple[Path, Version]]:
        """Download an object into a private temporary folder."""

        def download(client: Any) -> Version:
            response = client.get(self._store, name)
            path.unlink(missing_ok=True)  # of an interrupted attempt
            with create_private_file(path) as file:
                for block in response.stream(min_chunk_size=_BLOCK_BYTES):
                    file.write(block)
            return _get_version(response.meta)

        with self.staging_path(name) as path:
            yield path, self._retry(download)

    @contextmanager
    def staging_path(self, name: str) -> Iterator[Path]:
        """Provide a path in a private temporary folder."""
        with explain_staging_errors(self.url), TemporaryDirectory(prefix="feedback_etl-") as folder:
            yield Path(folder, PurePosixPath(name).name)

    def replacement_path(self, name: str) -> AbstractContextManager[Path]:
        """Provide a path in a private temporary folder."""
        return self.staging_path(name)

    def etag(self, version: Version) -> str:
        """Return the version, which is the ETag."""
        return version

    def put_new(self, name: str, content: bytes | Path) -> Version:
        """Put an object on the condition that none of the name exists (If-None-Match)."""
        return self._put_conditionally(name, content, None, FileExistsError(name))

    def replace(self, name: str, content: bytes | Path, if_match: Version) -> Version:
        """Put an object on the condition that the existing one has the given version (If-Match)."""
        conflict = ConflictError(f"{self.uri(name)} was changed meanwhile.")
        return self._put_conditionally(name, content, if_match, conflict)

    def _put_conditionally(
        self, name: str, content: bytes | Path, if_match: Version | None, conflict: Exception
    ) -> Version:
        failure = conflict
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._put(name, content, if_match)
            except (FileExistsError, FileNotFoundError):
                failure = conflict
            except AmbiguousRequestError as error:
                failure = error
            current = self._read_current_version(name)
            if current and self._has_content(name, content):
                return current
            if current != if_match:  # neither the content that was sent nor the version before it
                raise conflict
        raise failure

    def _put(self, name: str, content: bytes | Path, if_match: Version | None) -> Version:
        client = self._client
        mode: Any = "create" if if_match is None else {"e_tag": if_match}
        with translate_errors(self.url):
            return _get_version(client.put(self._store, name, content, mode=mode))

    def _read_current_version(self, name: str) -> Version | None:
        try:
            return self._retry(lambda client: _get_version(client.head(self._store, name)))
        except FileNotFoundError:
            return None

    def _has_content(self, name: str, content: bytes | Path) -> bool:
        try:
            return self.stat_with_digest(name) == _measure(content)
        except FileNotFoundError:
            return False

    def overwrite(self, name: str, content: bytes) -> None:
        """Put an object unconditionally."""
        self._retry(lambda client: client.put(self._store, name, content))

    def delete(self, *names: str) -> None:
        """Delete objects, many in one request."""
        if len(names) > 1:
            with suppress(FileNotFoundError):  # some stores report a missing object, and may skip those after it
                self._retry(lambda client: client.delete(self._store, list(names)))
                return
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            list(pool.map(self._delete_one, names))

    def _delete_one(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._retry(lambda client: client.delete(self._store, name))

    def lock(self, timeout: float) -> AbstractContextManager[None]:  # noqa: ARG002
        """Do nothing: an object store has no locks."""
        return nullcontext()

    def _retry(self, request: Callable[[Any], Result]) -> Result:
        """Send an idempotent request and repeat it after an ambiguous failure."""
        client = self._client
        for _ in range(MAX_ATTEMPTS - 1):
            with suppress(AmbiguousRequestError), translate_errors(self.url):
                return request(client)
        with translate_errors(self.url):
            return request(client)


def _get_version(meta: Any) -> Version:
    return meta["e_tag"] or ""


def _get_info(meta: Any) -> FileInfo:
    return FileInfo(meta["size"], _get_version(meta), int(meta["last_modified"].timestamp()) * 10**9)


def _measure(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    return content.stat().st_size, hash_file(content)
