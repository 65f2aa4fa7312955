"""Runs of an incremental series that overlap in an object store, which has no locks: at most one continues a state."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.recovery import abort_runs
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import LockedAuditLog
from feedback_etl.records.audit_records import Record, find_ends, has_valid_stem
from feedback_etl.records.catalog import read_committed, read_manifest
from feedback_etl.records.manifest import ABANDONED
from feedback_etl.storage.base import Storage


class SupersededError(ExportFileError):
    """Report that another run of the series was committed meanwhile, or has aborted this one."""


def require_latest(storage: Storage, log: LockedAuditLog, run: str, stems: frozenset[str], signer: Key | None) -> None:
    """Abort the runs of a series that began before this one, so that no other one continues the same state.

    Of two runs, the later one sees the record of the earlier one and aborts it before it commits, unless the earlier
    one has been committed. So at most one of them continues a state.

    Args:
        storage, log: The object store and its log.
        run: The id of the run that is about to be committed.
        stems: The stems of the exports of the series that it continues.
        signer: The key that signs audit records.

    Raises:
        SupersededError: Another run has been committed, or an export that this one continues was rolled back.
        ExportFileError: It is uncertain whether such an export will be rolled back.
    """
    records = log.records()
    earlier = [*takewhile(lambda record: record.get("run") != run, records)]
    settings_digest = records[len(earlier)]["chain"]
    starts = [record for record in earlier if record.get("chain") == settings_digest and has_valid_stem(record)]
    ends = find_ends(records)
    others = [record for record in starts if record["stem"] not in stems and _may_be_committed(record, ends)]
    if unfinished := [record for record in others if record["run"] not in ends]:
        abort_runs(storage, log, unfinished, signer)
    if any(read_committed(storage, record) for record in others):
        raise SupersededError("Meanwhile another run of the series was committed: nothing was published. Run again.")
    for record in starts:
        end = ends.get(record["run"])
        if record["stem"] not in stems or (end and end["event"] == "committed"):
            continue
        if not read_committed(storage, record):
            raise SupersededError(f"Meanwhile {record['stem']} was rolled back: nothing was published. Run again.")
        if end is None:
            raise ExportFileError(
                f"{storage} was swept while {record['stem']} was being committed, so its run may take it back: nothing "
                "was published. Run again after it has ended; a dead run is undone after a day."
            )


@contextmanager
def detect_abort(storage: Storage, stem: str) -> Iterator[None]:
    """Raise a SupersededError for the failure of a run that another run has aborted, and whose parts it has removed."""
    try:
        yield
    except (ExportFileError, OSError) as error:
        marker = None if storage.has_locks or isinstance(error, SupersededError) else read_manifest(storage, stem)
        if marker is None or marker.mode != ABANDONED:
            raise
        raise SupersededError("Meanwhile another run aborted this one: nothing was published. Run again.") from None


def _may_be_committed(started: Record, ends: dict[Any, Record]) -> bool:
    end = ends.get(started["run"])
    return end is None or bool(end.get("files")) or end.get("outcome") == "committed"
