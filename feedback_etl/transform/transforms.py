"""Frame transforms from raw feedback to training pairs. Lazy frames stay lazy.

Each accepts Polars frames, pandas data frames and Arrow tables, and returns the same kind; rows stay in order.

pairs = raw.pipe(anonymize, key=key, now=now).pipe(deduplicate)
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

import polars as pl

from feedback_etl.clock import to_naive_utc
from feedback_etl.columns import (
    AGE_EDGES,
    IMAGE_URL,
    RATING_FIELDS,
    RATINGS,
    RAW_COLUMNS,
    SUBJECT_HASH,
    ExtraColumn,
    raw_extra_columns,
    require_pairs,
    require_raw,
    training_columns,
)
from feedback_etl.errors import UsageError
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, require_columns
from feedback_etl.transform.expressions import KeyLike, bucket_age, hash_id
from feedback_etl.transform.identifiers import contains_id
from feedback_etl.transform.json_lists import join_list
from feedback_etl.transform.timestamps import readable

TimestampPrecision = Literal["exact", "minute", "hour", "day", "week", "month", "quarter"]

PAIR_KEY = ("analysis_hash", "recommendation_id", "feedback_timestamp")
"""The columns that identify a feedback; `expressions.pair_hash` is their digest."""

RAW_KEY = ("analysis_id", "recommendation_id", "created_at")
"""The same for raw rows: `anonymize` maps these columns to `PAIR_KEY`, one to one."""

TRUNCATED = dict(zip(get_args(TimestampPrecision), ("", "1m", "1h", "1d", "1w", "1mo", "1q"), strict=True))
_JOINED = {"conditions_analyzed": "conditions_joined", "rules_applied": "rules_joined"}


def has_min_ratings(min_feedback_fields: int) -> pl.Expr:
    """Return whether a row has at least this many of the four ratings; False and 0 are ratings, null is not.

    Raises:
        UsageError: The number is not an int from 0 to 4.
    """
    count = min_feedback_fields
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= len(RATING_FIELDS):
        raise UsageError(f"`min_feedback_fields` must be a whole number from 0 to {len(RATING_FIELDS)}.")
    return pl.sum_horizontal(pl.col(name).is_not_null() for name in RATING_FIELDS) >= count


@accepts_any_dataframe
def anonymize(  # noqa: PLR0913  public, flat
    frame: Frame,
    *,
    now: datetime,
    key: KeyLike | str | None = None,
    unkeyed: bool = False,
    hash_recommendation_id: bool = False,
    extra_columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] = AGE_EDGES,
) -> Frame:
    """Convert raw feedback to training pairs: ids hashed, ages bucketed, lists joined, and no other column.

    The result is pseudonymised, not anonymous in the sense of the GDPR. Rows keep their number and order. Nulls stay
    null; an empty list and an implausible age (below 0 or above 130) become null. The rows must be valid: pass them
    through `split_valid` first, since an invalid rating, list or time becomes null here.

    Args:
        frame: The canonical raw columns, as `load_feedback` returns them; times are naive UTC or have a time zone.
        now: The time of the export, UTC (a naive time is interpreted as UTC); cut to seconds it becomes export_date.
        key: The pseudonym key: a `Key` or its text.
        unkeyed: Use plain SHA-256, which anyone who can list the ids can invert.
        hash_recommendation_id: Pseudonymise the recommendation as well.
        extra_columns: Extra columns of the frame, which follow the twelve.
        age_edges: The ages at which a new range begins.

    Returns:
        The twelve columns of `training_schema.TrainingPair` and the extra ones, lazy if the frame was.

    Raises:
        UsageError: Neither a key nor `unkeyed=True`, or both; or the key is too short.
        ValidationError: Columns are missing or of a wrong type; floating-point numbers, for one, are not exact ids.

    >>> raw = pl.DataFrame({name: [None] for name in RAW_COLUMNS} | {"analysis_id": [42], "age": [25]})
    >>> pairs = anonymize(raw, unkeyed=True, now=datetime(2025, 10, 25, 12))
    >>> pairs.select("analysis_hash", "age_range").row(0)
    ('73475cb40a568e8d', '25-35')
    """
    require_raw(frame, extra_columns)
    if not isinstance(hash_recommendation_id, bool):  # a mistake must not export ids as they are
        raise UsageError("`hash_recommendation_id` must be True or False.")
    recommendation = pl.col("recommendation_id").cast(pl.String)
    if hash_recommendation_id:
        recommendation = hash_id("recommendation_id", key=key, unkeyed=unkeyed)
    raw = frame.select(*RAW_COLUMNS, *(column.name for column in raw_extra_columns(extra_columns)))
    for column, joined in _JOINED.items():
        raw = _add_joined(raw, column, joined)
    pairs: Frame = raw.select(
        analysis_hash=hash_id("analysis_id", key=key, unkeyed=unkeyed),
        recommendation_id=recommendation,
        **{name: _whole(pl.col(name)) for name in RATINGS},
        would_recommend=_truth(pl.col("would_recommend")),
        conditions_detected="conditions_joined",
        rules_applied="rules_joined",
        timeframe=pl.col("timeframe").cast(pl.String).replace("", None),
        age_range=bucket_age("age", edges=age_edges, plausible_only=True),
        feedback_timestamp=_utc(pl.col("created_at")),
        export_date=_utc(pl.lit(to_naive_utc(now).replace(microsecond=0))),
        **{column.name: _convert_extra(column, key=key, unkeyed=unkeyed) for column in extra_columns},
    ).select(training_columns(extra_columns))
    return pairs


def _convert_extra(column: ExtraColumn, *, key: KeyLike | str | None, unkeyed: bool) -> pl.Expr:
    """Convert an extra column. An image URL that contains an id of the row would reveal it, and becomes null."""
    value = pl.col("user_id" if column == SUBJECT_HASH else column.name)
    if column.role == "identifier":
        return hash_id(value, key=key, domain=column.name, unkeyed=unkeyed)
    if column == IMAGE_URL:
        return pl.when(~contains_id(value, ids=("user_id", "analysis_id")).fill_null(value=False)).then(value)
    number = value.cast(pl.Float64)
    number = pl.when(number == 0).then(0.0).otherwise(number)  # minus zero would be another equivalence class
    casts = {"text": value.cast(pl.String), "integer": value.cast(pl.Int64, strict=False), "number": number}
    return (casts | {"boolean": _truth(value), "time": _utc(value)})[column.type]


@accepts_any_dataframe
def coarsen(frame: Frame, precision: TimestampPrecision, *, also: Sequence[str] = ()) -> Frame:
    """Truncate feedback_timestamp (and other times) to the start of a period, from the minute to the quarter.

    A week begins on Monday. Drop duplicates before: rows that differ only in their exact times become equal.

    Raises:
        UsageError: There is no such precision.
        ValidationError: The frame lacks one of the columns, or they are no times.

    >>> from datetime import UTC
    >>> pairs = pl.DataFrame({"feedback_timestamp": [datetime(2025, 10, 25, 10, 17, 31, tzinfo=UTC)]})
    >>> coarsen(pairs, "hour").item().isoformat()
    '2025-10-25T10:00:00+00:00'
    """
    if not is_coarse(precision):
        return frame
    require_pairs(frame, ["feedback_timestamp"], times=also)
    coarse: Frame = frame.with_columns(pl.col("feedback_timestamp", *also).dt.truncate(TRUNCATED[precision]))
    return coarse


def is_coarse(precision: TimestampPrecision) -> bool:
    """Return whether times are to be truncated.

    Raises:
        UsageError: There is no such precision: a mistake must not leave times exact.
    """
    if precision not in [*TRUNCATED]:
        raise UsageError(f"`timestamp_precision` must be one of {', '.join(TRUNCATED)}.")
    return precision != "exact"


def _whole(number: pl.Expr) -> pl.Expr:
    """Convert a rating to Int8, an invalid one to null, since an error of Polars would show it."""
    value = number.cast(pl.Float64)
    return pl.when(value == value.floor()).then(value).cast(pl.Int8, strict=False).alias(number.meta.output_name())


def _truth(answer: pl.Expr) -> pl.Expr:
    """Convert an answer to Boolean; 0 and 1 are answers, other numbers become null."""
    return pl.when(answer.cast(pl.Float64).is_between(0, 1)).then(answer).cast(pl.Boolean)


def _utc(time: pl.Expr) -> pl.Expr:
    """Convert a time of any unit, naive UTC or with a time zone, to `UtcTime`; null outside of the years 1 to 9999."""
    naive = time.cast(pl.Datetime("us"))  # the cast keeps the instant, not the wall clock
    return readable(naive).dt.replace_time_zone("UTC")


def _add_joined(frame: Frame, column: str, joined: str) -> Frame:
    """Add the joined form of a JSON column, computed once per distinct text, since decoding is expensive."""
    distinct = frame.select(pl.col(column).unique()).with_columns(join_list(column).alias(joined))
    wider: Frame = frame.join(distinct, on=column, how="left", maintain_order="left")
    return wider


@accepts_any_dataframe
def deduplicate(frame: Frame, *, by: str | Sequence[str] = PAIR_KEY) -> Frame:
    """Keep the first row of each pair, in the order of the frame.

    Two rows are the same feedback if their pair hash is, that is if analysis_hash, recommendation_id and
    feedback_timestamp are. Nulls in these are compared like any other value.

    Args:
        frame: Training pairs, or raw feedback with `by=RAW_KEY`, which keeps the same rows.
        by: The columns that identify a feedback.

    Returns:
        The frame without its later duplicates, lazy if it was.

    Raises:
        UsageError: The frame lacks one of the columns.

    >>> same = {"analysis_hash": "73475cb40a568e8d", "recommendation_id": "rec_1", "feedback_timestamp": None}
    >>> pairs = pl.DataFrame([same | {"helpful_rating": 5}, same | {"helpful_rating": 1}])
    >>> deduplicate(pairs)["helpful_rating"].to_list()
    [5]
    """
    names = [by] if isinstance(by, str) else list(by)
    advice = f" `anonymize` makes pairs of raw feedback, whose own duplicates go by={list(RAW_KEY)}."
    require_columns(frame, names, advice if by == PAIR_KEY else "")
    unique: Frame = frame.unique(subset=names, keep="first", maintain_order=True)
    return unique
