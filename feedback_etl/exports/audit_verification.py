"""Whether the audit log of a folder is as it was written: its chain, its anchors, and the files it vouches for."""

from collections.abc import Iterable, Iterator

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import Record, VerificationResult, verify
from feedback_etl.exports.housekeeping import open_audit_log
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.tombstones import find_last_state, require_state
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import StorageLike


def verify_folder(folder: StorageLike, exports: Iterable[Manifest], keys: Iterable[Key]) -> VerificationResult:
    """Verify the log of a folder against its manifests and tombstones.

    Args:
        folder: Where the exports are.
        exports: All manifests of the folder, each of which holds a head of the log.
        keys: The available keys.
    """
    log, exports = open_audit_log(folder), list(exports)
    anchors = {f"{each.stem}.manifest.json": each.audit_head for each in exports}
    verdict = verify(log, keys, anchors, signed=bool(exports) and all(each.key_id for each in exports))
    try:
        require_state(folder, find_last_state(log.records()))
    except ExportFileError as error:
        verdict.problems.append(str(error))
    verdict.problems.extend(_unrecorded(log.records(), exports))
    return verdict


def _unrecorded(records: Iterable[Record], exports: Iterable[Manifest]) -> Iterator[str]:
    """Return the events that manifests prove and the log lacks, for example because its tail was cut."""
    records = list(records)
    runs, erasures = {each.get("run") for each in records}, [each for each in records if each["event"] == "erased"]
    for export in exports:
        if export.run not in runs:
            yield f"the log does not record how {export.stem} was created: records are missing"
        if export.erased_rows and not erasures:
            yield f"rows were erased from {export.stem}, and the log records no erasure: records are missing"
