"""Splits by time train on the past, and say who is in both parts."""

import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.training import NullTimeWarning, PersonOverlapWarning, rolling_origins, split_by_time
from feedback_etl.training.splits import NullGroupWarning

START = datetime(2025, 10, 1, tzinfo=UTC)
HOURS = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 400)), max_size=30)


def answers(rows: list[tuple[str, int]]) -> pl.DataFrame:
    """Answers of people, so many hours after the start."""
    times = [START + timedelta(hours=hours) for _, hours in rows]
    columns = {"subject_hash": [person for person, _ in rows], "feedback_timestamp": times}
    schema: dict[str, Any] = {"subject_hash": pl.String, "feedback_timestamp": pl.Datetime("us", "UTC")}
    return pl.DataFrame(columns, schema=schema).with_row_index("n")


def numbers(parts: dict[str, Any]) -> dict[str, list[int]]:
    """The rows of the parts by their numbers."""
    return {name: part.lazy().collect()["n"].to_list() for name, part in parts.items()}


@given(HOURS, st.integers(0, 400), st.integers(0, 100), st.booleans())
def test_random_answers_agree_with_plain_python(
    rows: list[tuple[str, int]], at: int, gap: int, exclude_seen: bool
) -> None:
    train = [n for n, (_, hours) in enumerate(rows) if hours < at - gap]
    seen = {rows[n][0] for n in train} if exclude_seen else set()
    test = [n for n, (person, hours) in enumerate(rows) if hours >= at and person not in seen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PersonOverlapWarning)
        begins = START + timedelta(hours=at)
        parts = split_by_time(answers(rows), at=begins, gap=f"{gap}h", exclude_seen=exclude_seen)
    assert numbers(parts) == {"train": train, "test": test}


@pytest.mark.parametrize(
    "at",
    [
        *("2025-10-02", "2025-10-02T00:00:00Z", "2025-10-02T02:00:00+02:00", date(2025, 10, 2)),
        *(datetime(2025, 10, 2), datetime(2025, 10, 2, 2, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_a_time_is_utc_unless_it_has_an_offset(at: Any) -> None:
    assert numbers(split_by_time(answers([("a", 23), ("b", 24)]), at=at)) == {"train": [0], "test": [1]}


def test_times_of_a_zone_and_naive_times_are_compared_in_utc() -> None:
    for frame in (
        answers([("a", 23), ("b", 24)]).with_columns(pl.col("feedback_timestamp").dt.convert_time_zone("Asia/Tokyo")),
        answers([("a", 23), ("b", 24)]).with_columns(pl.col("feedback_timestamp").dt.replace_time_zone(None)),
    ):
        assert numbers(split_by_time(frame, at="2025-10-02")) == {"train": [0], "test": [1]}


def test_people_in_both_parts_are_reported_at_the_line_of_the_caller() -> None:
    frame = answers([("a", 1), ("b", 2), ("a", 30), ("b", 31), ("c", 32), ("c", 33)])
    for pairs in (frame, frame.to_pandas(), frame.to_arrow()):
        with pytest.warns(PersonOverlapWarning, match="^2 of 3 subject_hash of the test rows have training") as caught:
            split_by_time(pairs, at="2025-10-02")
        assert [Path(warning.filename).name for warning in caught] == ["test_time_splits.py"]
    with pytest.warns(PersonOverlapWarning, match="^The same subject_hash can be in both parts"):
        split_by_time(frame.lazy(), at="2025-10-02")
    with pytest.warns(PersonOverlapWarning, match="exclude_seen=True") as caught:
        rolling_origins(frame, at=["2025-10-02", "2025-10-02T07:00", "2025-10-09"])
    assert [Path(warning.filename).name for warning in caught] == ["test_time_splits.py"]


def test_without_people_in_both_parts_nothing_is_reported() -> None:
    """Warnings are errors in tests."""
    split_by_time(answers([("a", 1), ("b", 30)]), at="2025-10-02")
    assert numbers(split_by_time(answers([("a", 1), ("a", 30)]).lazy(), at="2025-10-02", exclude_seen=True)) == {
        "train": [0],
        "test": [],
    }


def test_rows_without_a_person_count_as_one_person() -> None:
    frame = answers([("a", 1), ("b", 2), ("c", 30), ("d", 31)])
    frame = frame.with_columns(
        pl.when(pl.col("n").is_in([1, 3])).then(None).otherwise("subject_hash").alias("subject_hash")
    )
    with pytest.warns(NullGroupWarning, match="^2 of 4 rows have no subject_hash"):
        parts = split_by_time(frame, at="2025-10-02", exclude_seen=True)
    assert numbers(parts) == {"train": [0, 1], "test": [2]}


def test_rows_without_a_time_are_reported_and_left_out() -> None:
    frame = answers([("a", 1), ("b", 2), ("c", 30)])
    frame = frame.with_columns(pl.when(pl.col("n") != 1).then("feedback_timestamp").alias("feedback_timestamp"))
    with pytest.warns(NullTimeWarning, match="^1 of 3 rows have no feedback_timestamp: they are in no part") as caught:
        parts = split_by_time(frame, at="2025-10-02")
    assert numbers(parts) == {"train": [0], "test": [2]}
    assert [Path(warning.filename).name for warning in caught] == ["test_time_splits.py"]


@given(HOURS, st.lists(st.integers(0, 400), min_size=2, max_size=5, unique=True).map(sorted))
def test_each_origin_is_a_split_that_ends_at_the_next(rows: list[tuple[str, int]], hours: list[int]) -> None:
    origins = [START + timedelta(hours=hour) for hour in hours]
    frame = answers(rows)
    splits = rolling_origins(frame, at=origins, gap="3h", exclude_seen=True)
    wanted = [
        split_by_time(frame.filter(pl.col("feedback_timestamp") < end), at=at, gap="3h", exclude_seen=True)
        for at, end in pairwise(origins)
    ]
    assert [*map(numbers, splits)] == [*map(numbers, wanted)]


def test_gap_longer_than_the_calendar_leaves_no_training_rows() -> None:
    parts = split_by_time(answers([("a", 1), ("b", 30)]), at="2025-10-02", gap=timedelta(days=10**6))
    assert numbers(parts) == {"train": [], "test": [1]}


@pytest.mark.parametrize("at", [None, "", "tomorrow", 20251002, ["2025-10-02"]])
def test_other_times_are_refused(at: Any) -> None:
    with pytest.raises(UsageError, match="`at` must be an ISO 8601 date or time"):
        split_by_time(answers([]), at=at)


@pytest.mark.parametrize("at", [None, "2025-10-02", [], ["2025-10-02"], ["2025-10-02", "2025-10-02"]])
def test_origins_must_be_ascending_times(at: Any) -> None:
    with pytest.raises(UsageError, match=r"`at` must be (a list of two or more|ascending) times"):
        rolling_origins(answers([]), at=at)


@pytest.mark.parametrize("gap", [None, 7, "", "7", "d", "7 days", "-1d", timedelta(-1)])
def test_other_gaps_are_refused(gap: Any) -> None:
    with pytest.raises(UsageError, match="`gap` must be a duration"):
        split_by_time(answers([]), at="2025-10-02", gap=gap)


def test_frames_without_people_or_times_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no column subject_hash\..* --include-subject-hash \(include_subject_hash="):
        split_by_time(answers([]).drop("subject_hash"), at="2025-10-02")
    with pytest.raises(ValidationError, match="feedback_timestamp is String, expected times"):
        split_by_time(answers([]).cast({"feedback_timestamp": pl.String}), at="2025-10-02")
    with pytest.warns(PersonOverlapWarning, match="a person with several analyses"):
        split_by_time(answers([]).rename({"subject_hash": "analysis_hash"}), at="2025-10-02", by="analysis_hash")
