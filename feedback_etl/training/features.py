"""Training pairs to numbers that a model can take, and to what it shall learn."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from numbers import Real
from typing import NamedTuple

import polars as pl

from feedback_etl.columns import RATING_FIELDS, require_pairs
from feedback_etl.errors import UsageError
from feedback_etl.training.vocabulary import Vocabulary
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe
from feedback_etl.transform.transforms import TimestampPrecision, is_coarse

_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
_TIMEFRAME = r"^([0-9]{1,4})_(day|week|month|year)s?$"
_LISTS = ("conditions_detected", "rules_applied")
_TEXTS = (*_LISTS, "timeframe", "age_range")
_TIME = "feedback_timestamp"


class Label(NamedTuple):
    """A rating, its least and its greatest value, and the value from which on it counts unless another is given."""

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
"""What `label` knows."""


@accepts_any_dataframe
def features(
    frame: Frame,
    *,
    vocabulary: Vocabulary | None = None,
    ratings: Sequence[str] = (),
    times: bool = True,
    timestamp_precision: TimestampPrecision = "exact",
) -> Frame:
    """Training pairs as numbers: one row for each, in their order, all Float32 and none of them null.

    The four ratings are what labels are made of, so neither they nor whether they are missing is in it unless asked
    for: a model would find the label in them. Ids and export_date are left out too. So are further columns, those that
    `[columns.NAME]` declares: put what you make of them beside the features, as in
    `pl.concat([features(pairs), pairs.select(pl.col("price").fill_null(0))], how="horizontal")`.

    feedback_timestamp is when somebody answered. A model that predicts an answer when the advice is given does not know
    it: for that, leave it out with `times=False`, here and in the prediction; then the frame needs no such column.

    | column | values |
    |---|---|
    | `condition=NAME`, one for each of the vocabulary | 1 where the pair has this condition, else 0 |
    | `conditions_other` | 1 where it has one that the vocabulary lacks |
    | `conditions_missing` | 1 where it has none |
    | `rule=NAME`, `rules_other`, `rules_missing` | the same of rules |
    | `timeframe_days` | `2_weeks` is 14; a month has 30 days, a year 365; 0 where it is missing |
    | `timeframe_missing` | 1 where there is none, or one of another form |
    | `age` | 1 for the youngest range of the vocabulary, 2 for the next, ...; 0 where it is missing |
    | `age_missing` | 1 where there is none, or one that the vocabulary lacks |
    | `hour_sin`, `hour_cos` | with `times`, the time of day (UTC) as a point of a circle; not with "day" |
    | `weekday_sin`, `weekday_cos` | with `times`, the day of the week (UTC) likewise, from Monday on |
    | NAME, NAME`_missing` for each of `ratings` | its value, 0 where it is missing; 1 where it is |

    Args:
        frame: Training pairs. Where feedback_timestamp is null, its sines and cosines are 0.
        vocabulary: What the model knows: that of the training rows, also for test rows and for prediction. Unless
            given it is fitted to the frame, and a lazy frame is run for that.
        ratings: Those of the four that shall be in it.
        times: Whether the hour and the weekday of the answer are in it.
        timestamp_precision: That of the export.

    Returns:
        A frame of the kind that was given, lazy if it was.

    Raises:
        UsageError: There is no such rating or precision, or the vocabulary is none.
        ValidationError: A column is missing or of a wrong type, or age ranges are of other edges than those of the
            vocabulary (of a lazy frame, which is not run, only the type tells).

    >>> pairs = pl.DataFrame({"conditions_detected": ["acne,dry", None], "rules_applied": ["r001", "r002"],
    ...     "timeframe": ["2_weeks", None], "age_range": ["18-25", None], "feedback_timestamp": [None, None]})
    >>> known = Vocabulary(conditions=("acne",), rules=("r001", "r002"))
    >>> for column in features(pairs, vocabulary=known).iter_columns():
    ...     print(f"{column.name:<18}", *column.cast(int))
    condition=acne     1 0
    conditions_other   1 0
    conditions_missing 0 1
    rule=r001          1 0
    rule=r002          0 1
    rules_other        0 0
    rules_missing      0 0
    timeframe_days     14 0
    timeframe_missing  0 1
    age                2 0
    age_missing        0 1
    hour_sin           0 0
    hour_cos           0 0
    weekday_sin        0 0
    weekday_cos        0 0
    """
    is_coarse(timestamp_precision)
    _require_ratings(ratings)
    if not isinstance(vocabulary, Vocabulary | None):
        raise UsageError('vocabulary is a Vocabulary: Vocabulary.load("vocabulary.json") reads one, and fit makes one.')
    time = [_TIME] if times else []
    require_pairs(frame, [*_TEXTS, *time, *ratings])
    known = Vocabulary.fit(frame) if vocabulary is None else vocabulary
    known.require_ranges(frame)
    parsed = frame.select(
        pl.col(_LISTS).cast(pl.String).str.split(","),
        _days("timeframe"),
        _place("age_range", known.age_ranges),
        *(pl.col(name).cast(pl.Datetime("us")) for name in time),  # the cast gives the instant in UTC
        *map(_number, ratings),
    )
    numbers = [
        *_hot("conditions_detected", "condition", known.conditions),
        *_hot("rules_applied", "rule", known.rules),
        *_with_missing("timeframe", "timeframe_days", "timeframe_missing"),
        *_with_missing("age_range", "age", "age_missing"),
        *(_times(timestamp_precision) if times else ()),
        *chain.from_iterable(_with_missing(name, name, f"{name}_missing") for name in ratings),
    ]
    numeric: Frame = parsed.select(number.cast(pl.Float32).fill_null(0) for number in numbers)
    return numeric


def _require_ratings(ratings: Sequence[str]) -> None:
    is_list = isinstance(ratings, Sequence) and not isinstance(ratings, str)
    if not is_list or any(ratings.count(name) > 1 for name in ratings):
        raise UsageError('ratings is a list of different ratings, such as ["helpful_rating"].')
    if wrong := [name for name in ratings if name not in RATING_FIELDS]:
        raise UsageError(f"{wrong[0]} is no rating; there are {', '.join(RATING_FIELDS)}.")


@accepts_any_dataframe
def label(frame: Frame, of: str, *, threshold: int | None = None, name: str = "label") -> Frame:
    """Add what a model shall learn: 1 where a rating reaches a threshold, else 0; null where the rating is missing.

    Rows without a label teach nothing: `frame.pipe(label, "helpful").drop_nulls("label")`. Take the latest answers
    (`latest_per_recommendation`) after that: the last one of somebody may have no such rating, where an older one has.

    | of | rating | threshold |
    |---|---|---|
    | `"helpful"` | helpful_rating | 2 to 5 (4) |
    | `"satisfied"` | product_satisfaction | 2 to 5 (4) |
    | `"completed"` | routine_completion_pct | 1 to 100 (80) |
    | `"recommended"` | would_recommend | it is true |

    Args:
        frame: Training pairs.
        of: Which label.
        threshold: Another one than in the table.
        name: What the column is called; one of this name is replaced.

    Returns:
        The frame with a further column, Int8; lazy if it was.

    Raises:
        UsageError: There is no such label or threshold, or the name is no text.
        ValidationError: The frame lacks the rating, or it is no number.

    >>> pairs = pl.DataFrame({"helpful_rating": [5, 3, None]})
    >>> label(pairs, "helpful", threshold=4)["label"].to_list()
    [1, 0, None]
    """
    if of not in [*LABELS]:
        raise UsageError(f"There is no label {of!r}; there are {', '.join(LABELS)}.")
    rating, least, greatest, usual = LABELS[of]
    reached = usual if threshold is None else threshold
    if not isinstance(reached, Real) or isinstance(reached, bool) or not least < reached <= greatest:
        raise UsageError(
            f"The threshold of {rating} must be greater than {least}, which every rating reaches, and at most "
            f"{greatest}."
        )
    if not isinstance(name, str):
        raise UsageError("The name of the column is a text.")
    require_pairs(frame, [rating])
    labelled: Frame = frame.with_columns((_number(rating) >= reached).cast(pl.Int8).alias(name))
    return labelled


def feature_names(
    vocabulary: Vocabulary,
    *,
    ratings: Sequence[str] = (),
    times: bool = True,
    timestamp_precision: TimestampPrecision = "exact",
) -> list[str]:
    """The columns that `features` gives with these arguments, in their order."""
    no_rows = pl.DataFrame(schema=[*_TEXTS, _TIME, *ratings]).cast(pl.Null)
    numbers = features(
        no_rows, vocabulary=vocabulary, ratings=ratings, times=times, timestamp_precision=timestamp_precision
    )
    return numbers.columns


def _days(column: str) -> pl.Expr:
    """A timeframe in days, null where it has another form."""
    text = pl.col(column).cast(pl.String)
    unit = text.str.extract(_TIMEFRAME, 2).replace_strict(_DAYS, default=None, return_dtype=pl.Int64)
    return text.str.extract(_TIMEFRAME, 1).cast(pl.Int64) * unit


def _place(column: str, names: Sequence[str]) -> pl.Expr:
    """The place of a name among all, from 1 on; null where it is none of them."""
    places = range(1, len(names) + 1)
    return pl.col(column).cast(pl.String).replace_strict(names, places, default=None, return_dtype=pl.Int64)


def _number(rating: str) -> pl.Expr:
    """A rating as a number; NaN, which pandas has for null, is null."""
    return pl.col(rating).cast(pl.Float64).fill_nan(None)


def _with_missing(column: str, name: str, missing: str) -> list[pl.Expr]:
    return [pl.col(column).alias(name), pl.col(column).is_null().alias(missing)]


def _hot(column: str, what: str, names: Sequence[str]) -> Iterator[pl.Expr]:
    """Of lists: an indicator for each name of the vocabulary, one for all others, and one for none at all."""
    elements = pl.col(column)
    yield from (elements.list.contains(pl.lit(name)).alias(f"{what}={name}") for name in names)
    is_known = pl.element().is_in(pl.Series([*names, ""], dtype=pl.String).implode())
    yield (~elements.list.eval(is_known).list.all()).alias(f"{what}s_other")
    yield (elements.is_null() | elements.list.contains("")).alias(f"{what}s_missing")


def _times(precision: TimestampPrecision) -> Iterator[pl.Expr]:
    """Points of the circles of the day and of the week."""
    time = pl.col(_TIME)
    parts = {"hour": (time.dt.hour() + time.dt.minute() / 60, 24), "weekday": (time.dt.weekday() - 1, 7)}
    for name, (part, whole) in parts.items():
        if name != "hour" or precision != "day":
            angle = part.cast(pl.Float32) * (math.tau / whole)
            yield angle.sin().alias(f"{name}_sin")
            yield angle.cos().alias(f"{name}_cos")
