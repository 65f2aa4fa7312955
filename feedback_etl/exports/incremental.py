"""The state of an incremental series: its watermark, the rows it has read, and the row counts of older windows.

Rows may arrive late, so an incremental export reads again from the lookback before the watermark. `seen_rows`, in
`.feedback_etl/<stem>.rows`, identifies the rows that were read before. Rows older than the lookback are not read again;
the manifest contains the row count of each older window, so that later rows show up in the next count.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.catalog import list_manifests
from feedback_etl.exports.manifest import Manifest
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.locks import lock_folder
from feedback_etl.storage.posix import hash_file

INCREMENTAL = "incremental"
MAX_COUNTED_WINDOWS = 100
"""Older windows that are counted again: three months of daily exports."""


class WindowCount(NamedTuple):
    """Contain the number of rows of a half-open window; a start of None is unbounded."""

    start: datetime | None
    end: datetime
    rows: int


class IncrementalState(NamedTuple):
    """Contain the state of an incremental series: the exports of a folder with the same settings.

    Attributes:
        number: The number of exports.
        known_since: Rows from this time on are remembered, and read again; None for all of them.
        counted: The windows before that, the oldest first.
        rows_file: File of the seen rows; None for a series without exports.
        older: Files of seen rows of earlier exports, which are superseded.
        attempts: The starts of the windows of first exports that found nothing or failed.
        others: Whether the folder contains series with other settings.
    """

    number: int = 0
    known_since: datetime | None = None
    counted: tuple[WindowCount, ...] = ()
    rows_file: Path | None = None
    older: tuple[Path, ...] = ()
    attempts: tuple[datetime | None, ...] = ()
    others: bool = False

    @classmethod
    def of(cls, folder: Path, settings_digest: str) -> Self:
        """Load the state of a series from its manifests.

        Raises:
            ExportFileError: A manifest, or what the chain remembers, is missing or was changed.
        """
        chains = [each for each in list_manifests(folder) if each.chain]
        links = [each for each in chains if each.settings_digest == settings_digest]
        if not links:
            series_details = [each for each in AuditLog(folder).records() if each.get("chain") == settings_digest]
            return cls(attempts=tuple(_parse_time(each["begins"]) for each in series_details), others=bool(chains))
        links.sort(key=lambda each: int(each.chain["number"]))
        *_, last = links
        rows = [folder / file.path for each in links if (file := each.file("rows"))]
        return cls(
            last.chain["number"],
            _parse_time(last.chain["known_since"]),
            tuple(
                WindowCount(_parse_time(start), datetime.fromisoformat(end), n)
                for start, end, n in last.chain["counted"]
            ),
            _find_seen_rows(folder, last),
            tuple(path for path in rows[:-1] if path.exists()),
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

    def delete_seen_rows(self) -> None:
        """Delete the seen rows of superseded exports; the next export retries what cannot be deleted."""
        for path in (*self.older, *([self.rows_file] if self.rows_file else [])):
            with suppress(OSError):
                path.unlink()

    def count_late(self, counts: list[int]) -> int:
        """Return the number of late-arriving rows in windows that are not read again."""
        return sum(max(0, now - then.rows) for now, then in zip(counts, self.counted, strict=False))


def series_details(start: datetime | None, settings_digest: str) -> dict[str, Any]:
    """Return the details of an incremental export for the audit record `started`."""
    return {"chain": settings_digest, "begins": start.isoformat() if start else None}


@contextmanager
def lock_series(folder: Path, settings_digest: str, lock_timeout: float) -> Iterator[IncrementalState]:
    """Yield the state of a series under the folder's lock.

    Raises:
        ExportFileError: The folder cannot be used, or the chain is broken.
        FolderLockedError: Others use the folder.
    """
    with ExitStack() as stack:
        with explain_write_errors(folder):
            stack.enter_context(lock_folder(folder, lock_timeout))
            chain = IncrementalState.of(folder, settings_digest)
        yield chain


def parse_lookback(lookback: str | timedelta) -> timedelta:
    """Parse a lookback: a timedelta, or text such as 30m, 2h or 1d.

    Raises:
        UsageError: It is neither, or negative.

    >>> parse_lookback("90m")
    datetime.timedelta(seconds=5400)
    """
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    span = lookback
    if isinstance(span, str) and span[-1:] in units and span[:-1].isascii() and span[:-1].isdigit():
        try:
            span = timedelta(**{units[span[-1]]: int(span[:-1])})
        except OverflowError:
            span = ""
    if not isinstance(span, timedelta) or span < timedelta(0):
        raise UsageError("`lookback` must be a duration such as 30m, 2h or 1d, or a timedelta, not negative.")
    return span


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _find_seen_rows(folder: Path, manifest: Manifest) -> Path | None:
    """Return the path of the seen rows of an export; None if it has none."""
    file = manifest.file("rows")
    if file is None:
        return None
    path = folder / file.path
    if not path.is_file() or hash_file(path) != file.sha256:
        raise ExportFileError(
            f"{path} is missing or was changed: without it the incremental export would read rows twice. Restore it, "
            f"or begin in another folder. ({manifest.stem} was the last of the chain.)"
        )
    return path
