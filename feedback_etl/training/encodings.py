"""Expressions that encode the columns of training pairs as numbers."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import polars as pl

from feedback_etl.schema.classic import FEATURE_NAMES
from feedback_etl.transform.transforms import TimestampPrecision

_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
_TIMEFRAME = r"^([0-9]{1,4})_(day|week|month|year)s?$"
_WITHOUT = {"hour": ("day", "week", "month", "quarter"), "weekday": ("week", "month", "quarter")}
"""The precisions of times that have no such part."""
_REFUSED = re.compile(r'[\[\]{}<":,\s]')
"""Characters that LightGBM (`"[]{}:,`, line ends) or XGBoost (`[]<`) refuse in names of features; LightGBM replaces
spaces, and refuses names that are equal then."""


def to_number(value: pl.Expr) -> pl.Expr:
    """Return a feature as Float32, 0 where it is null."""
    return value.cast(pl.Float32).fill_null(0)


def timeframe_days(column: str) -> pl.Expr:
    """Return a timeframe in days; null if it has another form."""
    text = pl.col(column).cast(pl.String)
    unit = text.str.extract(_TIMEFRAME, 2).replace_strict(_DAYS, default=None, return_dtype=pl.Int64)
    return text.str.extract(_TIMEFRAME, 1).cast(pl.Int64) * unit


def rank(column: str, ranks: Mapping[str, float]) -> pl.Expr:
    """Return the rank of a name; null for other values."""
    return pl.col(column).cast(pl.String).replace_strict(ranks, default=None, return_dtype=pl.Float64)


def with_missing(column: str, name: str, missing: str) -> list[pl.Expr]:
    """Return a number and whether it is missing, under these names."""
    return [pl.col(column).alias(name), pl.col(column).is_null().alias(missing)]


def split_list(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return the elements of a column of lists, or of texts that are joined by commas."""
    return pl.col(column) if dtype == pl.List else pl.col(column).cast(pl.String).str.split(",")


def encode_list(column: str, names: Sequence[str]) -> list[pl.Expr]:
    """Encode lists: an indicator for each name of the vocabulary, then `_flag_list`."""
    labels = _label_indicators(FEATURE_NAMES.get(column, (column,))[0], names)
    indicators = zip(names, labels, strict=True)
    contained = [pl.col(column).list.contains(pl.lit(name)).alias(label) for name, label in indicators]
    return [*contained, *flag_list(column, names)]


def _label_indicators(prefix: str, names: Sequence[str]) -> list[str]:
    """Return distinct names of columns that other libraries accept.

    >>> _label_indicators("rule", ["a:b", "a b", "c"])
    ['rule=a_b', 'rule=a_b_2', 'rule=c']
    """
    labels: dict[str, None] = {}
    for name in names:
        label = f"{prefix}={_REFUSED.sub('_', name)}"
        numbered = (f"{label}_{number}" for number in count(2))
        labels[label if label not in labels else next(other for other in numbered if other not in labels)] = None
    return [*labels]


def flag_list(column: str, names: Sequence[str]) -> list[pl.Expr]:
    """Return whether a list has names that the vocabulary lacks, and whether it is empty."""
    prefix, elements = FEATURE_NAMES.get(column, (column,))[-1], pl.col(column)
    is_known = pl.element().is_in(pl.Series([*names, ""], dtype=pl.String).implode())
    return [
        (~elements.list.eval(is_known).list.all()).alias(f"{prefix}_other"),
        (elements.is_null() | elements.list.contains("")).alias(f"{prefix}_missing"),
    ]


def time_circles(precision: TimestampPrecision) -> Iterator[pl.Expr]:
    """Return hour and weekday as points on the circles of the day and of the week, unless the precision hides them."""
    time = pl.col("feedback_timestamp")
    parts = {"hour": (time.dt.hour() + time.dt.minute() / 60, 24), "weekday": (time.dt.weekday() - 1, 7)}
    for name, (part, whole) in parts.items():
        if precision not in _WITHOUT[name]:
            angle = part.cast(pl.Float32) * (math.tau / whole)
            yield angle.sin().alias(f"{name}_sin")
            yield angle.cos().alias(f"{name}_cos")
