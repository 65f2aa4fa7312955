"""Interactions for recommender libraries, and the files of three of them."""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from frames import pair_frame

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.training import interactions

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import recommender_files

PAIRS = pair_frame(
    {"recommendation_id": "r1"},
    {"recommendation_id": "r2", "helpful_rating": None},
    {"recommendation_id": "r3", "helpful_rating": 2, "conditions_detected": None, "age_range": None},
    {"recommendation_id": "r4"},
).with_columns(subject_hash=pl.Series(["a", "a", "b", None]))
TIME = 1761386400


def test_rows_without_user_or_value_are_left_out() -> None:
    """In their order; of any kind of frame."""
    wanted = [("a", "r1", 5.0, TIME), ("b", "r3", 2.0, TIME)]
    for frame in (PAIRS, PAIRS.to_arrow(), PAIRS.to_pandas()):
        found = pl.DataFrame(interactions(frame))
        assert found.rows() == wanted
        assert found.columns == ["user", "item", "value", "timestamp"]
    assert interactions(PAIRS.lazy(), value="would_recommend").collect()["value"].to_list() == [1.0, 1.0, 1.0]


def test_propensity_is_passed_through_and_checked() -> None:
    """It is greater than 0 and at most 1."""
    declared = PAIRS.with_columns(propensity=pl.Series([0.5, 1.0, 0.1, 0.2]))
    assert interactions(declared, names={"propensity": "p"})["p"].to_list() == [0.5, 0.1]
    for wrong in (0.0, 1.5, -1.0, None, float("nan")):
        with pytest.raises(ValidationError, match="`propensity` must be greater than 0 and at most 1; 4 rows"):
            interactions(PAIRS.with_columns(propensity=pl.lit(wrong, pl.Float64)))


def test_other_columns_and_names_are_refused() -> None:
    other: Any = {"rating": "x"}
    with pytest.raises(UsageError, match="`names` can rename user, item, value, timestamp and propensity only"):
        interactions(PAIRS, names=other)
    with pytest.raises(UsageError, match=r"no column subject_hash\..*--include-subject-hash"):
        interactions(PAIRS.drop("subject_hash"))
    with pytest.raises(ValidationError, match="The value is String"):
        interactions(PAIRS, value="timeframe")
    with pytest.raises(ValidationError, match="The time is String"):
        interactions(PAIRS, time="timeframe")


def test_files_of_the_recipes(tmp_path: Path) -> None:
    """The forms that RecBole, MovieLens and preference training document."""
    recommender_files.write_recbole(PAIRS, tmp_path / "feedback.inter")
    assert (tmp_path / "feedback.inter").read_text().splitlines() == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        f"a\tr1\t5.0\t{TIME}",
        f"b\tr3\t2.0\t{TIME}",
    ]
    week_before = pl.col("feedback_timestamp") - pl.duration(weeks=1)
    earlier = PAIRS.drop_nulls("helpful_rating").with_columns(week_before, helpful_rating=pl.lit(1, pl.Int8))
    recommender_files.write_movielens(pl.concat([PAIRS, earlier]), tmp_path / "ratings.csv")
    assert (tmp_path / "ratings.csv").read_text().splitlines() == [
        "userId,movieId,rating,timestamp",
        f"a,r1,5.0,{TIME}",
        f"b,r3,2.0,{TIME}",
    ]
    recommender_files.write_preferences(PAIRS, tmp_path / "preferences.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text().splitlines()]
    assert lines[1] == {"prompt": "Conditions: unknown. Age: unknown.", "completion": "r3", "label": False}
    assert [(line["completion"], line["label"]) for line in lines] == [("r1", True), ("r3", False), ("r4", True)]
