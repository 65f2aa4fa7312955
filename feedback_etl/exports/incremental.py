"""The state of an incremental series: its watermark, the rows it has read, and the row counts of older windows.

Rows may arrive late, so an incremental export reads again from the lookback before the watermark. The files of
`seen_rows` of the last export identify the rows that were read before. Rows older than the lookback are not read again;
the manifest contains the row count of each older window, so that later rows show up in the next count.

The manifest of an export contains the whole state, so that export and state are committed by one write. A folder is
locked from the reading of the state to the commit. In an object store, which has no locks, runs may overlap: see
`series_conflicts`.

A series is identified by the settings that decide its rows. A run whose settings differ from those of the existing
series would export all their rows again, so it is refused unless it is meant.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple, Self

import polars as pl

from feedback_etl.data_files.pending_rows import read_state_files
from feedback_etl.data_files.seen_rows import read_seen_rows
from feedback_etl.errors import ExportFileError
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.canonical_json import hash_settings
from feedback_etl.records.catalog import find_latest_increments, list_manifests
from feedback_etl.records.layout import STATE_KINDS
from feedback_etl.records.manifest import Manifest
from feedback_etl.records.series_runs import SeriesRun, list_runs
from feedback_etl.records.window_counts import (
    WindowCount,
    count_excluded,
    format_window_counts,
    parse_time,
    read_window_counts,
)
from feedback_etl.storage.base import Storage
from feedback_etl.storage.errors import explain_write_errors

INCREMENTAL = "incremental"


class IncrementalState(NamedTuple):
    """Contain the state of an incremental series: the exports of a storage with the same settings.

    Attributes:
        settings: The settings that identify it.
        links: The manifests of its exports, in their order; the last one contains the state.
        known_since: Rows from this time on are remembered, and read again; None for all of them.
        counted: The windows before that, the oldest first.
        seen_rows: The lines of the seen rows; see `seen_rows.read_seen_rows`.
        read_until: The end of the window of the last run; None before the first.
        attempts: The starts of the windows of first exports that found nothing or failed.
        others: The settings of the other series of the storage, the newest last; empty for a series that has begun.
        pending, members: With k, the pending rows, and the people of its equivalence classes; see
            `privacy.series_rows`. Frames without columns if there are none.
        pending_elsewhere: The number of pending rows of those other series.
        excluded: The number of rows without consent from `known_since` on that the runs have counted; None if unknown.
    """

    settings: Mapping[str, Any]
    links: tuple[Manifest, ...]
    known_since: datetime | None
    counted: tuple[WindowCount, ...]
    seen_rows: pl.DataFrame
    read_until: datetime | None
    attempts: tuple[datetime | None, ...] = ()
    others: tuple[Mapping[str, Any], ...] = ()
    pending: pl.DataFrame = pl.DataFrame()
    members: pl.DataFrame = pl.DataFrame()
    pending_elsewhere: int = 0
    excluded: int | None = None

    @property
    def last(self) -> Manifest | None:
        """The manifest of the last export; None for a series without exports."""
        return self.links[-1] if self.links else None

    @property
    def number(self) -> int:
        """The number of the last export; 0 for a series without exports."""
        return int(self.last.chain["number"]) if self.last else 0

    @property
    def begins(self) -> datetime | None:
        """The start of the window of the first export; None if it is unbounded, or there is none."""
        return parse_time(self.links[0].window[0]) if self.links else None

    @property
    def stems(self) -> frozenset[str]:
        """The stems of the exports."""
        return frozenset(manifest.stem for manifest in self.links)

    @classmethod
    def load(cls, storage: Storage, candidates: Sequence[Mapping[str, Any]]) -> Self:
        """Load the state of a series from its manifests.

        Args:
            storage: The storage of the exports.
            candidates: The settings of the series; then equivalent ones, by which earlier versions identified it.

        Raises:
            ExportFileError: A manifest or a file of seen rows is missing or was changed.
        """
        increments = [manifest for manifest in list_manifests(storage) if manifest.chain]
        digests = {manifest.settings_digest for manifest in increments}
        settings = next((candidate for candidate in candidates if hash_settings(candidate) in digests), candidates[0])
        links = [manifest for manifest in increments if manifest.settings_digest == hash_settings(settings)]
        if not links:
            return cls._begin(storage, settings, increments)
        links.sort(key=lambda manifest: int(manifest.chain["number"]))
        last = links[-1]
        known_since = parse_time(last.chain["known_since"])
        try:
            seen_rows = read_seen_rows(storage, last.all("rows"), known_since)
            pending, members = (read_state_files(storage, last, kind) for kind in ("pending", "members"))
        except ExportFileError:
            if not _has_successor(storage, last):  # a folder is locked, so that it has none
                raise
            return cls.load(storage, candidates)
        runs = _list_runs(storage, settings)
        read_until = max((run.until for run in runs), default=None)
        return cls(
            settings=settings,
            links=tuple(links),
            known_since=known_since,
            counted=tuple(read_window_counts(last, runs)),
            seen_rows=seen_rows,
            read_until=read_until,
            pending=pending,
            members=members,
            excluded=count_excluded(last, runs),
        )

    @classmethod
    def _begin(cls, storage: Storage, settings: Mapping[str, Any], increments: Sequence[Manifest]) -> Self:
        """Return the state of a series without exports."""
        digest = hash_settings(settings)
        starts = [record for record in AuditLog(storage).records() if record.get("chain") == digest]
        attempts = tuple(parse_time(record["begins"]) for record in starts)
        latest = find_latest_increments(increments).values()
        others = [] if attempts else sorted(latest, key=lambda manifest: manifest.created_at)
        runs = _list_runs(storage, settings)
        return cls(
            settings=settings,
            links=(),
            known_since=None,
            counted=(),
            seen_rows=read_seen_rows(storage, ()),
            read_until=max((run.until for run in runs), default=None),
            excluded=count_excluded(None, runs),
            attempts=attempts,
            others=tuple(manifest.settings for manifest in others),
            pending_elsewhere=sum(file.rows for manifest in others for file in manifest.all("pending")),
        )

    def list_pruned_windows(self) -> list[tuple[datetime, datetime]]:
        """Return the windows of `created_at` of the exports whose files were pruned."""
        pruned = [link.window for link in self.links if link.pruned_at]
        return [(parse_time(start) or datetime.min, datetime.fromisoformat(str(end))) for start, end in pruned]

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
            return None if None in earlier else min(start for start in earlier if start is not None)
        if self.known_since is not None and self.known_since >= now:
            raise ExportFileError(
                f"The last incremental export has read up to {self.known_since:%Y-%m-%d %H:%M:%S} UTC and later, but "
                f"this machine's clock says {now:%Y-%m-%d %H:%M:%S}: it may have gone backwards. Set it and run again."
            )
        return self.known_since

    def next(
        self, start: datetime | None, known_since: datetime | None, counts: list[int], excluded: int | None
    ) -> dict[str, Any]:
        """Return the state to store in the manifest of the next export.

        Args:
            start: The start of its window.
            known_since: From when on it remembers rows.
            counts: The row counts of the windows of `counted`, and of the one from `start` to `known_since`.
            excluded: The number of rows without consent from `known_since` on.
        """
        return {
            "number": self.number + 1,
            "known_since": known_since.isoformat() if known_since else None,
            "counted": format_window_counts(self.counted, start, known_since, counts),
            "excluded": excluded,
        }

    def delete_state(self, storage: Storage) -> None:
        """Delete the state that the next export has superseded; the next export retries what cannot be deleted."""
        with suppress(OSError, ExportFileError):
            storage.delete(*(file.path for link in self.links for file in link.files if file.kind in STATE_KINDS))

    def count_late(self, counts: list[int]) -> int:
        """Return how many rows arrived late at least: the growth of windows not read again, less deleted rows."""
        return sum(max(0, now - then.rows) for now, then in zip(counts, self.counted, strict=False))

    @property
    def digest(self) -> str:
        """The digest of the settings that identify the series."""
        return hash_settings(self.settings)

    def audit_details(self, start: datetime | None) -> dict[str, Any]:
        """Return the details of an incremental export for the audit record `started`."""
        return {"chain": self.digest, "begins": start.isoformat() if start else None}


@contextmanager
def lock_series(
    storage: Storage, candidates: Sequence[Mapping[str, Any]], lock_timeout: float
) -> Iterator[IncrementalState]:
    """Yield the state of a series; a folder is locked meanwhile. The arguments are those of `IncrementalState.load`.

    Raises:
        ExportFileError: The storage cannot be used, or the series is broken.
        FolderLockedError: Others use the folder.
    """
    with ExitStack() as stack:
        with explain_write_errors(storage):
            stack.enter_context(storage.lock(lock_timeout))
            series = IncrementalState.load(storage, candidates)
        yield series


def _list_runs(storage: Storage, settings: Mapping[str, Any]) -> list[SeriesRun]:
    return [run for run in list_runs(AuditLog(storage).records()) if run.series == hash_settings(settings)]


def _has_successor(storage: Storage, manifest: Manifest) -> bool:
    others = (other for other in list_manifests(storage) if other.settings_digest == manifest.settings_digest)
    return any(other.chain and other.chain["number"] > manifest.chain["number"] for other in others)
