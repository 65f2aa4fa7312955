"""Exports that were asked for under an id: each is made once, however often it is asked for.

Queues deliver a task again when its worker dies, perhaps after the export was published. So the log's record of the
beginning holds the id, and who asks again is told what came of it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from feedback_etl.errors import UsageError
from feedback_etl.exports.audit import AuditLog, Record
from feedback_etl.exports.facts import told
from feedback_etl.exports.failures import explained
from feedback_etl.exports.lock import locked
from feedback_etl.exports.manifest import manifests_in
from feedback_etl.exports.names import REJECTED_FOLDER, STATE_FOLDER
from feedback_etl.results import ExportReport

MOST_CHARACTERS = 200


def asked_by(request_id: str | None) -> dict[str, Any]:
    """What the log tells of a run when it begins."""
    return {"request": request_id} if request_id is not None else {}


@contextmanager
def asked_once(folder: Path, request_id: str, lock_timeout: float) -> Iterator[ExportReport | None]:
    """What came of an earlier run of the same id, None if nothing did; the folder's lock is held meanwhile.

    Raises:
        UsageError: The id is no text of 1 to 200 characters.
        ExportFileError: The folder cannot be used, or a manifest cannot be read.
        FolderLocked: Others use the folder.
    """
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MOST_CHARACTERS:
        raise UsageError(f"request_id must be a text of 1 to {MOST_CHARACTERS} characters, such as a UUID.")
    with ExitStack() as stack:
        with explained(folder):
            stack.enter_context(locked(folder, lock_timeout))
            done = _done(folder, request_id)
        yield _report(folder, done) if done else None


def _done(folder: Path, request_id: str) -> Record | None:
    """What is told of the request's export; of one that was killed before it could record its end, by its manifest."""
    records = AuditLog(folder).records()
    runs = {each.get("run") for each in records if each["event"] == "started" and each.get("request") == request_id}
    if not runs:
        return None
    made = [told(each) | {"key_id": each.key_id} for each in manifests_in(folder) if each.run in runs]
    ended = [each for each in records if each["event"] == "committed" and each.get("run") in runs]
    return next(iter([*made, *ended]), None)


def _report(folder: Path, done: Record) -> ExportReport:
    report = ExportReport.told(done)
    report.audit_head = AuditLog(folder).head()
    for path in (file["path"] for file in done["files"]):
        if path.startswith(f"{REJECTED_FOLDER}/"):
            report.rejected_filename = str(folder / path)
        elif not path.startswith(f"{STATE_FOLDER}/"):
            report.export_filename = str(folder / path)
    return report
