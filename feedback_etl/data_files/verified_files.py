"""Read files of exports that must be those of their manifest."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import hash_file


@contextmanager
def open_verified(storage: Storage, file: DataFile, consequence: str) -> Iterator[Path]:
    """Provide a file as a local path if its digest is that of the manifest, or of its announced replacement.

    Args:
        storage, file: The storage and the file.
        consequence: The end of the message: what the file is needed for, and what to do.

    Raises:
        ExportFileError: The file is missing, was changed or cannot be read.
    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(storage.local_copy(file.path))
            is_intact = hash_file(path) in {file.sha256, file.becoming.get("sha256")}
        except FileNotFoundError:
            is_intact = False
        except OSError as error:  # such as a symbolic link to itself
            raise ExportFileError(f"{storage.uri(file.path)} cannot be read: {error.strerror}; {consequence}") from None
        if not is_intact:
            raise ExportFileError(f"{storage.uri(file.path)} is missing or was changed: {consequence}")
        yield path
