"""Labels of training pairs: the target of a model."""

from numbers import Real
from typing import NamedTuple

import polars as pl

from feedback_etl.columns import require_pairs
from feedback_etl.errors import UsageError
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe


class Label(NamedTuple):
    """A binary label: 1 where a rating reaches a threshold.

    Attributes:
        rating: Column of the rating.
        least: Least value of the rating.
        greatest: Greatest value of the rating.
        threshold: Default threshold.
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


@accepts_any_dataframe
def label(frame: Frame, of: str, *, threshold: int | None = None, name: str = "label") -> Frame:
    """Add a binary label: 1 where a rating reaches a threshold, else 0; null where the rating is missing.

    Drop rows without a label before training: `frame.pipe(label, "helpful").drop_nulls("label")`. Select the latest
    answers (`latest_per_recommendation`) after that: the latest answer may lack a rating that an earlier one has.

    | of | rating | threshold |
    |---|---|---|
    | `"helpful"` | helpful_rating | 2 to 5 (4) |
    | `"satisfied"` | product_satisfaction | 2 to 5 (4) |
    | `"completed"` | routine_completion_pct | 1 to 100 (80) |
    | `"recommended"` | would_recommend | true |

    Args:
        frame: Training pairs.
        of: Name of the label, see the table.
        threshold: Threshold in the range of the table; the default is in parentheses.
        name: Name of the column; a column of this name is replaced.

    Returns:
        The frame with an additional Int8 column, lazy if the frame is.

    Raises:
        UsageError: The label does not exist, the threshold is out of range, or the name is no text.
        ValidationError: The frame lacks the rating, or it is no number.

    >>> pairs = pl.DataFrame({"helpful_rating": [5, 3, None]})
    >>> label(pairs, "helpful", threshold=4)["label"].to_list()
    [1, 0, None]
    """
    if of not in [*LABELS]:
        raise UsageError(f"{of!r} is not a label; use {', '.join(LABELS)}.")
    rating, least, greatest, default = LABELS[of]
    reached = default if threshold is None else threshold
    if not isinstance(reached, Real) or isinstance(reached, bool) or not least < reached <= greatest:
        raise UsageError(
            f"threshold must be greater than {least}, which every {rating} reaches, and at most {greatest}."
        )
    if not isinstance(name, str):
        raise UsageError("name must be text.")
    require_pairs(frame, [rating])
    labelled: Frame = frame.with_columns((numeric_rating(rating) >= reached).cast(pl.Int8).alias(name))
    return labelled


def numeric_rating(rating: str) -> pl.Expr:
    """Return a rating as a number; NaN, as pandas represents null, becomes null."""
    return pl.col(rating).cast(pl.Float64).fill_nan(None)
