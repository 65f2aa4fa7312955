"""Final names of complete local files: given without replacing another file, removed when an export rolls back.

`LocalStorage.put_new` gives every new file its name; `exports/publication.py` decides the order: the manifest is last.
"""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # Linux, renameat2(2)
_RENAME_EXCL = 4  # macOS, renamex_np(2)


def link_exclusive(temporary: Path, final: Path) -> None:
    """Give a complete file its final name without replacing another file; the temporary name may remain.

    Raises:
        FileExistsError: The name is taken.
        OSError: The file system supports neither links nor renames that never overwrite (ENOTSUP), or another error.
    """
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_without_replacing(temporary, final)


def unlink_if_ours(temporary: Path, final: Path) -> None:
    """Undo `link_exclusive` of this file, whether it linked, renamed or was interrupted before either."""
    if not temporary.exists():
        with suppress(FileNotFoundError):
            final.replace(temporary)
    elif final.exists() and final.samefile(temporary):
        final.unlink()


def _rename_without_replacing(old: Path, new: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(old), os.fsencode(new)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*names, _RENAME_EXCL)
    else:
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE)
    if failed:
        code = ctypes.get_errno()
        code = errno.ENOTSUP if code in {errno.EINVAL, errno.ENOSYS} else code
        raise OSError(code, os.strerror(code), str(new))
