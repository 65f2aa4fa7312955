"""Numbered objects that emulate an append-only file: `audit/00000001.json` and so on for `audit.jsonl`.

Nothing can be added to an object. So what is added is an object of its own, under the next number, on the condition
that there is none yet. What was read is read again only where its ETag is another.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from feedback_etl.errors import ExportFileError

_CONCURRENCY = 16
_DIGITS = 8
_NUMBERED = re.compile(rf"([0-9]{{{_DIGITS}}})\.json")


class NumberedObjects:
    """Read and append numbered objects, given the methods that list, read and put objects."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, bytes]] = {}

    def etags(self, folder: str) -> dict[str, str]:
        """Return the ETags of the objects in a folder by name, without hidden ones."""
        raise NotImplementedError

    def read_version(self, name: str) -> tuple[bytes, Any]:
        """Return the content of an object and its version."""
        raise NotImplementedError

    def put(self, name: str, content: bytes) -> Any:
        """Put an object that does not exist yet and return its version."""
        raise NotImplementedError

    def address(self, name: str) -> str:
        """Return the URL of an object."""
        raise NotImplementedError

    def grow(self, name: str, content: bytes) -> None:
        """Append an object under the next free number."""
        while True:
            with suppress(FileExistsError):
                return self.add_numbered(name, max(self._numbered(name), default=0) + 1, content)

    def grown(self, name: str) -> bytes:
        """Return the concatenated contents of all numbered objects, in order."""
        return b"".join(self.numbered(name).values())

    def numbered(self, name: str, *, after: int = 0) -> dict[int, bytes]:
        """Return the contents of the numbered objects of a file by number, in ascending order."""
        found = {number: each for number, each in self._numbered(name).items() if number > after}
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            return dict(zip(found, pool.map(lambda each: self._content(*each), found.values()), strict=True))

    def add_numbered(self, name: str, number: int, content: bytes) -> None:
        """Put the object with this number, if the number is free.

        Raises:
            FileExistsError: The number is taken.
            ExportFileError: No number is left, because a foreign object has one of the last.
        """
        if number >= 10**_DIGITS:
            raise ExportFileError(self._no_number_left(name))
        path = f"{_directory_of_objects(name)}/{number:0{_DIGITS}}.json"
        self._known[path] = (self.put(path, content).etag, content)

    def _content(self, path: str, etag: str) -> bytes:
        known = self._known.get(path)
        if known is None or not etag or known[0] != etag:
            content, version = self.read_version(path)
            known = self._known[path] = (version.etag, content)
        return known[1]

    def _numbered(self, name: str) -> dict[int, tuple[str, str]]:
        """Return the path and the ETag of each numbered object by number, in ascending order."""
        found = self.etags(_directory_of_objects(name)).items()
        matched = [(_NUMBERED.fullmatch(PurePosixPath(path).name), path, etag) for path, etag in found]
        return {int(match[1]): (path, etag) for match, path, etag in matched if match}

    def _no_number_left(self, name: str) -> str:
        numbers = self._numbered(name)
        strange = max((each for each in numbers if each - 1 not in numbers), default=0)  # all after it follow on it
        path, _ = numbers.get(strange, (_directory_of_objects(name), ""))
        return (
            f"{self.address(path)} is not of feedback_etl: it does not follow the object before it, and leaves no "
            "number for the next. Remove it, and what comes after it, and run again."
        )


def _directory_of_objects(name: str) -> str:
    """Return the folder of the numbered objects of a file: `audit` for `audit.jsonl`."""
    return str(PurePosixPath(name).with_suffix(""))
