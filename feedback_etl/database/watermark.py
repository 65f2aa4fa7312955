"""What is settled in a window: rows so old that the next incremental export will not read them again."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from feedback_etl.clock import to_naive_utc
from feedback_etl.database.connect import Source
from feedback_etl.database.inspection import fetch_rows
from feedback_etl.database.relation import Relation
from feedback_etl.database.sql import counts_in, last_time_in
from feedback_etl.database.window import Window


class Settling(NamedTuple):
    """What is asked.

    Attributes:
        lookback: Rows of the last while before the newest one are not settled.
        earlier: Windows that were settled before.
    """

    lookback: timedelta
    earlier: Sequence[Window]


class Settled(NamedTuple):
    """What is found, before the rows are read.

    Attributes:
        until: Up to here, exclusive, rows are settled; the window's start where none are.
        counts: How many rows each of the earlier windows has now, and then what is newly settled, if anything is.
    """

    until: datetime | None
    counts: list[int]


def settle(
    source: Source, relation: Relation, window: Window, types: dict[str, str], settling: Settling | None
) -> Settled:
    """Look what is settled; nothing where it is not asked.

    Raises:
        SourceError: The database stopped the query.
    """
    if settling is None:
        return Settled(window.start, [])
    until = window.start
    last = _as_time(fetch_rows(source, last_time_in(relation, window, types))[0][0])
    if last is not None and last - datetime.min > settling.lookback:
        settled = last - settling.lookback
        until = settled if until is None else max(until, settled)
    windows = list(settling.earlier)
    if until is not None and until != window.start:
        windows.append(Window(window.start, until))
    if not windows:
        return Settled(until, [])
    counts: dict[int, int] = dict(fetch_rows(source, counts_in(relation, windows, types)))
    return Settled(until, [counts.get(number, 0) for number in range(len(windows))])


def _as_time(time: object) -> datetime | None:
    """What a driver gives for a time; None for what is none."""
    if isinstance(time, str):
        with suppress(ValueError):
            return to_naive_utc(datetime.fromisoformat(time))
    return to_naive_utc(time) if isinstance(time, datetime) else None
