"""What is settled in a window: rows so old that the next incremental export will not read them again."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from feedback_etl.clock import to_naive_utc
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import count_windows, select_last_time
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.window import Window


class WatermarkRequest(NamedTuple):
    """What is asked.

    Attributes:
        lookback: Rows of the last while before the newest one are not settled.
        earlier: Windows that were settled before.
    """

    lookback: timedelta
    earlier: Sequence[Window]


class Watermark(NamedTuple):
    """What is found, before the rows are read.

    Attributes:
        until: Up to here, exclusive, rows are settled; the window's start where none are.
        counts: How many rows each of the earlier windows has now, and then what is newly settled, if anything is.
    """

    until: datetime | None
    counts: list[int]


def compute_watermark(
    source: DatabaseConnection,
    relation: SourceRelation,
    window: Window,
    watermark: WatermarkRequest | None,
) -> Watermark:
    """Look what is settled; nothing where it is not asked.

    Raises:
        SourceError: The database stopped the query.
    """
    if watermark is None:
        return Watermark(window.start, [])
    until = window.start
    last = _as_time(fetch_rows(source, select_last_time(relation, window))[0][0])
    if last is not None and last - datetime.min > watermark.lookback:
        settled = last - watermark.lookback
        until = settled if until is None else max(until, settled)
    windows = list(watermark.earlier)
    if until is not None and until != window.start:
        windows.append(Window(window.start, until))
    if not windows:
        return Watermark(until, [])
    counts: dict[int, int] = dict(fetch_rows(source, count_windows(relation, windows)))
    return Watermark(until, [counts.get(number, 0) for number in range(len(windows))])


def _as_time(time: object) -> datetime | None:
    """What a driver gives for a time; None for what is none."""
    if isinstance(time, str):
        with suppress(ValueError):
            return to_naive_utc(datetime.fromisoformat(time))
    return to_naive_utc(time) if isinstance(time, datetime) else None
