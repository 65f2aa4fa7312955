"""Interactions of users with items: the input of recommender libraries."""

from collections.abc import Mapping

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.schema.classic import DEFAULT_VALUE
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.training.splits import require_group
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, require_columns, row_labels

_FIELDS = ("user", "item", "value", "timestamp")
_PROPENSITY = "propensity"


@accepts_any_dataframe
def interactions(  # noqa: PLR0913  public, flat
    frame: Frame,
    *,
    user: str = SUBJECT_HASH.name,
    item: str = "recommendation_id",
    value: str = DEFAULT_VALUE,
    time: str = "feedback_timestamp",
    names: Mapping[str, str] | None = None,
) -> Frame:
    """Return the user, item, value and time of each row that has a user, an item and a value, in their order.

    A column `propensity`, which an application declares for the probability with which an item was recommended, is
    passed through.

    Args:
        frame: Training pairs.
        user: Column of users.
        item: Column of items.
        value: Column of the value, such as a rating.
        time: Column of times.
        names: Other names of the columns "user", "item", "value", "timestamp" and "propensity".

    Returns:
        "user" and "item" (String), "value" (Float32), "timestamp" (Int64, seconds since 1970, null where the time is)
        and, where the frame has it, "propensity" (Float64); lazy if the frame is.

    Raises:
        UsageError: A column is missing, or `names` has other keys.
        ValidationError: A column has a wrong type; a propensity of an eager frame is null or outside of 0 < p <= 1.

    >>> from datetime import datetime
    >>> pairs = pl.DataFrame({"subject_hash": ["a", None], "recommendation_id": ["rec_1", "rec_2"],
    ...     "helpful_rating": [5, 4], "feedback_timestamp": [datetime(2025, 10, 25)] * 2})
    >>> interactions(pairs, names={"value": "rating"}).to_dicts()
    [{'user': 'a', 'item': 'rec_1', 'rating': 5.0, 'timestamp': 1761350400}]
    """
    renamed = dict(names or {})
    if not {*renamed} <= {*_FIELDS, _PROPENSITY}:
        raise UsageError(f"`names` can rename {', '.join(_FIELDS)} and {_PROPENSITY} only.")
    require_group(frame, user)
    require_columns(frame, [item, value, time])
    schema = frame.collect_schema()
    if not (schema[value].is_numeric() or schema[value] in (pl.Boolean, pl.Null)):
        raise ValidationError(f"The value is {schema[value]}, expected numbers or booleans.")
    if schema[time] not in (pl.Datetime, pl.Null):
        raise ValidationError(f"The time is {schema[time]}, expected times.")
    columns = [
        row_labels(),
        pl.col(user).cast(pl.String).alias("user"),
        pl.col(item).cast(pl.String).alias("item"),
        pl.col(value).cast(pl.Float32).fill_nan(None).alias("value"),
        pl.col(time).cast(pl.Datetime("us")).dt.epoch("s").alias("timestamp"),
    ]
    if _PROPENSITY in schema:
        _require_propensities(frame)
        columns.append(pl.col(_PROPENSITY).cast(pl.Float64))
    selected: Frame = frame.select(columns).drop_nulls(["user", "item", "value"]).rename(renamed, strict=False)
    return selected


def _require_propensities(frame: pl.DataFrame | pl.LazyFrame) -> None:
    if not frame.collect_schema()[_PROPENSITY].is_numeric():
        raise ValidationError("`propensity` must be numbers.")
    if isinstance(frame, pl.DataFrame):
        is_valid = ((frame[_PROPENSITY] > 0) & (frame[_PROPENSITY] <= 1)).fill_null(value=False)
        if wrong := frame.height - int(is_valid.sum()):
            raise ValidationError(
                f"`propensity` must be greater than 0 and at most 1; {wrong:,} rows have another value."
            )
