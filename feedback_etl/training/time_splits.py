"""Splits by time: train on the past, test on what came later."""

import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl

from feedback_etl.clock import parse_duration
from feedback_etl.database.window import Time, parse_time
from feedback_etl.errors import UsageError
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.schema.requirements import require_pairs
from feedback_etl.training.splits import PersonOverlapWarning, list_warnings, require_group
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe

_TIME = "feedback_timestamp"


class NullTimeWarning(UserWarning):
    """Warn that rows without a time are in no part."""


@accepts_any_dataframe
def split_by_time(
    frame: Frame, *, at: Time, gap: timedelta | str = "0d", by: str = SUBJECT_HASH.name, exclude_seen: bool = False
) -> dict[str, Frame]:
    """Split a frame into the rows before a time and the rows from it on, as a model will be used.

    People who answered before and after it are in both parts, and a model can recognise them. `PersonOverlapWarning`
    reports how many (of a lazy frame, which is not collected, only that there may be some); with `exclude_seen` their
    later rows are left out. Rows without a value of `by` count as those of one person. Rows without a time are in
    neither part; `NullTimeWarning` reports their number.

    Args:
        frame: Training pairs.
        at: The time at which the test rows begin; without a time zone it is UTC.
        gap: Rows of this time before `at` are left out: such as "7d", as long as it takes until the label of a
            training row is known.
        by: The column of people.
        exclude_seen: Leave out test rows of people who have training rows.

    Returns:
        "train" and "test", frames of the given kind, with the rows in their order.

    Raises:
        UsageError: `at` is not a time, `gap` is not a duration of 0 or more, or the frame has no column `by`.
        ValidationError: The frame lacks feedback_timestamp, or it is not a time.

    >>> times = [datetime(2025, 10, day, 12) for day in (1, 18, 20, 25)]
    >>> pairs = pl.DataFrame({"subject_hash": ["a", "b", "a", "c"], "feedback_timestamp": times})
    >>> parts = split_by_time(pairs, at="2025-10-20", gap="7d", exclude_seen=True)
    >>> {name: part["subject_hash"].to_list() for name, part in parts.items()}
    {'train': ['a'], 'test': ['c']}
    """
    begins, gap_length = parse_time(at, "`at`"), parse_duration(gap, "gap")
    _require_times_and_people(frame, by)
    parts = _split(frame, begins, None, gap_length, by=by if exclude_seen else None)
    if not exclude_seen:
        _warn_of_overlap([parts], by)
    return parts


@accepts_any_dataframe
def rolling_origins(
    frame: Frame,
    *,
    at: Sequence[Time],
    gap: timedelta | str = "0d",
    by: str = SUBJECT_HASH.name,
    exclude_seen: bool = False,
) -> list[dict[str, Frame]]:
    """Split a frame at several times, the test rows of each until the next: a backtest with a growing past.

    Args:
        frame: Training pairs.
        at: Ascending times at which test rows begin, at least two; the last one ends the last test part.
        gap: See `split_by_time`.
        by: The column of people.
        exclude_seen: Leave out test rows of people who have training rows of the same split.

    Returns:
        A split such as `split_by_time` returns for each time but the last.

    Raises:
        UsageError: As `split_by_time`, or the times are not ascending or fewer than two.
        ValidationError: As `split_by_time`.

    >>> times = [datetime(2025, 10, day, 12) for day in (1, 18, 20, 25)]
    >>> pairs = pl.DataFrame({"subject_hash": ["a", "b", "c", "d"], "feedback_timestamp": times})
    >>> splits = rolling_origins(pairs, at=["2025-10-10", "2025-10-20", "2025-10-30"])
    >>> [{name: part["subject_hash"].to_list() for name, part in split.items()} for split in splits]
    [{'train': ['a'], 'test': ['b']}, {'train': ['a', 'b'], 'test': ['c', 'd']}]
    """
    if isinstance(at, str) or not isinstance(at, Sequence) or len(at) < 2:
        raise UsageError('`at` must be a list of two or more times, such as ["2025-10-01", "2025-11-01"].')
    moments = [parse_time(time, "`at`") for time in at]
    if any(later <= earlier for earlier, later in pairwise(moments)):
        raise UsageError("`at` must be ascending times.")
    gap_length = parse_duration(gap, "gap")
    _require_times_and_people(frame, by)
    splits = [_split(frame, *ends, gap_length, by=by if exclude_seen else None) for ends in pairwise(moments)]
    if not exclude_seen:
        _warn_of_overlap(splits, by)
    return splits


def _split(
    frame: Frame, begins: datetime, ends: datetime | None, gap: timedelta, *, by: str | None
) -> dict[str, Frame]:
    """Split at a time; with `by`, without the test rows of values that training rows have."""
    utc = pl.col(_TIME).cast(pl.Datetime("us"))  # the cast converts to UTC
    train: Frame = frame.filter(utc < (begins - gap if begins - datetime.min > gap else datetime.min))
    test: Frame = frame.filter(utc >= begins if ends is None else (utc >= begins) & (utc < ends))
    if by:
        test = test.join(train.select(by), on=by, how="anti", nulls_equal=True, maintain_order="left")
    return {"train": train, "test": test}


def _require_times_and_people(frame: pl.DataFrame | pl.LazyFrame, by: str) -> None:
    """Raise if the columns are missing; warn of rows that no part has or that cannot be distinguished."""
    require_pairs(frame, [_TIME])
    require_group(frame, by)
    for warning in list_warnings(frame, by):
        warnings.warn(warning, stacklevel=4)
    if isinstance(frame, pl.DataFrame) and (nulls := frame[_TIME].null_count()):
        message = f"{nulls:,} of {frame.height:,} rows have no {_TIME}: they are in no part."
        warnings.warn(NullTimeWarning(message), stacklevel=4)


def _warn_of_overlap(splits: Sequence[dict[str, Frame]], by: str) -> None:
    """Warn if the same person is in both parts of a split."""
    remedy = "Leave their later rows out with exclude_seen=True, or say that the model knows them."
    for split in splits:
        train, test = split["train"], split["test"]
        if isinstance(train, pl.LazyFrame):
            message = f"The same {by} can be in both parts. {remedy}"
        elif people := test.select(by).join(train.select(by), on=by, how="semi", nulls_equal=True)[by].n_unique():
            message = f"{people:,} of {test[by].n_unique():,} {by} of the test rows have training rows too. {remedy}"
        else:
            continue
        warnings.warn(PersonOverlapWarning(message), stacklevel=4)
        return
