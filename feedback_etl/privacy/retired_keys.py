"""Retired keys: files in a folder of their own, for erasure and audit only."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from feedback_etl.errors import KeyUnusableError
from feedback_etl.privacy.keys import Key, read_key, write_key_file


class RetiredKey(NamedTuple):
    """A key that is used for erasure and audit only, and its file."""

    key: Key
    path: Path


def read_retired_keys(folder: Path | None) -> list[RetiredKey]:
    """Read the retired keys of a folder, ordered by id; a missing folder has none.

    Raises:
        KeyUnusableError: A key or the folder cannot be read.
    """
    return [RetiredKey(read_key(path, accept_weak=True), path) for path in _list_retired(folder)]


def is_retired(key: Key, folder: Path | None) -> bool:
    """Return whether a key is retired.

    Raises:
        KeyUnusableError: The folder cannot be read.
    """
    return _find_retired(key, folder) is not None


def _find_retired(key: Key, folder: Path | None) -> Path | None:
    """Return the file of a retired key, which has the name of its id; None if there is none."""
    paths = {path.name: path for path in _list_retired(folder)}
    return paths.get(key.legacy_id) or (paths.get(key.id) if paths else None)


def _list_retired(folder: Path | None) -> list[Path]:
    """List the files of retired keys; a missing folder has none."""
    try:
        paths = sorted(folder.iterdir()) if folder else []
        return [path for path in paths if not path.name.startswith(".") and path.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KeyUnusableError(
            f"The folder of retired keys {folder} cannot be read: {error.strerror}. Make it readable for this user, or "
            "set retired_keys to another folder."
        ) from None


def retire_key(path: Path, folder: Path) -> RetiredKey:
    """Move a key file to the folder of retired keys, under its id; a mounted secret is copied.

    Raises:
        KeyUnusableError: The file contains no key.
        ExportFileError: The retired key cannot be written.
    """
    key = read_key(path, accept_weak=True)
    retired_path = _find_retired(key, folder)
    if retired_path is None:
        retired_path = folder / key.id
        write_key_file(key, retired_path)
    with suppress(OSError):
        path.unlink()
    return RetiredKey(key, retired_path)
