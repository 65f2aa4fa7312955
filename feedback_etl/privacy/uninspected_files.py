"""Find the files below a folder that no erasure inspects."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from feedback_etl.records.layout import MANIFEST_SUFFIX, has_stem, is_state_file
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.base import Storage

_WITHOUT_ROWS = {"croissant.json", "processing_record.md"}
"""Files that this package writes to the folder and that describe its exports."""


def list_not_inspected(
    storage: Storage, exports: Sequence[Manifest], unmanaged: Iterable[Path], running: Sequence[str]
) -> list[str]:
    """Return the files below the folder that belong to no export, and are no unmanaged data files.

    Args:
        storage: The folder.
        exports: All manifests of the folder.
        unmanaged: Data files without a manifest.
        running: Stems of unfinished exports.
    """
    top = storage.local_path() or Path()
    known = {path.relative_to(top).as_posix() for path in unmanaged}
    known |= {file.path for manifest in exports for file in manifest.files}
    known |= {name for name in storage.names() if name.endswith(MANIFEST_SUFFIX)}
    unknown = (name for name in storage.list_entries() if name not in known and name not in _WITHOUT_ROWS)
    return [name for name in unknown if not (is_state_file(name) or has_stem(name, running))]
