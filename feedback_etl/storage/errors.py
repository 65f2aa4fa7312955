"""Translation of operating system errors into one sentence each, with a remedy."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from feedback_etl.errors import ExportFileError


def refuse_links(*paths: Path) -> None:
    """Refuse symbolic links, which could point to files outside the export folder.

    Raises:
        ExportFileError: One of the paths is a symbolic link.
    """
    for path in paths:
        if path.is_symlink():
            raise ExportFileError(f"{path} is a symbolic link, which no export creates. Remove it and run again.")


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
def explain_write_errors(folder: object, remedy: str = "Choose another folder with --output.") -> Iterator[None]:
    """Translate an OSError of writing to a folder into one sentence and a remedy.

    Raises:
        ExportFileError: Writing failed.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        raise ExportFileError(f"Nothing was written to {folder}: {reason}. {remedy}") from None


@contextmanager
def explain_staging_errors(url: str) -> Iterator[None]:
    """Translate an OSError of the local temporary folder in which files for an object store are staged.

    Raises:
        ExportFileError: The folder cannot be used.
    """
    remedy = f"Files for {url} are staged there: set TMPDIR to a folder that has room for whole parts."
    try:
        yield
    except OSError as error:
        if error.errno is None:  # about an object, not a file
            raise
        with explain_write_errors(gettempdir(), remedy):
            raise


@contextmanager
def explain_read_errors(path: object) -> Iterator[None]:
    """Translate an OSError of reading into one sentence.

    Raises:
        ExportFileError: Reading failed.
    """
    try:
        yield
    except OSError as error:
        raise ExportFileError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
