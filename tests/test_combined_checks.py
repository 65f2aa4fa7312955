"""The combined check accepts exactly the frames that pandera accepts column by column."""

from typing import Any

import polars as pl
import pytest
from frames import PAIR_ROW, pair_frame
from hypothesis import given
from hypothesis import strategies as st

from feedback_etl.errors import ValidationError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.transform.combined_checks import combine_checks
from feedback_etl.transform.failure_cases import list_failure_cases
from feedback_etl.transform.training_schema import build_training_schema, validate

VALUES: dict[str, list[Any]] = {
    "analysis_hash": ["0123456789abcdef", "0123456789ABCDEF", "0123456789abcde", "", None],
    "recommendation_id": ["rec_1", "", "=1", "\t", "\x1b", None],
    "helpful_rating": [1, 5, 0, 6, -1, 127, None],
    "product_satisfaction": [1, 5, 0, 6, None],
    "routine_completion_pct": [0, 100, 101, -1, None],
    "would_recommend": [True, False, None],
    "conditions_detected": ["a", "a,b", "", "a,", ",a", "a,=b", "a,\x85", None],
    "rules_applied": ["a", "a,,b", "-a", "\0a", None],
    "timeframe": ["2_weeks", "@x", "\0x", "", None],
    "age_range": ["<18", "50+", None],
}
"""Valid and invalid values, the first one valid."""

ROWS = st.lists(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}), max_size=4)
DAMAGES: dict[str, Any] = {
    "none": lambda frame: frame,
    "lacks a column": lambda frame: frame.drop("timeframe"),
    "has an unknown column": lambda frame: frame.with_columns(user_id=1),
    "has another order": lambda frame: frame.select(reversed(frame.columns)),
    "has a rating of another type": lambda frame: frame.with_columns(pl.col("helpful_rating").cast(pl.Int64)),
    "has a rating as text": lambda frame: frame.with_columns(pl.col("helpful_rating").cast(pl.String)),
    "has times without a zone": lambda frame: frame.with_columns(pl.col("export_date").dt.replace_time_zone(None)),
}


def agree(schema: Any, frame: pl.DataFrame) -> bool:
    """Whether a frame is valid, which both forms of the schema have to say alike."""
    is_valid = list_failure_cases(schema, frame).is_empty()
    assert list_failure_cases(combine_checks(schema), frame).is_empty() == is_valid
    return is_valid


@given(rows=ROWS, damage=st.sampled_from(sorted(DAMAGES)))
def test_combined_and_separate_checks_accept_the_same_frames(rows: list[dict[str, Any]], damage: str) -> None:
    frame = DAMAGES[damage](pair_frame(*(PAIR_ROW | row for row in rows)))
    assert not agree(build_training_schema(), frame) or damage == "none"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_each_rule_of_a_column_is_in_the_combined_check(name: str, value: Any) -> None:
    agree(build_training_schema(), pair_frame(PAIR_ROW, PAIR_ROW | {name: value}))


def test_checks_of_extra_columns_are_combined_too() -> None:
    schema = build_training_schema(CLASSIC_SCHEMA.with_extra_columns([ExtraColumn("shop")]))
    assert agree(schema, pair_frame(PAIR_ROW).with_columns(shop=pl.lit("north")))
    assert not agree(schema, pair_frame(PAIR_ROW).with_columns(shop=pl.lit("\x1bnorth")))


def test_wrong_type_beside_an_invalid_text_is_a_validation_error() -> None:
    frame = pair_frame(PAIR_ROW | {"timeframe": "\x1bx"}).with_columns(pl.col("helpful_rating").cast(pl.Int64))
    with pytest.raises(ValidationError, match="helpful_rating dtype"):
        validate(frame)


def test_combined_schema_has_one_check() -> None:
    schema = combine_checks(build_training_schema())
    assert len(schema.checks) == 1
    assert not any(column.checks for column in schema.columns.values())
