"""Final names: given only to complete files, and never by replacing what is there."""

import ctypes
import errno
import os
import sys
from pathlib import Path

from feedback_etl.errors import ExportFileError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # Linux, renameat2(2)
_RENAME_EXCL = 4  # macOS, renamex_np(2)


def give_name(temporary: Path, final: Path) -> None:
    """Make a complete file visible under its final name; the temporary name may go or stay.

    Raises:
        FileExistsError: A file has the name already; try another.
        ExportFileError: There is a symbolic link (somebody may have planted it), or the file system can neither link
            nor rename without replacing.
        OSError: The operating system refuses otherwise.
    """
    if final.is_symlink():
        raise ExportFileError(f"{final} is a symbolic link, which no export makes. Remove it and run again.")
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_without_replacing(temporary, final)


def _rename_without_replacing(old: Path, new: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(old), os.fsencode(new)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*names, _RENAME_EXCL)
    else:
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE)
    if not failed:
        return
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), str(new))
    raise ExportFileError(
        f"The file system of {new.parent} can neither link files nor rename without replacing. "
        "Choose a folder on another file system with --output."
    )
