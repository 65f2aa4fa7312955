"""Labels of declared ratings and expressions, and classes and values beside binary labels."""

from typing import Any, get_args

import polars as pl
import pytest
from frames import CANARY, pair_frame

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.training.labels import LABELS, LabelName, label

STARS = pair_frame({}, {"helpful_rating": None}, {"helpful_rating": 1}).with_columns(
    stars=pl.Series([7, None, 2]), bought=pl.Series([True, None, False]), price=pl.Series([1.5, float("nan"), 0.25])
)


@pytest.mark.parametrize(
    ("of", "options", "expected", "dtype"),
    [
        ("helpful", {"kind": "ordinal"}, [4, None, 0], pl.Int8),
        ("completed", {"kind": "ordinal"}, [80, 80, 80], pl.Int8),
        ("recommended", {"kind": "ordinal"}, [1, 1, 1], pl.Int8),
        ("helpful", {"kind": "regression"}, [5, None, 1], pl.Float32),
        ("stars", {"threshold": 7}, [1, None, 0], pl.Int8),
        ("stars", {"threshold": 1.5}, [1, None, 1], pl.Int8),
        ("stars", {"kind": "ordinal"}, [7, None, 2], pl.Int8),
        ("stars", {"kind": "regression"}, [7, None, 2], pl.Float32),
        ("bought", {}, [1, None, 0], pl.Int8),
        ("price", {"threshold": 1}, [1, None, 0], pl.Int8),
        ("price", {"kind": "regression"}, [1.5, None, 0.25], pl.Float32),
        (pl.col("helpful_rating") - pl.col("stars") > 0, {}, [0, None, 0], pl.Int8),
        (pl.col("helpful_rating") * 20, {"threshold": 100}, [1, None, 0], pl.Int8),
    ],
)
def test_label_of_any_kind(of: Any, options: dict[str, Any], expected: list[Any], dtype: Any) -> None:
    for frame in (STARS, STARS.lazy()):
        labelled = label(frame, of, **options).lazy().collect()
        assert labelled["label"].to_list() == expected
        assert labelled["label"].dtype == dtype
    assert label(STARS.to_arrow(), of, **options)["label"].to_pylist() == expected


def test_names_of_labels_are_those_of_the_type() -> None:
    assert set(get_args(LabelName)) == {*LABELS}


@pytest.mark.parametrize(
    ("of", "options", "message"),
    [
        ("stars", {}, "A binary label of numbers needs a threshold"),
        ("stars", {"threshold": "7"}, "`threshold` must be a number"),
        ("stars", {"threshold": True}, "`threshold` must be a number"),
        ("helpful", {"kind": "ordinal", "threshold": 4}, "`threshold` has no effect on a label of the kind ordinal"),
        ("helpful", {"kind": "class"}, "`kind` must be one of binary, ordinal, regression"),
        ("star", {}, "'star' is not a label; use helpful, .* a column of the frame, or an expression"),
    ],
)
def test_wrong_arguments_are_refused(of: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        label(STARS, of, **options)


def test_text_and_fractions_as_classes_are_refused() -> None:
    with pytest.raises(ValidationError, match="A label must be numbers or booleans, but this is String") as caught:
        label(STARS.with_columns(note=pl.lit(CANARY)), "note")
    assert CANARY not in str(caught.value)
    with pytest.raises(UsageError, match="Ordinal classes must be integers"):
        label(STARS, "price", kind="ordinal")
