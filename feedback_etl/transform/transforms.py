"""Frame transforms from raw feedback to training pairs. Lazy frames stay lazy.

Each accepts Polars frames, pandas data frames and Arrow tables, and returns the same kind; rows stay in order.

pairs = raw.pipe(anonymize, key=key, now=now).pipe(deduplicate)
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

import polars as pl

from feedback_etl.clock import to_naive_utc
from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.feedback_columns import ListColumn, Rating
from feedback_etl.schema.model import AGE_RANGE_NAME, IMAGE_URL, RAW_ITEM, SUBJECT_HASH, FeedbackSchema
from feedback_etl.schema.requirements import require_pairs, require_raw
from feedback_etl.transform.ages import age_at_feedback
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, require_columns
from feedback_etl.transform.expressions import KeyLike, bucket_age, hash_id
from feedback_etl.transform.identifiers import contains_id
from feedback_etl.transform.json_lists import join_list, non_empty_list
from feedback_etl.transform.timestamps import readable

TimestampPrecision = Literal["exact", "minute", "hour", "day", "week", "month", "quarter"]

PAIR_KEY = CLASSIC_SCHEMA.pair_key
"""The columns that identify a feedback of the classic schema; `expressions.pair_hash` is their digest."""

RAW_KEY = CLASSIC_SCHEMA.dedup_key
"""The same for raw rows: `anonymize` maps these columns to `PAIR_KEY`, one to one."""

TRUNCATED = dict(zip(get_args(TimestampPrecision), ("", "1m", "1h", "1d", "1w", "1mo", "1q"), strict=True))


def has_min_ratings(min_feedback_fields: int, schema: FeedbackSchema = CLASSIC_SCHEMA) -> pl.Expr:
    """Return whether a row has at least this many of the ratings; False and 0 are ratings, null is not.

    Raises:
        UsageError: The number is not an int from 0 to the number of ratings.
    """
    count, names = min_feedback_fields, schema.rating_names
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= len(names):
        raise UsageError(f"`min_feedback_fields` must be a whole number from 0 to {len(names)}.")
    return pl.sum_horizontal(pl.col(name).is_not_null() for name in names) >= count


@accepts_any_dataframe
def anonymize(  # noqa: PLR0913  public, flat
    frame: Frame,
    *,
    now: datetime,
    key: KeyLike | str | None = None,
    unkeyed: bool = False,
    hash_recommendation_id: bool = False,
    extra_columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] | None = None,
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> Frame:
    """Convert raw feedback to training pairs: ids hashed, ages bucketed, lists joined, and no other column.

    The result is pseudonymised, not anonymous in the sense of the GDPR. Rows keep their number and order. Nulls stay
    null; an empty list and an implausible age (below 0 or above 130) become null. The rows must be valid: pass them
    through `split_valid` first, since an invalid rating, list or time becomes null here.

    Args:
        frame: The raw columns of the schema, as `load_feedback` returns them; times are naive UTC or have a time zone.
        now: The time of the export, UTC (a naive time is interpreted as UTC); cut to seconds it becomes export_date.
        key: The pseudonym key: a `Key` or its text.
        unkeyed: Use plain SHA-256, which anyone who can list the ids can invert.
        hash_recommendation_id: Pseudonymise the recommendation, or another item, as well.
        extra_columns: Extra columns of the frame, which follow the others.
        age_edges: The ages at which a new range begins; those of the schema by default.
        schema: The schema of the feedback.

    Returns:
        The training columns of the schema, by default the twelve of `training_schema.TrainingPair`, and the extra ones;
        lazy if the frame was.

    Raises:
        UsageError: Neither a key nor `unkeyed=True`, or both; or the key is too short.
        ValidationError: Columns are missing or of a wrong type; floating-point numbers, for one, are not exact ids.

    >>> raw = pl.DataFrame({name: [None] for name in CLASSIC_SCHEMA.raw_columns} | {"analysis_id": [42], "age": [25]})
    >>> pairs = anonymize(raw, unkeyed=True, now=datetime(2025, 10, 25, 12))
    >>> pairs.select("analysis_hash", "age_range").row(0)
    ('73475cb40a568e8d', '25-35')
    """
    schema = schema.with_options(extra_columns, age_edges)
    require_raw(frame, schema)
    if not isinstance(hash_recommendation_id, bool):  # a mistake must not export ids as they are
        raise UsageError("`hash_recommendation_id` must be True or False.")
    recommendation = pl.col(RAW_ITEM).cast(pl.String)
    if hash_recommendation_id:
        recommendation = hash_id(RAW_ITEM, key=key, unkeyed=unkeyed)
    raw = frame.select(schema.raw_columns)
    for column in schema.lists:
        raw = _add_exported(raw, column)
    pairs: Frame = raw.select(
        **dict.fromkeys(schema.item_columns, recommendation),
        analysis_hash=hash_id("analysis_id", key=key, unkeyed=unkeyed),
        **{rating.name: _convert_rating(rating) for rating in schema.ratings},
        **{column.name: _get_exported_name(column) for column in schema.lists},
        **{column.name: _convert_column(column, key=key, unkeyed=unkeyed) for column in schema.columns},
        **{AGE_RANGE_NAME: bucket_age(age_at_feedback(schema.age), edges=schema.age.edges, plausible_only=True)}
        if schema.age
        else {},
        feedback_timestamp=_utc(pl.col("created_at")),
        export_date=_utc(pl.lit(to_naive_utc(now).replace(microsecond=0))),
        **{column.name: _convert_extra(column, key=key, unkeyed=unkeyed) for column in schema.extra_columns},
    ).select(schema.training_columns)
    return pairs


def _convert_rating(rating: Rating) -> pl.Expr:
    """Convert a rating to its dtype; an invalid one becomes null, since an error of Polars would show it."""
    if rating.type == "boolean":
        return _truth(pl.col(rating.name))
    if not rating.is_whole:
        return pl.col(rating.name).cast(pl.Float64)
    value = pl.col(rating.name).cast(pl.Float64)
    return pl.when(value == value.floor()).then(value).cast(rating.dtype, strict=False).alias(rating.name)


def _convert_column(column: ExtraColumn, *, key: KeyLike | str | None, unkeyed: bool) -> pl.Expr:
    """Convert a column of the feedback; an empty text becomes null."""
    value = _convert_extra(column, key=key, unkeyed=unkeyed)
    return value.replace("", None) if column.column_type.dtype == pl.String else value


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
        ValidationError: The frame lacks one of the columns, or they are not times.

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


def _truth(answer: pl.Expr) -> pl.Expr:
    """Convert an answer to Boolean; 0 and 1 are answers, other numbers become null."""
    return pl.when(answer.cast(pl.Float64).is_between(0, 1)).then(answer).cast(pl.Boolean)


def _utc(time: pl.Expr) -> pl.Expr:
    """Convert a time of any unit, naive UTC or with a time zone, to `UtcTime`; null outside of the years 1 to 9999."""
    naive = time.cast(pl.Datetime("us"))  # the cast keeps the instant, not the wall clock
    return readable(naive).dt.replace_time_zone("UTC")


def _get_exported_name(column: ListColumn) -> str:
    return f"{column.raw_name} exported"


def _add_exported(frame: Frame, column: ListColumn) -> Frame:
    """Add the exported form of a JSON column, computed once per distinct text, since decoding is expensive."""
    exported = (join_list if column.is_joined else non_empty_list)(column.raw_name).alias(_get_exported_name(column))
    distinct = frame.select(pl.col(column.raw_name).unique()).with_columns(exported)
    wider: Frame = frame.join(distinct, on=column.raw_name, how="left", maintain_order="left")
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
