"""Frame transforms: raw feedback to training pairs. Lazy frames stay lazy; nothing here reads the world.

pairs = raw.pipe(anonymize, key=key, now=now).pipe(deduplicate)
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeVar

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.expressions import bucket_age, hash_id, join_list
from feedback_etl.privacy.keys import Key
from feedback_etl.schema import RATING_FIELDS, RATINGS, TRAINING_COLUMNS

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

PAIR_KEY = ("analysis_hash", "recommendation_id", "feedback_timestamp")
"""What makes two training pairs the same feedback; `expressions.pair_hash` is the digest of these."""

RAW_KEY = ("analysis_id", "recommendation_id", "created_at")
"""The same on raw rows: what `anonymize` makes `PAIR_KEY` of, one to one."""

_JOINED = {"conditions_analyzed": "conditions_joined", "rules_applied": "rules_joined"}


def enough_ratings(min_feedback_fields: int) -> pl.Expr:
    """Whether a row has at least this many of the four ratings; False and 0 are ratings, null is none.

    Raises:
        UsageError: The number is not an int from 0 to 4.
    """
    count = min_feedback_fields
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= len(RATING_FIELDS):
        raise UsageError(f"min_feedback_fields must be a whole number from 0 to {len(RATING_FIELDS)}.")
    return pl.sum_horizontal(pl.col(name).is_not_null() for name in RATING_FIELDS) >= count


def anonymize(
    frame: Frame,
    *,
    now: datetime,
    key: Key | str | None = None,
    unkeyed: bool = False,
    recommendation_id: Literal["keep", "hash"] = "keep",
) -> Frame:
    """Raw feedback to training pairs: ids hashed, ages bucketed, lists joined, and no other column.

    What comes out is pseudonymised, not anonymous in the sense of the GDPR.

    Rows keep their number and order. Nulls stay null; an empty list becomes null. The rows are taken as valid: pass
    them through `split_valid` first.

    Args:
        frame: The canonical raw columns, as `load_feedback` gives them.
        now: The time of the export, naive UTC; cut to seconds it becomes export_date.
        key: The pseudonym key.
        unkeyed: Use plain SHA-256, which anybody who can list the ids can invert.
        recommendation_id: "keep" as it is, or "hash" to pseudonymise it too.

    Returns:
        The twelve columns of `schema.TrainingPair`, lazy if the frame was.

    Raises:
        UsageError: Neither a key nor `unkeyed=True`, or both.
        ValidationError: An id column is of a floating-point type, which cannot hold ids exactly.
    """
    text = Key.of(key).text if key is not None else None
    _refuse_float_ids(frame)
    recommendation = pl.col("recommendation_id").cast(pl.String)
    if recommendation_id == "hash":
        recommendation = hash_id("recommendation_id", key=text, unkeyed=unkeyed)
    for column, joined in _JOINED.items():
        frame = _add_joined(frame, column, joined)
    return frame.select(
        analysis_hash=hash_id("analysis_id", key=text, unkeyed=unkeyed),
        recommendation_id=recommendation,
        **{name: pl.col(name).cast(pl.Int8) for name in RATINGS},
        would_recommend=pl.col("would_recommend").cast(pl.Boolean),
        conditions_detected="conditions_joined",
        rules_applied="rules_joined",
        timeframe="timeframe",
        age_range=bucket_age("age"),
        feedback_timestamp=pl.col("created_at").dt.replace_time_zone("UTC"),
        export_date=pl.lit(now.replace(microsecond=0), pl.Datetime("us")).dt.replace_time_zone("UTC"),
    ).select(TRAINING_COLUMNS)


def _refuse_float_ids(frame: pl.DataFrame | pl.LazyFrame) -> None:
    schema = frame.collect_schema()
    floats = [name for name in ("analysis_id", "recommendation_id") if schema[name].is_float()]
    if floats:
        raise ValidationError(
            f"{', '.join(floats)} holds floating-point numbers, which are not exact ids. "
            "Read it as integers (pandas: the dtype Int64) or as text."
        )


def _add_joined(frame: Frame, column: str, joined: str) -> Frame:
    """Add the joined form of a JSON column, made once for each distinct text: decoding is what costs."""
    distinct = frame.select(column).unique().with_columns(join_list(column).alias(joined))
    return frame.join(distinct, on=column, how="left", nulls_equal=True, maintain_order="left")


def deduplicate(frame: Frame, *, by: Sequence[str] = PAIR_KEY) -> Frame:
    """Keep the first row of each pair, in the order of the frame.

    Two rows are the same feedback if their pair hash is, that is if analysis_hash, recommendation_id and
    feedback_timestamp are. Rows with nulls in these are compared like any other value.

    Args:
        frame: Training pairs, or raw feedback with `by=RAW_KEY`, which keeps the same rows.
        by: The columns that make a pair.

    Returns:
        The frame without its later duplicates, lazy if it was.
    """
    return frame.unique(subset=list(by), keep="first", maintain_order=True)
