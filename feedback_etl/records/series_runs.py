"""Runs of incremental series in the audit log; those that found nothing new have no manifest."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from feedback_etl.records.audit_records import Record
from feedback_etl.records.manifest import Manifest


class SeriesRun(NamedTuple):
    """Contain a committed run of an incremental series.

    Attributes:
        series: The digest of the settings of its series.
        id: The id of the run.
        at: The time of its end, UTC, by the clock of its machine.
        until: The end of its window.
        statistics: Its figures.
        settings: The settings of its series.
        has_files: Whether it found rows, so that there is a manifest.
        counted: The row counts of older windows, if it reported late-arriving rows and has no manifest; else empty.
        is_backfill: Whether it exported late-arriving rows.
    """

    series: str
    id: str
    at: datetime
    until: datetime
    statistics: Mapping[str, Any]
    settings: Mapping[str, Any]
    has_files: bool
    counted: Sequence[tuple[str | None, str, int]]
    is_backfill: bool


def list_runs(records: Iterable[Record]) -> list[SeriesRun]:
    """Return the committed runs of all series, in the order of their ends."""
    return list(_iter_runs(records))


def list_runs_since(last: Manifest | None, runs: Sequence[SeriesRun]) -> Sequence[SeriesRun]:
    """Return the runs of a series after its last export, which wrote none; all of them if it has no export."""
    if last is None:
        return runs
    return runs[next((number for number, run in enumerate(runs, 1) if run.id == last.run), len(runs)) :]


def _iter_runs(records: Iterable[Record]) -> Iterator[SeriesRun]:
    started: dict[str, Record] = {}
    for record in records:
        if record["event"] == "started" and record.get("chain"):
            started[record["run"]] = record
        elif record["event"] == "committed" and (start := started.get(record.get("run", ""))) and "window" in record:
            yield SeriesRun(
                start["chain"],
                record["run"],
                datetime.fromisoformat(record["at"].removesuffix("Z")),
                datetime.fromisoformat(record["window"][1]),
                record["statistics"],
                record["settings"],
                bool(record["files"]),
                record.get("counted", ()),
                bool(start.get("backfill")),
            )
