"""The state of an incremental series: its watermark, the rows it has read, and the row counts of older windows.

Rows may arrive late, so an incremental export reads again from the lookback before the watermark. The files of
`seen_rows` of the last export identify the rows that were read before. Rows older than the lookback are not read again;
the manifest contains the row count of each older window, so that later rows show up in the next count.

The manifest of an export contains the whole state, so that export and state are committed by one write. A folder is
locked from the reading of the state to the commit. In an object store, which has no locks, runs may overlap: before a
commit there, `require_latest` aborts earlier runs, and refuses it if one was committed; the export is then repeated.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import takewhile
from typing import Any, NamedTuple, Self

import polars as pl

from feedback_etl.data_files.seen_rows import read_seen_rows
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.recovery import abort_runs
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog, LockedAuditLog
from feedback_etl.records.audit_records import Record, find_ends, has_valid_stem
from feedback_etl.records.catalog import list_manifests, read_committed, read_manifest
from feedback_etl.records.manifest import ABANDONED, Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.storage.errors import explain_write_errors

INCREMENTAL = "incremental"
MAX_COUNTED_WINDOWS = 100
"""Older windows that are counted again: three months of daily exports."""


class WindowCount(NamedTuple):
    """Contain the number of rows of a half-open window; a start of None is unbounded."""

    start: datetime | None
    end: datetime
    rows: int


class SupersededError(ExportFileError):
    """Report that another run of the series was committed meanwhile, or has aborted this one."""


class IncrementalState(NamedTuple):
    """Contain the state of an incremental series: the exports of a storage with the same settings.

    Attributes:
        number: The number of exports.
        known_since: Rows from this time on are remembered, and read again; None for all of them.
        counted: The windows before that, the oldest first.
        seen_rows: The lines of the seen rows; see `seen_rows.read_seen_rows`.
        seen_rows_paths: The paths of their files, and of those of earlier exports, which are superseded.
        stems: The stems of the exports.
        last: The manifest of the last one, which contains the state; None for a series without exports.
        attempts: The starts of the windows of first exports that found nothing or failed.
        others: Whether a first export begins a series beside others, with other settings.
    """

    number: int
    known_since: datetime | None
    counted: tuple[WindowCount, ...]
    seen_rows: pl.DataFrame
    seen_rows_paths: tuple[str, ...]
    stems: frozenset[str]
    last: Manifest | None
    attempts: tuple[datetime | None, ...]
    others: bool

    @classmethod
    def load(cls, storage: Storage, settings_digest: str) -> Self:
        """Load the state of a series from its manifests.

        Raises:
            ExportFileError: A manifest or a file of seen rows is missing or was changed.
        """
        increments = [manifest for manifest in list_manifests(storage) if manifest.chain]
        links = [manifest for manifest in increments if manifest.settings_digest == settings_digest]
        if not links:
            starts = [record for record in AuditLog(storage).records() if record.get("chain") == settings_digest]
            attempts = tuple(_parse_time(record["begins"]) for record in starts)
            return cls(0, None, (), read_seen_rows(storage, ()), (), frozenset(), None, attempts, bool(increments))
        links.sort(key=lambda manifest: int(manifest.chain["number"]))
        last = links[-1]
        known_since = _parse_time(last.chain["known_since"])
        try:
            seen_rows = read_seen_rows(storage, last.all("rows"), known_since)
        except ExportFileError:
            if not _has_successor(storage, last):  # a folder is locked, so that it has none
                raise
            return cls.load(storage, settings_digest)
        return cls(
            last.chain["number"],
            known_since,
            tuple(
                WindowCount(_parse_time(start), datetime.fromisoformat(end), n)
                for start, end, n in last.chain["counted"]
            ),
            seen_rows,
            tuple(file.path for manifest in links for file in manifest.all("rows")),
            frozenset(manifest.stem for manifest in links),
            last,
            (),
            others=False,
        )

    def find_start(self, first: datetime | None, now: datetime) -> datetime | None:
        """Return the start of the next export's window; None if it is unbounded.

        Args:
            first: Where the first export of a chain is asked to begin. If there were attempts that found nothing, or
                failed, the chain begins where the earliest of them did, so that there is no hole.
            now: The end of the window.

        Raises:
            ExportFileError: That is not later.
        """
        if not self.number:
            earlier = [first, *self.attempts]
            return None if None in earlier else min(each for each in earlier if each is not None)
        if self.known_since is not None and self.known_since >= now:
            raise ExportFileError(
                f"The last incremental export has read up to {self.known_since:%Y-%m-%d %H:%M:%S} UTC and later, but "
                f"this machine's clock says {now:%Y-%m-%d %H:%M:%S}: it may have gone backwards. Set it and run again."
            )
        return self.known_since

    def next(self, start: datetime | None, known_since: datetime | None, counts: list[int]) -> dict[str, Any]:
        """Return the state to store in the manifest of the next export.

        Args:
            start: The start of its window.
            known_since: From when on it remembers rows.
            counts: The row counts of the windows of `counted`, and of the one from `start` to `known_since`.
        """
        windows = [*((each.start, each.end) for each in self.counted)]
        if known_since is not None and (start is None or start < known_since):
            windows.append((start, known_since))
        counted = [
            [start.isoformat() if start else None, end.isoformat(), rows]
            for (start, end), rows in zip(windows, counts, strict=True)
        ]
        return {
            "number": self.number + 1,
            "known_since": known_since.isoformat() if known_since else None,
            "counted": counted[-MAX_COUNTED_WINDOWS:],
        }

    def delete_seen_rows(self, storage: Storage) -> None:
        """Delete the seen rows of superseded exports; the next export retries what cannot be deleted."""
        with suppress(OSError, ExportFileError):
            storage.delete(*self.seen_rows_paths)

    def count_late(self, counts: list[int]) -> int:
        """Return the number of late-arriving rows in windows that are not read again."""
        return sum(max(0, now - then.rows) for now, then in zip(counts, self.counted, strict=False))


def series_details(start: datetime | None, settings_digest: str) -> dict[str, Any]:
    """Return the details of an incremental export for the audit record `started`."""
    return {"chain": settings_digest, "begins": start.isoformat() if start else None}


@contextmanager
def lock_series(storage: Storage, settings_digest: str, lock_timeout: float) -> Iterator[IncrementalState]:
    """Yield the state of a series; a folder is locked meanwhile.

    Raises:
        ExportFileError: The storage cannot be used, or the series is broken.
        FolderLockedError: Others use the folder.
    """
    with ExitStack() as stack:
        with explain_write_errors(storage):
            stack.enter_context(storage.lock(lock_timeout))
            series = IncrementalState.load(storage, settings_digest)
        yield series


def require_latest(storage: Storage, log: LockedAuditLog, run: str, stems: frozenset[str], signer: Key | None) -> None:
    """Abort the runs of a series that began before this one, so that no other one continues the same state.

    Of two runs, the later one sees the record of the earlier one and aborts it before it commits, unless the earlier
    one has been committed. So at most one of them continues a state.

    Args:
        storage: The object store.
        log: Its log, opened.
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


def _has_successor(storage: Storage, manifest: Manifest) -> bool:
    others = (other for other in list_manifests(storage) if other.settings_digest == manifest.settings_digest)
    return any(other.chain and other.chain["number"] > manifest.chain["number"] for other in others)


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
