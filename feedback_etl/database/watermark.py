"""Compute the watermark of an incremental export: rows before it are not read again by the next one."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from feedback_etl.clock import to_naive_utc
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.cursor import iter_time_relations
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import count_excluded, count_windows, select_last_time
from feedback_etl.database.statements import fetch_count, fetch_rows
from feedback_etl.database.window import Window


class WatermarkRequest(NamedTuple):
    """Request the watermark of an incremental export.

    Attributes:
        lookback: How far the watermark is before the newest row.
        earlier_windows: Windows below the watermarks of earlier exports.
        start: The watermark of the last export, where the window of the changes begins; for the first export, the start
            of its window.
    """

    lookback: timedelta
    earlier_windows: Sequence[Window]
    start: datetime | None


class Watermark(NamedTuple):
    """Hold the watermark of an incremental export, computed before the rows are read.

    Attributes:
        until: The watermark, exclusive; the last watermark if no row is old enough.
        counts: The present number of rows created in each earlier window, then in the window up to the watermark,
            unless that is empty. Edits do not change them.
        excluded: The number of rows without consent that the next export reads again, from the watermark on.
    """

    until: datetime | None
    counts: list[int]
    excluded: int = 0


def compute_watermark(
    source: DatabaseConnection, relation: SourceRelation, window: Window, request: WatermarkRequest | None
) -> Watermark:
    """Return the watermark of a window; its start if none is requested.

    Raises:
        SourceError: The database stopped the query.
    """
    if request is None:
        return Watermark(window.start, [])
    until, since = request.start, Window(request.start, window.end)
    for times in iter_time_relations(relation):
        last = _parse_driver_time(fetch_rows(source, select_last_time(times, since))[0][0])
        if last is not None and last - datetime.min > request.lookback:
            until = max(until or datetime.min, last - request.lookback)
    windows = list(request.earlier_windows)
    if until is not None and until != request.start:
        windows.append(Window(request.start, until))
    counts: dict[int, int] = dict(fetch_rows(source, count_windows(relation, windows)) if windows else ())
    excluded = fetch_excluded(source, relation, window, until)
    return Watermark(until, [counts.get(number, 0) for number in range(len(windows))], excluded)


def fetch_excluded(
    source: DatabaseConnection, relation: SourceRelation, window: Window, since: datetime | None = None
) -> int:
    """Return the number of rows of a window without consent, created or changed since a time; None for all."""
    if not relation.records_consent:
        return 0
    since = max(filter(None, (since, relation.changed_since)), default=None)
    return fetch_count(source, count_excluded(replace(relation, changed_since=since), window))


def _parse_driver_time(time: object) -> datetime | None:
    """Return a driver's value as a time; None if it is not one."""
    if isinstance(time, str):
        with suppress(ValueError):
            return to_naive_utc(datetime.fromisoformat(time))
    return to_naive_utc(time) if isinstance(time, datetime) else None
