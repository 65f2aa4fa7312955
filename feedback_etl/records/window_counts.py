"""Row counts of the older windows of an incremental series, which show the rows that arrive late."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from feedback_etl.records.manifest import Manifest
from feedback_etl.records.series_runs import SeriesRun

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
    later = runs[next((number for number, run in enumerate(runs, 1) if run.id == last.run), len(runs)) :]
    reported = next((run.counted for run in reversed(later) if run.counted), ())
    counts = {(start, end): rows for start, end, rows in reported}
    for start, end, rows in last.chain["counted"]:
        yield WindowCount(parse_time(start), datetime.fromisoformat(end), max(rows, counts.get((start, end), rows)))


def parse_time(text: str | None) -> datetime | None:
    """Return the time of a text in a manifest or a record; None for None."""
    return datetime.fromisoformat(text) if text else None
