"""Find the files below a folder that no erasure inspects."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.records.layout import MANIFEST_SUFFIX, has_stem, is_state_file
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.base import Storage

_DESCRIPTIONS = {"croissant.json", "processing_record.md"}
"""Files that this package writes to the folder and that describe its exports, without any pseudonym."""

_PSEUDONYM = re.compile(rb"(?<![0-9a-zA-Z])(?:[0-9a-fA-F]{16}|[0-9a-fA-F]{32})(?![0-9a-zA-Z])")
_MAX_DESCRIPTION_BYTES = 10_000_000


def list_not_inspected(
    storage: Storage, exports: Sequence[Manifest], unmanaged: Iterable[Path], running: Sequence[str]
) -> list[str]:
    """Return the files below the folder that belong to no export, and are not unmanaged data files.

    Args:
        storage: The folder.
        exports: All manifests of the folder.
        unmanaged: Data files without a manifest.
        running: Stems of unfinished exports.
    """
    top = storage.local_path() or Path()
    managed = {path.relative_to(top).as_posix() for path in unmanaged}
    managed |= {file.path for manifest in exports for file in manifest.files}
    managed |= {name for name in storage.names() if name.endswith(MANIFEST_SUFFIX)}
    unknown = [name for name in storage.list_entries() if name not in managed and not _is_description(storage, name)]
    is_object = not storage.has_locks
    return [name for name in unknown if not (is_state_file(name, is_object=is_object) or has_stem(name, running))]


def list_hard_links(storage: Storage, exports: Sequence[Manifest]) -> list[str]:
    """Return the files of exports that have a second name elsewhere, whose content no erasure changes."""
    names = [file.path for manifest in exports for file in manifest.files]
    paths = ((name, storage.local_path(name)) for name in names)
    return [name for name, path in paths if path and path.is_file() and path.stat().st_nlink > 1]


def _is_description(storage: Storage, name: str) -> bool:
    """Return whether a file has the name of a description, and contains nothing that looks like a pseudonym."""
    if name not in _DESCRIPTIONS:
        return False
    try:
        content = storage.read(name)
    except (OSError, ExportFileError):
        return False
    return len(content) <= _MAX_DESCRIPTION_BYTES and _PSEUDONYM.search(content) is None
