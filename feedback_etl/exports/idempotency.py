"""Exports that were asked for under an id: each is made once, however often it is asked for.

Queues deliver a task again when its worker dies, perhaps after the export was published. So the log's record of the
beginning holds the id, and who asks again is told what came of it. In an object store, where nobody can wait for a
lock, an earlier run that has not published yet is given up for the later one, and can then never publish. Of two who
ask in the same moment one is recorded first; the other sees that before it can be recorded, and does the same.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.audit import Record
from feedback_etl.exports.catalog import ABANDONED, manifest_at, manifests_at
from feedback_etl.exports.housekeeping import held, log_of
from feedback_etl.exports.layout import REJECTED_FOLDER, STATE_FOLDER
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.manifest_details import told
from feedback_etl.exports.object_recovery import give_up
from feedback_etl.exports.recovery import is_ours
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import Folder
from feedback_etl.storage.errors import explained
from feedback_etl.storage.object_store import Bucket

MOST_CHARACTERS = 200


class AskedMeanwhile(ExportFileError):
    """Another run of the same request has published since this one looked."""


def asked_by(idempotency_key: str | None) -> dict[str, Any]:
    """What the log tells of a run when it begins."""
    return {"request": idempotency_key} if idempotency_key is not None else {}


@contextmanager
def asked_once(
    place: Folder | Bucket, idempotency_key: str, lock_timeout: float, signer: Key | None
) -> Iterator[ExportReport | None]:
    """What came of an earlier run of the same id, None if nothing did; a folder's lock is held meanwhile.

    Args:
        place: Where exports go.
        idempotency_key: Who asks.
        lock_timeout: Seconds to wait for others who use the folder.
        signer: Signs what is recorded.

    Raises:
        UsageError: The id is no text of 1 to 200 characters.
        ExportFileError: The place cannot be used, or a manifest cannot be read.
        FolderLockedError: Others use the folder.
    """
    if not isinstance(idempotency_key, str) or not 0 < len(idempotency_key) <= MOST_CHARACTERS:
        raise UsageError(f"idempotency_key must be a text of 1 to {MOST_CHARACTERS} characters, such as a UUID.")
    with ExitStack() as stack:
        with explained(place):
            stack.enter_context(held(place, lock_timeout))
            done = outcome_of(place, log_of(place).records(), idempotency_key, signer)
        yield _report(place, done) if done else None


def outcome_of(
    place: Folder | Bucket, records: Iterable[Record], idempotency_key: str, signer: Key | None
) -> Record | None:
    """What is told of a request's export; of one that was killed before it could record its end, by its manifest.

    In an object store, runs of it that have not published are given up.
    """
    records = list(records)
    started = [each for each in records if each["event"] == "started" and each.get("request") == idempotency_key]
    runs = {each.get("run") for each in started}
    if not runs:
        return None
    if isinstance(place, Bucket):
        give_up(place, log_of(place), started, signer)
    made = [told(each) | {"key_id": each.key_id} for each in _exports_of(place, started) if each.run in runs]
    ended = [each for each in records if each["event"] == "committed" and each.get("run") in runs]
    return next(iter([*made, *ended]), None)


def _exports_of(place: Folder | Bucket, started: Iterable[Record]) -> list[Manifest]:
    """Those that may be of these runs; of a store, no more than have to be read."""
    if not isinstance(place, Bucket):
        return manifests_at(place)
    found = [manifest_at(place, stem) for stem in sorted({each["stem"] for each in started if is_ours(each)})]
    return [each for each in found if each and each.mode != ABANDONED]


def _report(place: Folder | Bucket, done: Record) -> ExportReport:
    report = ExportReport.from_audit_summary(done)
    report.audit_head = log_of(place).head()
    for path in (file["path"] for file in done["files"]):
        folder, _, name = path.rpartition("/")
        named = place.address(folder if name.startswith("part-") else path)
        if path.startswith(f"{REJECTED_FOLDER}/"):
            report.rejected_filename = named
        elif not path.startswith(f"{STATE_FOLDER}/"):
            report.export_filename = named
    return report
