"""The receipt of an erasure, and the models that were trained on the exports that it changed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback_etl.clock import resolve_now
from feedback_etl.plurals import pluralize
from feedback_etl.records.audit_records import TRAINED, Record
from feedback_etl.records.catalog import read_manifest
from feedback_etl.storage.base import Storage
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.posix import replace_private_file, temporary_path

if TYPE_CHECKING:
    from feedback_etl.privacy.eraser import ErasureResult

_INCOMPLETE = (
    *(
        "damaged",
        "without_key",
        "unknown_scheme",
        "partly_searched",
        "unmanaged",
        "not_inspected",
        "unfinished",
        "hard_links",
    ),
)


def list_models(records: Iterable[Record], stems: Iterable[str]) -> list[str]:
    """Return the models that `record_training` recorded for any of these exports, each once, in their order."""
    wanted = {*stems}
    trained = (record for record in records if record["event"] == TRAINED)
    models = (str(record["model"]) for record in trained if not wanted.isdisjoint(record["trained_on"]))
    return [*dict.fromkeys(models)]


def fetch_digests(storage: Storage, stems: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """Return the digests of files by their manifests; a file that no manifest contains any more has none."""
    manifests = filter(None, (read_manifest(storage, stem) for stem in dict.fromkeys(stems)))
    digests = {file.path: file.sha256 for manifest in manifests for file in manifest.files}
    return {path: digests[path] for path in paths if path in digests}


def build_receipt(result: "ErasureResult") -> dict[str, Any]:
    """Return the receipt of an erasure for the person's file: counts, digests and the head of the audit log.

    It contains no id and no pseudonym. `not_searched` counts what the erasure could not search, by the attributes of
    `ErasureResult`; only if it is empty, and `ids_not_found` is 0, is the erasure complete.
    """
    counts = {name: len(getattr(result, name)) for name in _INCOMPLETE}
    return {
        "at": resolve_now().isoformat(timespec="seconds") + "Z",
        "rows": result.rows,
        "suppressed": result.suppressed,
        "ids_not_found": len(result.not_found),
        "not_searched": {name: count for name, count in counts.items() if count},
        "files": {path: result.digests.get(path) for path in result.files},
        "models": result.models,
        "audit_head": result.audit_head,
    }


def write_receipt(result: "ErasureResult", path: str | Path) -> None:
    """Write the receipt as JSON to a file that only its owner can read (0600); an existing file is replaced.

    Raises:
        ExportFileError: The file cannot be written.
    """
    path = Path(path)
    content = json.dumps(build_receipt(result), indent=2, ensure_ascii=False) + "\n"
    with explain_write_errors(path, f"Rows were erased ({pluralize(result.rows, 'row')}); name another file."):
        replace_private_file(path, temporary_path(path.parent, path.name), content.encode())
