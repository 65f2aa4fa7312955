"""Operating system errors about files and folders, as one sentence each."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from feedback_etl.errors import ExportFileError


def refuse_links(*paths: Path) -> None:
    """Refuse symbolic links, which could lead anywhere.

    Raises:
        ExportFileError: One is.
    """
    for path in paths:
        if path.is_symlink():
            raise ExportFileError(f"{path} is a symbolic link, which no export makes. Remove it and run again.")


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EFBIG: "a file would be larger than its file system or this user's limit (ulimit -f) allows",
    errno.EIO: "the disk reports an error",
    errno.ENOTSUP: "its file system can neither link files nor rename them without replacing others",
}


@contextmanager
def explain_write_errors(folder: object, mend: str = "Choose another folder with --output.") -> Iterator[None]:
    """Translate an OSError of writing into one sentence and a remedy."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise ExportFileError(f"Nothing was written to {folder}: {reason}. {mend}") from None


@contextmanager
def explain_staging_errors(url: str) -> Iterator[None]:
    """Translate an OSError of the local temporary folder in which files for an object store are staged."""
    mend = f"Files for {url} are made there first: set TMPDIR to a folder that has room for whole parts."
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of an object, as the store tells it
            raise
        with explain_write_errors(gettempdir(), mend):
            raise


@contextmanager
def explain_read_errors(path: object) -> Iterator[None]:
    """Translate an OSError of reading into one sentence."""
    try:
        yield
    except OSError as error:
        raise ExportFileError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
