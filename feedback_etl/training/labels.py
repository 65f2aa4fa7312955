"""Labels of training pairs: the target of a model."""

from numbers import Real
from typing import Literal, get_args

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.feedback_columns import Label
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.requirements import require_pairs
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe

LABELS = CLASSIC_SCHEMA.labels
"""Labels that `label` can add to feedback of the classic schema."""


LabelName = Literal["helpful", "satisfied", "completed", "recommended"]
LabelKind = Literal["binary", "ordinal", "regression"]


@accepts_any_dataframe
def label(  # noqa: PLR0913  public, flat
    frame: Frame,
    of: LabelName | str | pl.Expr,
    *,
    kind: LabelKind = "binary",
    threshold: float | None = None,
    name: str = "label",
    schema: FeedbackSchema = CLASSIC_SCHEMA,
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
    | a rating of another `schema`, by its label or name | the rating | above `min`, up to `max` (its `threshold`) |
    | another column of numbers or booleans, or an expression | | any number; not needed for booleans |

    Args:
        frame: Training pairs.
        of: Name of the label (see the table), of a column such as a declared rating, or an expression.
        kind: "binary" is 1 where the rating reaches the threshold, else 0 (Int8). "ordinal" is the rating as a class
            from 0 (Int8), for instance 0 to 4, or its number of steps from the lowest value; a column or expression is
            taken as it is and must be integers.
            "regression" is the value (Float32).
        threshold: Threshold of a binary label in the range of the table; the default is in parentheses.
        name: Name of the column; a column of this name is replaced.
        schema: Schema of the feedback, such as `open_dataset(folder).schema`.

    Returns:
        The frame with an additional column, lazy if the frame is.

    Raises:
        UsageError: The label or kind does not exist, the threshold is missing, out of range, or without effect, or the
            name is not text.
        ValidationError: The frame lacks the rating, or it is not a number.

    >>> pairs = pl.DataFrame({"helpful_rating": [5, 3, None]})
    >>> label(pairs, "helpful", threshold=4)["label"].to_list()
    [1, 0, None]
    >>> label(pairs, "helpful", kind="ordinal")["label"].to_list()
    [4, 2, None]
    >>> label(pairs, pl.col("helpful_rating") == 5)["label"].to_list()
    [1, 0, None]
    """
    if not isinstance(name, str):
        raise UsageError("`name` must be text.")
    if kind not in get_args(LabelKind):
        raise UsageError(f"`kind` must be one of {', '.join(get_args(LabelKind))}.")
    if threshold is not None and kind != "binary":
        raise UsageError(f"`threshold` has no effect on a label of the kind {kind}; leave it out.")
    named = schema.labels.get(of) if isinstance(of, str) else None
    least, step, class_type = (named.least, named.step, named.class_type) if named else (0, 1, pl.Int8())
    if named:
        value, reached = _read_rating(frame, named, threshold, schema)
    else:
        value, reached = _read_own(frame, of, threshold, schema, is_ordinal=kind == "ordinal")
    if kind == "binary" and reached is None:
        raise UsageError("A binary label of numbers needs a threshold, such as threshold=4.")
    target = {
        "binary": lambda: (value >= reached).cast(pl.Int8),
        "ordinal": lambda: ((value - least) / step).round().cast(class_type),
        "regression": lambda: value.cast(pl.Float32),
    }
    labelled: Frame = frame.with_columns(target[kind]().alias(name))
    return labelled


def _read_rating(
    frame: pl.DataFrame | pl.LazyFrame, named: Label, threshold: float | None, schema: FeedbackSchema
) -> tuple[pl.Expr, float | None]:
    """Return the value of a rating and its threshold."""
    reached = named.threshold if threshold is None else threshold
    if reached is not None and (not _is_number(reached) or not named.least < reached <= named.greatest):
        raise UsageError(
            f"`threshold` must be greater than {named.least:g}, which every {named.rating} reaches, and at most "
            f"{named.greatest:g}."
        )
    require_pairs(frame, [named.rating], schema=schema)
    return numeric_rating(named.rating), reached


def _read_own(
    frame: pl.DataFrame | pl.LazyFrame, of: object, threshold: float | None, schema: FeedbackSchema, *, is_ordinal: bool
) -> tuple[pl.Expr, float | None]:
    """Return the value of a column or expression, and the threshold; of booleans it is 1."""
    if not isinstance(of, pl.Expr) and of not in [*frame.collect_schema()]:
        labels = ", ".join(schema.labels)
        raise UsageError(f"{of!r} is not a label; use {labels}, a column of the frame, or an expression.")
    value = of if isinstance(of, pl.Expr) else pl.col(str(of))
    (dtype,) = frame.lazy().select(value).collect_schema().values()
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise ValidationError(f"A label must be numbers or booleans, but this is {dtype}.")
    if threshold is not None and not _is_number(threshold):
        raise UsageError("`threshold` must be a number.")
    if is_ordinal and dtype.is_float():
        raise UsageError("Ordinal classes must be integers: cast the column or expression.")
    reached = 1 if threshold is None and dtype == pl.Boolean else threshold
    return value.cast(pl.Float64).fill_nan(None), reached


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def numeric_rating(rating: str) -> pl.Expr:
    """Return a rating as a number; NaN, as pandas represents null, becomes null."""
    return pl.col(rating).cast(pl.Float64).fill_nan(None)
