"""Files that accept a whole buffer: write(2) may write a part of it, which a raw file reports by a number alone."""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

_MAX_WRITE_BYTES = 1 << 30
"""The limit of one write(2): Linux accepts almost 2 GiB, and macOS refuses more."""
_BLOCK_BYTES = 1 << 18


def write_whole(write: Callable[[memoryview], int | None], content: Any) -> int:
    """Write all of a buffer by as many calls as needed, and return its size in bytes.

    Raises:
        OSError: A call failed or wrote nothing.
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
            OSError: Writing failed; a part may have been written.
        """
        return write_whole(partial(os.write, self.fileno()), data)

    def fill(self, content: bytes) -> None:
        """Replace the content durably.

        Raises:
            OSError: Writing failed; a part may have been written.
        """
        self.seek(0)
        self.truncate()
        self.write(content)
        self.sync(len(content), hashlib.sha256(content).hexdigest())

    def append(self, content: bytes) -> None:
        """Append durably, or leave the file as it was.

        Raises:
            OSError: Writing failed.
        """
        size = self.seek(0, os.SEEK_END)
        try:
            self.write(content)
            self.sync(size + len(content), hashlib.sha256(content).hexdigest(), start=size)
        except BaseException:
            with suppress(OSError):  # readers of append-only files tolerate torn lines
                self.truncate(size)
            raise

    def append_lines(self, content: bytes) -> None:
        """Append lines durably; a line torn by a crash is terminated first.

        Raises:
            OSError: Writing failed.
        """
        size = self.seek(0, os.SEEK_END)
        self.seek(max(0, size - 1))
        start = b"" if self.read(1) in (b"", b"\n") else b"\n"
        self.append(start + content)

    def sync(self, size: int, sha256: str, *, start: int = 0) -> None:
        """Flush the file to disk and verify its content.

        Args:
            size: The expected size in bytes.
            sha256: The expected digest, 64 hex characters.
            start: The offset at which the digest begins.

        Raises:
            OSError: The disk reports an error, or the content differs.
        """
        if size - start < _BLOCK_BYTES:
            os.fsync(self.fileno())
            actual = self._compute_sha256(start)
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(1) as pool:  # reading back takes about as long as the flush
                digest = pool.submit(self._compute_sha256, start)
                os.fsync(self.fileno())
            actual = digest.result()
        if (os.fstat(self.fileno()).st_size, actual) != (size, sha256):
            raise OSError(errno.EBADMSG, "a file does not contain what was written to it")

    def _compute_sha256(self, start: int) -> str:
        digest, offset = hashlib.sha256(), start
        while block := os.pread(self.fileno(), _BLOCK_BYTES, offset):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()
