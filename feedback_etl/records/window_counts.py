"""Row counts of the older windows of an incremental series, which show the rows that arrive late."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from feedback_etl.records.manifest import Manifest
from feedback_etl.records.series_runs import SeriesRun, list_runs_since

MAX_COUNTED_WINDOWS = 100
"""Older windows that are counted again: three months of daily exports."""


class WindowCount(NamedTuple):
    """Contain the number of rows of a half-open window; a start of None is unbounded."""

    start: datetime | None
    end: datetime
    rows: int


def read_window_counts(last: Manifest, runs: Sequence[SeriesRun]) -> Iterator[WindowCount]:
    """Yield the counts of older windows, as the last run that reported late-arriving rows counted them, if it is newer.

    Args:
        last: The last manifest of the series.
        runs: Its runs in the audit log.
    """
    reported = next((run.counted for run in reversed(list_runs_since(last, runs)) if run.counted), ())
    counts = {(start, end): rows for start, end, rows in reported}
    for start, end, rows in last.chain["counted"]:
        yield WindowCount(parse_time(start), datetime.fromisoformat(end), max(rows, counts.get((start, end), rows)))


def count_excluded(last: Manifest | None, runs: Sequence[SeriesRun]) -> int | None:
    """Return the rows without consent that were counted by the last export, as its manifest says, and by later runs."""
    before = last.chain.get("excluded") if last else 0
    later = list_runs_since(last, runs)
    return None if before is None else before + sum(int(run.statistics["excluded_records"]) for run in later)


def format_window_counts(
    counted: Sequence[WindowCount], start: datetime | None, known_since: datetime | None, counts: Sequence[int]
) -> list[list[str | int | None]]:
    """Return the counts of older windows for the manifest of the next export.

    Args:
        counted: The older windows.
        start: The start of the window of the export.
        known_since: From when on it remembers rows.
        counts: The row counts of the older windows, and of the one from `start` to `known_since`.
    """
    windows = [(window.start, window.end) for window in counted]
    if known_since is not None and (start is None or start < known_since):
        windows.append((start, known_since))
    formatted: list[list[str | int | None]] = [
        [start.isoformat() if start else None, end.isoformat(), rows]
        for (start, end), rows in zip(windows, counts, strict=True)
    ]
    return formatted[-MAX_COUNTED_WINDOWS:]


def parse_time(text: str | None) -> datetime | None:
    """Return the time of a text in a manifest or a record; None for None."""
    return datetime.fromisoformat(text) if text else None
