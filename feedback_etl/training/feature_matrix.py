"""Features of training pairs: the numeric input of a model."""

import warnings
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, get_args

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA, TIMEFRAME, LateFeature
from feedback_etl.schema.model import AGE_RANGE_NAME, PSEUDONYM, RAW_ITEM, TIME, FeedbackSchema
from feedback_etl.schema.requirements import require_pairs
from feedback_etl.training.encodings import (
    encode_list,
    flag_list,
    rank,
    split_list,
    time_circles,
    timeframe_days,
    to_number,
    with_missing,
)
from feedback_etl.training.labels import numeric_rating
from feedback_etl.training.vocabulary import Vocabulary
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe
from feedback_etl.transform.transforms import TimestampPrecision, is_coarse

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_LATE = get_args(LateFeature)


class LeakWarning(UserWarning):
    """Warn of a leak: features depend on the label, and are unknown when a recommendation is given."""


@accepts_any_dataframe
def features(  # noqa: PLR0913  public, flat
    frame: Frame,
    *,
    vocabulary: Vocabulary | None = None,
    ratings: Sequence[str] = (),
    include: Sequence[LateFeature] = (),
    timestamp_precision: TimestampPrecision = "exact",
    sparse: bool = False,
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> "Frame | csr_matrix":
    """Encode training pairs as numbers: one row for each pair, in their order, Float32 without nulls.

    Labels are derived from the ratings, so neither a rating nor its missing indicator is included unless
    requested: a model would find the label in them. Ids, export_date and extra columns (`[columns.NAME]`) are excluded;
    append your own encoding of extra columns, as in
    `pl.concat([encoded, pairs.select(pl.col("price").fill_null(0))], how="horizontal")`.

    By default, all features are known when a recommendation is given. timeframe and feedback_timestamp are known only
    when the feedback is given; `include` adds them. Do not add them to rows of `latest_per_recommendation`: how long a
    person went on answering would be a feature, and it depends on the answers. `LeakWarning` reports such rows: several
    timeframes, and one row for each analysis and recommendation (not for a lazy frame, which is not collected). Select
    one timeframe instead, with `one_horizon`.

    | column | values |
    |---|---|
    | `condition=NAME`, one for each of the vocabulary | 1 if the pair has this condition, else 0 |
    | `conditions_other` | 1 if the pair has a condition that the vocabulary lacks |
    | `conditions_missing` | 1 if the pair has no condition |
    | `rule=NAME`, `rules_other`, `rules_missing` | likewise for rules |
    | `LIST=NAME`, `LIST_other`, `LIST_missing` | likewise for lists of another schema that the vocabulary has |
    | `age` | 1 for the youngest range of the vocabulary, 2 for the next, ...; the mean for a wider one; 0 if missing |
    | `age_missing` | 1 if it is null or not in the vocabulary |
    | `timeframe_days` | with "timeframe", `2_weeks` is 14; a month has 30 days, a year 365; 0 if missing |
    | `timeframe_missing` | with "timeframe", 1 if it is null or has another form |
    | `hour_sin`, `hour_cos` | with "time", the time of day (UTC) on a circle; not with a precision from "day" |
    | `weekday_sin`, `weekday_cos` | with "time", the weekday (UTC) likewise, from Monday; not from "week" |
    | NAME, NAME`_missing` for each of `ratings` | the rating, 0 if missing; 1 if missing |

    Args:
        frame: Training pairs. Where feedback_timestamp is null, its sines and cosines are 0.
        vocabulary: Vocabulary of the training rows (`Vocabulary.fit`), also for test rows and prediction. It is
            required: one that is fitted to other rows gives other columns.
        ratings: Ratings to include.
        include: "timeframe", "time" (hour and weekday of the feedback), both or, by default, neither.
        timestamp_precision: Precision of the export's times: `open_dataset(folder).timestamp_precision`.
        sparse: Return a SciPy CSR matrix instead, whose columns are those of `feature_names`; its size grows with the
            conditions and rules of the rows, not with those of the vocabulary. A lazy frame is collected.
        schema: Schema of the feedback, whose ratings can be included; fit the vocabulary with the same.

    Returns:
        A frame of the given kind, lazy if the frame is; or a matrix. In names of columns, white space and characters
        that LightGBM or XGBoost refuse (`[]{}<":,`) are replaced by `_`, and a name that repeats another is numbered.

    Raises:
        UsageError: A rating, precision or name in `include` does not exist, or `vocabulary` is not a Vocabulary.
        ImportError: `sparse` is requested without SciPy.
        ValidationError: A column is missing or has a wrong type, or the age ranges have other edges than those of the
            vocabulary (of a lazy frame, only the type is checked).

    >>> pairs = pl.DataFrame({"conditions_detected": ["acne,dry", None], "rules_applied": ["r001", "r002"],
    ...     "timeframe": ["2_weeks", None], "age_range": ["18-25", None]})
    >>> vocabulary = Vocabulary(conditions=("acne",), rules=("r001", "r002"))
    >>> for column in features(pairs, vocabulary=vocabulary, include=["timeframe"]).iter_columns():
    ...     print(f"{column.name:<18}", *column.cast(int))
    condition=acne     1 0
    conditions_other   1 0
    conditions_missing 0 1
    rule=r001          1 0
    rule=r002          0 1
    rules_other        0 0
    rules_missing      0 0
    age                2 0
    age_missing        0 1
    timeframe_days     14 0
    timeframe_missing  0 1
    """
    is_coarse(timestamp_precision)
    _require_ratings(ratings, schema.rating_names)
    if not isinstance(vocabulary, Vocabulary | None):
        raise UsageError('`vocabulary` must be a Vocabulary: use Vocabulary.load("vocabulary.json") or Vocabulary.fit.')
    _require_late_features(include)
    since, time = ([name] if late in include else [] for name, late in zip((TIMEFRAME, TIME), _LATE, strict=True))
    lists = (vocabulary or Vocabulary()).names
    age = [AGE_RANGE_NAME] if (vocabulary or Vocabulary()).has_age else []
    require_pairs(frame, [*lists, *age, *since, *time, *ratings], schema=schema)
    if include and isinstance(frame, pl.DataFrame):
        _warn_of_leak(frame)
    if vocabulary is None:
        raise UsageError("features needs the vocabulary of the training rows: pass vocabulary=Vocabulary.fit(train).")
    if age:
        vocabulary.require_ranges(frame)
    types = frame.collect_schema()
    parsed = frame.select(
        *(split_list(name, types[name]) for name in lists),
        *map(timeframe_days, since),
        *(rank(name, vocabulary.rank_ranges()) for name in age),
        *(pl.col(name).cast(pl.Datetime("us")) for name in time),  # the cast converts to UTC
        *map(numeric_rating, ratings),
    )
    others = [
        *chain.from_iterable(with_missing(name, "age", "age_missing") for name in age),
        *chain.from_iterable(with_missing(name, f"{name}_days", f"{name}_missing") for name in since),
        *(time_circles(timestamp_precision) if time else ()),
        *chain.from_iterable(with_missing(name, name, f"{name}_missing") for name in ratings),
    ]
    if sparse:
        from feedback_etl.training.sparse_features import to_csr

        flagged = {column: (names, [*map(to_number, flag_list(column, names))]) for column, names in lists.items()}
        return to_csr(parsed, flagged, [*map(to_number, others)])
    listed = chain.from_iterable(encode_list(column, names) for column, names in lists.items())
    numeric: Frame = parsed.select(to_number(number) for number in (*listed, *others))
    return numeric


def _require_ratings(ratings: Sequence[str], columns: Sequence[str]) -> None:
    is_list = isinstance(ratings, Sequence) and not isinstance(ratings, str)
    if not is_list or any(ratings.count(name) > 1 for name in ratings):
        raise UsageError(f'`ratings` must be a list of distinct ratings, such as ["{columns[0]}"].')
    if wrong := [name for name in ratings if name not in columns]:
        raise UsageError(f"{wrong[0]} is not a rating; use {', '.join(columns)}.")


def _require_late_features(include: Sequence[str]) -> None:
    if isinstance(include, str) or not {*include} <= {*_LATE}:
        names = " and ".join(f'"{name}"' for name in _LATE)
        raise UsageError(f"`include` must be a list of {names}, or empty.")


def _warn_of_leak(frame: pl.DataFrame) -> None:
    """Warn if there is one row for each analysis and recommendation, at several timeframes."""
    recommendation = [PSEUDONYM, RAW_ITEM]
    if not {*recommendation, TIMEFRAME} <= {*frame.columns}:
        return
    has_several = frame[TIMEFRAME].drop_nulls().n_unique() > 1
    if has_several and not frame.select(recommendation).is_duplicated().any():
        warnings.warn(
            f"Each recommendation has one row, but the {TIMEFRAME}s differ, so {TIMEFRAME} and time tell how long a "
            f"person went on answering. Leave them out, or select one {TIMEFRAME} (one_horizon).",
            LeakWarning,
            stacklevel=4,  # the caller of `features` and its decorator
        )


def feature_names(
    vocabulary: Vocabulary,
    *,
    ratings: Sequence[str] = (),
    include: Sequence[LateFeature] = (),
    timestamp_precision: TimestampPrecision = "exact",
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> list[str]:
    """Return the columns of `features` with these arguments, in their order."""
    no_rows = pl.DataFrame(schema=[*vocabulary.names, AGE_RANGE_NAME, TIMEFRAME, TIME, *ratings]).cast(pl.Null)
    numbers = features(
        no_rows,
        vocabulary=vocabulary,
        ratings=ratings,
        include=include,
        timestamp_precision=timestamp_precision,
        schema=schema,
    )
    return numbers.columns
