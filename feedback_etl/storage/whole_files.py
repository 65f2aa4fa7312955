"""Files that are written whole: write(2) may accept a part of a buffer, which a raw file reports by a number alone."""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

_MAX_WRITE_BYTES = 1 << 30
"""Of one write(2): Linux accepts a page less than 2 GiB, and macOS refuses more."""
_BLOCK_BYTES = 1 << 18


def write_whole(write: Callable[[memoryview], int | None], content: Any) -> int:
    """Write all of a buffer, however little of it a single call accepts, and return its size in bytes.

    Raises:
        OSError: A call failed, or accepted nothing.
    """
    rest = memoryview(content).cast("B")
    size = rest.nbytes
    while rest:
        count = write(rest[:_MAX_WRITE_BYTES])
        if not count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[count:]
    return size


class WholeFile(io.FileIO):
    """An unbuffered file for reading and writing that accepts a whole buffer or raises OSError."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "r+")

    def write(self, data: Any) -> int:
        """Write all of a buffer and return its size in bytes.

        Raises:
            OSError: The file accepts no more; a part may have been written.
        """
        return write_whole(partial(os.write, self.fileno()), data)

    def fill(self, content: bytes) -> None:
        """Replace all that is in it; the new content is on disk when this returns.

        Raises:
            OSError: The file does not accept it; a part may have been written.
        """
        self.seek(0)
        self.truncate()
        self.write(content)
        self.sync(len(content), hashlib.sha256(content).hexdigest())

    def append(self, content: bytes) -> None:
        """Add to the end; all of it is on disk when this returns, or the file is as it was.

        Raises:
            OSError: The file does not accept it.
        """
        size = self.seek(0, os.SEEK_END)
        try:
            self.write(content)
            self.sync(size + len(content), hashlib.sha256(content).hexdigest(), start=size)
        except BaseException:
            with suppress(OSError):  # of a file that may only grow: its readers know torn lines
                self.truncate(size)
            raise

    def sync(self, size: int, sha256: str, *, start: int = 0) -> None:
        """Wait until the file is on disk, and make sure that it contains what was meant to be written.

        Args:
            size: How many bytes it shall have.
            sha256: The digest that they shall have, 64 hex characters.
            start: The offset from which the digest is taken.

        Raises:
            OSError: The disk reports an error, or the file contains something else.
        """
        if size - start < _BLOCK_BYTES:
            os.fsync(self.fileno())
            actual = self._sha256(start)
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(1) as pool:  # reading it back takes as long as the disk does
                digest = pool.submit(self._sha256, start)
                os.fsync(self.fileno())
            actual = digest.result()
        if (os.fstat(self.fileno()).st_size, actual) != (size, sha256):
            raise OSError(errno.EBADMSG, "a file does not contain what was written to it")

    def _sha256(self, start: int) -> str:
        digest, offset = hashlib.sha256(), start
        while block := os.pread(self.fileno(), _BLOCK_BYTES, offset):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()
