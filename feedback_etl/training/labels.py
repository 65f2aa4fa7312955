"""Labels of training pairs: the target of a model."""

from numbers import Real
from typing import Literal, NamedTuple, get_args

import polars as pl

from feedback_etl.columns import require_pairs
from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe


class Label(NamedTuple):
    """A rating that a label is derived from.

    Attributes:
        rating: Column of the rating.
        least: Least value of the rating.
        greatest: Greatest value of the rating.
        threshold: Default threshold of the binary label.
    """

    rating: str
    least: int
    greatest: int
    threshold: int


LABELS = {
    "helpful": Label("helpful_rating", 1, 5, 4),
    "satisfied": Label("product_satisfaction", 1, 5, 4),
    "completed": Label("routine_completion_pct", 0, 100, 80),
    "recommended": Label("would_recommend", 0, 1, 1),
}
"""Labels that `label` can add."""


LabelName = Literal["helpful", "satisfied", "completed", "recommended"]
LabelKind = Literal["binary", "ordinal", "regression"]


@accepts_any_dataframe
def label(
    frame: Frame,
    of: LabelName | str | pl.Expr,
    *,
    kind: LabelKind = "binary",
    threshold: float | None = None,
    name: str = "label",
) -> Frame:
    """Add a label: whether a rating reaches a threshold, its class, or its value; null where the rating is missing.

    Drop rows without a label before training: `frame.pipe(label, "helpful").drop_nulls("label")`. Select the latest
    answers (`latest_per_recommendation`) after that: the latest answer may lack a rating that an earlier one has.

    | of | rating | threshold |
    |---|---|---|
    | `"helpful"` | helpful_rating | 2 to 5 (4) |
    | `"satisfied"` | product_satisfaction | 2 to 5 (4) |
    | `"completed"` | routine_completion_pct | 1 to 100 (80) |
    | `"recommended"` | would_recommend | true |
    | another column of numbers or booleans, or an expression | | any number; not needed for booleans |

    Args:
        frame: Training pairs.
        of: Name of the label (see the table), of a column such as a declared rating, or an expression.
        kind: "binary" is 1 where the rating reaches the threshold, else 0 (Int8). "ordinal" is the rating as a class
            from 0 (Int8), for instance 0 to 4; a column or expression is taken as it is and must be integers.
            "regression" is the value (Float32).
        threshold: Threshold of a binary label in the range of the table; the default is in parentheses.
        name: Name of the column; a column of this name is replaced.

    Returns:
        The frame with an additional column, lazy if the frame is.

    Raises:
        UsageError: The label or kind does not exist, the threshold is missing, out of range, or without effect, or the
            name is no text.
        ValidationError: The frame lacks the rating, or it is no number.

    >>> pairs = pl.DataFrame({"helpful_rating": [5, 3, None]})
    >>> label(pairs, "helpful", threshold=4)["label"].to_list()
    [1, 0, None]
    >>> label(pairs, "helpful", kind="ordinal")["label"].to_list()
    [4, 2, None]
    >>> label(pairs, pl.col("helpful_rating") == 5)["label"].to_list()
    [1, 0, None]
    """
    if not isinstance(name, str):
        raise UsageError("name must be text.")
    if kind not in get_args(LabelKind):
        raise UsageError(f"kind must be one of {', '.join(get_args(LabelKind))}.")
    if threshold is not None and kind != "binary":
        raise UsageError(f"threshold has no effect on a label of the kind {kind}; leave it out.")
    named = LABELS.get(of) if isinstance(of, str) else None
    if named:
        value, least, reached = _read_rating(frame, named, threshold)
    else:
        value, least, reached = _read_own(frame, of, threshold, is_ordinal=kind == "ordinal")
    if kind == "binary" and reached is None:
        raise UsageError("A binary label of numbers needs a threshold, such as threshold=4.")
    target = {
        "binary": lambda: (value >= reached).cast(pl.Int8),
        "ordinal": lambda: (value - least).cast(pl.Int8),
        "regression": lambda: value.cast(pl.Float32),
    }
    labelled: Frame = frame.with_columns(target[kind]().alias(name))
    return labelled


def _read_rating(
    frame: pl.DataFrame | pl.LazyFrame, named: Label, threshold: float | None
) -> tuple[pl.Expr, int, float | None]:
    """Return the value of a rating, its least value and its threshold."""
    rating, least, greatest, default = named
    reached = default if threshold is None else threshold
    if not _is_number(reached) or not least < reached <= greatest:
        raise UsageError(
            f"threshold must be greater than {least}, which every {rating} reaches, and at most {greatest}."
        )
    require_pairs(frame, [rating])
    return numeric_rating(rating), least, reached


def _read_own(
    frame: pl.DataFrame | pl.LazyFrame, of: object, threshold: float | None, *, is_ordinal: bool
) -> tuple[pl.Expr, int, float | None]:
    """Return the value of a column or expression, 0, and the threshold; of booleans it is 1."""
    schema = frame.collect_schema()
    if not isinstance(of, pl.Expr) and of not in [*schema]:
        raise UsageError(f"{of!r} is not a label; use {', '.join(LABELS)}, a column of the frame, or an expression.")
    value = of if isinstance(of, pl.Expr) else pl.col(str(of))
    (dtype,) = frame.lazy().select(value).collect_schema().values()
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise ValidationError(f"A label must be numbers or booleans, but this is {dtype}.")
    if threshold is not None and not _is_number(threshold):
        raise UsageError("threshold must be a number.")
    if is_ordinal and dtype.is_float():
        raise UsageError("Ordinal classes must be integers: cast the column or expression.")
    reached = 1 if threshold is None and dtype == pl.Boolean else threshold
    return value.cast(pl.Float64).fill_nan(None), 0, reached


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def numeric_rating(rating: str) -> pl.Expr:
    """Return a rating as a number; NaN, as pandas represents null, becomes null."""
    return pl.col(rating).cast(pl.Float64).fill_nan(None)
