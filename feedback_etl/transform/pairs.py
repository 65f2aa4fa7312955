"""Training pairs as plain Python values, as in the classic API."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import polars as pl
import polars.selectors as cs

from feedback_etl.clock import to_naive_utc
from feedback_etl.errors import ValidationError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.transform.expressions import iso_timestamp


@dataclass
class FeedbackTrainingPair:
    """One row of a training set, as plain Python values; times are ISO 8601 text in UTC without an offset."""

    analysis_hash: str
    recommendation_id: str
    helpful_rating: int | None
    product_satisfaction: int | None
    routine_completion_pct: int | None
    would_recommend: bool | None
    conditions_detected: str | None
    rules_applied: str | None
    timeframe: str | None
    age_range: str | None
    feedback_timestamp: str
    export_date: str

    def to_dict(self) -> dict[str, Any]:
        """Return the twelve fields in the order of the export's columns."""
        return asdict(self)


_TIME = pl.Datetime("us", "UTC")
_TYPES: dict[str, Any] = {
    **dict.fromkeys(CLASSIC_SCHEMA.training_columns, pl.String),
    **{rating.name: rating.dtype for rating in CLASSIC_SCHEMA.ratings},
    **dict.fromkeys(("feedback_timestamp", "export_date"), _TIME),
}
_FIELDS = [field.name for field in fields(FeedbackTrainingPair)]


def iter_pairs(frame: pl.DataFrame) -> Iterator[FeedbackTrainingPair]:
    """Iterate over the rows of a frame of training pairs."""
    plain = frame.select(_FIELDS).with_columns(
        cs.enum().cast(pl.String), *(iso_timestamp(name) for name in frame.select(cs.datetime()).columns)
    )
    return (FeedbackTrainingPair(*row) for row in plain.iter_rows())


def to_frame(pairs: Sequence[FeedbackTrainingPair]) -> pl.DataFrame:
    """Return pairs as a frame with the dtypes of a training set, but age ranges as text; values are not coerced.

    Times without an offset are in UTC; an empty text becomes null.

    Raises:
        ValidationError: Values have a wrong type; the message names their columns.
    """
    columns, invalid = [], []
    for name, dtype in _TYPES.items():
        try:
            columns.append(_create_series(name, [getattr(pair, name) for pair in pairs], dtype))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            invalid.append(name)
    if invalid:  # raised outside the `except` block, so that it is not chained to an error with values
        raise ValidationError(
            f"Nothing was written: pairs contain invalid values in {', '.join(invalid)}. "
            "Ratings are int, times ISO 8601 text; None is a missing value."
        )
    return pl.DataFrame(columns)


def _create_series(name: str, values: list[Any], dtype: Any) -> pl.Series:
    if dtype != _TIME:
        series = pl.Series(name, values, dtype=dtype, strict=True)
        return series.replace("", None) if dtype == pl.String else series
    return pl.Series(
        name, [to_naive_utc(datetime.fromisoformat(value)) for value in values], dtype=pl.Datetime("us")
    ).dt.replace_time_zone("UTC")
