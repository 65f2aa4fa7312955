"""The interface of all storage of exports: a local folder, or a prefix of an object store.

Names are relative paths with `/` between their parts, as manifests contain them. Names whose last part begins with a
dot are hidden: `names` and `folders` omit them. Every implementation passes `tests/test_storage.py`.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from feedback_etl.errors import ExportFileError

STATE_FOLDER = ".feedback_etl"
"""The folder of the lock, the audit log and other state."""

LOCK_TIMEOUT = 60.0
"""Seconds to wait for a lock."""

Version = str
"""Identifies one version of a file: the ETag of an object; of a local file, its inode, modification time and size."""


class FileInfo(NamedTuple):
    """Describe a file of a listing.

    Attributes:
        bytes: Its size.
        version: Its version; "" in an object store that lists none.
        modified_ns: The time of its last modification in nanoseconds since 1970; whole seconds in an object store.
    """

    bytes: int
    version: Version
    modified_ns: int


class ConflictError(ExportFileError):
    """Report that a file has changed since it was read."""


class Lines(Protocol):
    """The lines of an append-only file that is open."""

    def read(self, *, after: int = 0) -> dict[int, bytes]:
        """Return the lines that have a greater number; see `Storage.read_numbered`."""

    def put(self, number: int, content: bytes) -> None:
        """Append a line under the next number, if the number is free; durable when this returns.

        Raises:
            FileExistsError: The number is taken.
            ExportFileError: No number is left, because an object that is not ours has one of the last.
        """


class Storage(Protocol):
    """Read and write the files of exports.

    Other packages ask for `has_locks` only where a guarantee differs. Without locks:

    - whether a writer is alive is judged by its age (`exports.recovery`, `exports.idempotency`);
    - others commit between a check and the manifest, so an export checks again after it, and an erasure lists exports
      again after its tombstones (`exports.transaction`, `exports.preconditions`, `privacy.eraser`);
    - a dead run can come back: it finds an abort marker (`exports.part_writer`, `exports.series_conflicts`), and a
      replacement that it announced stays announced (`exports.rewrite`);
    - the audit log is a sequence of objects, and a nonce shows whose put succeeded (`records.audit`).

    They ask for `local_path` where only a folder has something: modes, hard links, folders without files, files to
    adopt, replacements that a dead process left, and a disk that workers may not share.

    Attributes:
        has_locks: Whether processes can lock: `lock` excludes others, and the lock of a file that is being written
            shows that its writer is alive. An object store has no locks, so whether a writer is alive is unknown.
        files_at_once: Files to process at once, with the pseudonyms of each in memory: 1 in a folder, several in an
            object store, so that requests overlap.
        polars_options: `storage_options` of Polars for `uri`; None for a folder.
    """

    has_locks: bool
    files_at_once: int
    polars_options: dict[str, str] | None

    def create(self) -> None:
        """Create the folder and its missing parents, mode 0700; an object store needs none.

        Raises:
            OSError: A parent is a file, or a folder cannot be created.
        """

    def explain_write_errors(self, folder: str) -> AbstractContextManager[None]:
        """Translate an OSError of writing a file in a folder into one sentence, which names where it was written.

        Raises:
            ExportFileError: Writing failed.
        """

    def exists(self) -> bool:
        """Return whether the folder exists, or the prefix contains an object."""

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files in a folder (the root by default), without hidden ones."""

    def folders(self) -> list[str]:
        """Return the sorted names of the folders in the root, without hidden ones."""

    def list_files(self, folder: str = "") -> dict[str, FileInfo]:
        """Return all files below a folder by name, hidden ones too; empty if the folder does not exist."""

    def list_entries(self) -> list[str]:
        """Return the sorted names of everything below the root but folders, and of folders that cannot be read.

        Symbolic links are named and not followed. The name of an unreadable folder ends in `/`.
        """
        return sorted(self.list_files())

    def stat_files(self, names: Iterable[str]) -> dict[str, FileInfo]:
        """Return those of the named files that exist; a single listing of an object store."""

    def stat_with_digest(self, name: str) -> tuple[int, str]:
        """Return the size in bytes and the SHA-256 digest of a file; an object is downloaded for it.

        Raises:
            FileNotFoundError: The file does not exist.
        """

    def uri(self, name: str) -> str:
        """Return the path or URL of a file, as Polars accepts it."""

    def absolute_uri(self) -> str:
        """Return the absolute path or URL of the storage, which a process elsewhere can open."""

    def local_path(self, name: str = "") -> Path | None:
        """Return the path of a file, or of the folder; None in an object store."""

    def refuse_links(self, *names: str) -> None:
        """Refuse symbolic links at these names and in their folders, which could point elsewhere.

        Raises:
            ExportFileError: There is one.
        """

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        return self.read_version(name)[0]

    def read_version(self, name: str) -> tuple[bytes, Version]:
        """Return the content of a small file and its version, for `replace`.

        Raises:
            FileNotFoundError: The file does not exist.
        """

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """Provide a file to read as a local path while the context lasts: itself, or a download.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        with self.local_copy_version(name) as (path, _):
            yield path

    def local_copy_version(self, name: str) -> AbstractContextManager[tuple[Path, Version]]:
        """Provide what `local_copy` provides, and the version of the file.

        Raises:
            FileNotFoundError: The file does not exist.
        """

    def staging_path(self, name: str) -> AbstractContextManager[Path]:
        """Provide a local path to write a file to before `put_new` or `replace`; what remains there is removed."""

    def replacement_path(self, name: str) -> AbstractContextManager[Path]:
        """Provide a local path to write the replacement of a file to, in a folder under a name that recovery knows.

        In a folder the caller holds `lock`, so that the path is its own; what remains there is removed.
        """

    def etag(self, version: Version) -> str:
        """Return the ETag of a version of an object; "" in a folder, where a copy of a file is another version."""

    def put_new(self, name: str, content: bytes | Path) -> Version:
        """Write a file that does not exist yet, completely or not at all; durable when this returns.

        A local folder must exist. A `Path` is a complete file from `staging_path`, already on disk. In an object
        store, whose answers can be lost, an existing object with the same content counts as the one that was put:
        where it matters who has put it, the content contains a nonce. The same holds for `replace`.

        Raises:
            FileExistsError: The name is taken.
            OSError: The file cannot be written; the name stays free.
        """

    def replace(self, name: str, content: bytes | Path, if_match: Version) -> Version:
        """Replace a file whose version is still the given one, completely or not at all; return the new version.

        In a folder the caller holds `lock`, so that no other process replaces the same version, and a `Path` is a
        complete file from `staging_path`, already on disk.

        Raises:
            ConflictError: The file was changed or removed since that version was read.
            OSError: The file cannot be written; its content is the old or the new one.
        """

    def overwrite(self, name: str, content: bytes) -> None:
        """Create or replace a file with any content: for files that are derived from others.

        Raises:
            OSError: The file cannot be written; its content is the old or the new one.
        """

    def delete(self, *names: str) -> None:
        """Delete files; those that do not exist are ignored."""

    def append_lines(self, name: str, content: bytes) -> None:
        """Append lines to an append-only file, created if it is missing; durable when this returns."""

    def read_lines(self, name: str) -> bytes:
        """Return the content of an append-only file; empty if it does not exist."""

    def read_numbered(self, name: str, *, after: int = 0) -> dict[int, bytes]:
        """Return the lines of an append-only file that have a greater number, in ascending order.

        The first line of a local file is 1, and the last may be torn: without its newline. In an object store each
        addition is one entry, and numbers may be missing.
        """

    def open_lines(self, name: str, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[Lines]:
        """Open an append-only file, created if it is missing, under its lock; an object store has no lock.

        Raises:
            FolderLockedError: Another process or thread has held the lock for `timeout` seconds.
            OSError: It cannot be opened.
        """

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Lock the folder against other processes and threads; an object store has no lock, and this does nothing.

        Raises:
            FolderLockedError: Another process or thread has held the lock for `timeout` seconds.
            OSError: The folder cannot be used.
        """
