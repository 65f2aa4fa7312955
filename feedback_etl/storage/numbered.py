"""Append-only files in an object store, as numbered objects: `audit/00000001.json` and so on for `audit.jsonl`.

Nothing can be appended to an object. Each addition is therefore an object of its own under the next number, put on the
condition that none exists there. Contents are cached and read again only if their version has changed.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import NamedTuple

from feedback_etl.errors import ExportFileError
from feedback_etl.storage.base import LOCK_TIMEOUT, Storage, Version

_CONCURRENCY = 16
_DIGITS = 8
_NUMBERED = re.compile(rf"([0-9]{{{_DIGITS}}})\.json")


class NumberedObjects(Storage):
    """Implement the append-only files of a storage by its other methods."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[Version, bytes]] = {}

    def append_lines(self, name: str, content: bytes) -> None:
        """Put an object under the next free number."""
        while True:
            with suppress(FileExistsError):
                return self.put_numbered(name, max(self._list_numbered(name), default=0) + 1, content)

    def read_lines(self, name: str) -> bytes:
        """Return the concatenated contents of all numbered objects, in order."""
        return b"".join(self.read_numbered(name).values())

    def read_numbered(self, name: str, *, after: int = 0) -> dict[int, bytes]:
        listed = {number: entry for number, entry in self._list_numbered(name).items() if number > after}
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            return dict(zip(listed, pool.map(lambda entry: self._read_cached(*entry), listed.values()), strict=True))

    def put_numbered(self, name: str, number: int, content: bytes) -> None:
        if number >= 10**_DIGITS:
            raise ExportFileError(self._describe_gap(name))
        path = f"{_get_object_folder(name)}/{number:0{_DIGITS}}.json"
        self._cache[path] = (self.put_new(path, content), content)

    @contextmanager
    def open_lines(self, name: str, timeout: float = LOCK_TIMEOUT) -> Iterator["_NumberedLines"]:  # noqa: ARG002
        """Open the objects, without a lock."""
        yield _NumberedLines(self, name)

    def _read_cached(self, path: str, version: Version) -> bytes:
        cached = self._cache.get(path)
        if cached is None or not version or cached[0] != version:
            content, version = self.read_version(path)
            cached = self._cache[path] = (version, content)
        return cached[1]

    def _list_numbered(self, name: str) -> dict[int, tuple[str, Version]]:
        """Return the path and the version of each numbered object by number, in ascending order."""
        folder, listed = _get_object_folder(name), self.list_files(_get_object_folder(name))
        matches = [(_NUMBERED.fullmatch(path.removeprefix(f"{folder}/")), path) for path in sorted(listed)]
        return {int(match[1]): (path, listed[path].version) for match, path in matches if match}

    def _describe_gap(self, name: str) -> str:
        listed = self._list_numbered(name)
        last_gap = max((number for number in listed if number - 1 not in listed), default=0)
        path, _ = listed.get(last_gap, (_get_object_folder(name), ""))
        return (
            f"{self.uri(path)} was not written by feedback_etl: it does not follow the object before it, and leaves no "
            "number for the next one. Remove it and all objects after it, and run again."
        )


class _NumberedLines(NamedTuple):
    """The numbered objects of an append-only file."""

    storage: NumberedObjects
    name: str

    def read(self, *, after: int = 0) -> dict[int, bytes]:
        return self.storage.read_numbered(self.name, after=after)

    def put(self, number: int, content: bytes) -> None:
        self.storage.put_numbered(self.name, number, content)


def _get_object_folder(name: str) -> str:
    """Return the folder of the numbered objects of a file: `audit` for `audit.jsonl`."""
    return str(PurePosixPath(name).with_suffix(""))
