"""The receipt of an erasure, for the file of the person."""

import json
from pathlib import Path
from typing import Any

from feedback_etl.clock import resolve_now
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.eraser import ErasureResult
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.posix import replace_private_file, temporary_path

_NOT_SEARCHED = (
    "damaged",
    "without_key",
    "unknown_scheme",
    "partly_searched",
    "unmanaged",
    "not_inspected",
    "unfinished",
    "hard_links",
)
"""Attributes of `ErasureResult` that list what could not be searched."""


def build_receipt(result: ErasureResult) -> dict[str, Any]:
    """Return the receipt of an erasure for the person's file: counts, digests and the head of the audit log.

    It contains no id and no pseudonym. `not_searched` counts the files that the erasure could not search, by the
    attributes of `ErasureResult`; the erasure is complete only if it is empty, and `ids_not_found` is 0.
    """
    counts = {name: len(getattr(result, name)) for name in _NOT_SEARCHED}
    return {
        "at": resolve_now().isoformat(timespec="seconds") + "Z",
        "rows": result.rows,
        "suppressed": result.suppressed,
        "ids_not_found": len(result.not_found),
        "not_searched": {name: count for name, count in counts.items() if count},
        "files": {path: result.digests.get(path) for path in result.files},
        "models": result.models,
        "recipients": result.recipients,
        "audit_head": result.audit_head,
    }


def write_receipt(result: ErasureResult, path: str | Path) -> None:
    """Write the receipt as JSON to a file that only its owner can read (0600); an existing file is replaced.

    Raises:
        ExportFileError: The file cannot be written.
    """
    path = Path(path)
    content = json.dumps(build_receipt(result), indent=2, ensure_ascii=False) + "\n"
    with explain_write_errors(path, f"Rows were erased ({pluralize(result.rows, 'row')}); name another file."):
        replace_private_file(path, temporary_path(path.parent, path.name), content.encode())
