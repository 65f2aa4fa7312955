"""Validate raw rows: `RawFeedback`, a pandera model, names every reason for a rejection.

`split_valid` returns the valid rows, and the invalid ones with their reasons.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import pandera.polars as pa
import polars as pl

from feedback_etl.columns import (
    LIST_COLUMNS,
    RATINGS,
    RAW_COLUMNS,
    ExtraColumn,
    raw_extra_columns,
    require_raw,
)
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, collect_if_lazy, lazy_like
from feedback_etl.transform.expressions import is_formula
from feedback_etl.transform.json_lists import decode_list, is_string_list
from feedback_etl.transform.timestamps import is_unreadable
from feedback_etl.transform.training_schema import failure_cases


def _number_faults(column: str, least: int, greatest: int) -> dict[str, pl.Expr]:
    number = pl.col(column).cast(pl.Float64)
    return {
        f"{column}_out_of_range": ~number.is_between(least, greatest),
        f"{column}_not_whole": number.floor() != number,
    }


def _text_faults(column: str) -> dict[str, pl.Expr]:
    return {"formula": is_formula(column)}


def _list_faults(column: str) -> dict[str, pl.Expr]:
    elements = decode_list(column).list
    return {
        LIST_COLUMNS[column]: ~is_string_list(column),
        "comma_in_element": elements.eval(pl.element().str.contains(",", literal=True)).list.any(),
        "empty_element": elements.contains(pl.lit("")),
        "formula": elements.eval(is_formula(pl.element())).list.any(),
    }


_ID_LENGTH = pl.col("recommendation_id").cast(pl.String).str.len_bytes()

_ROW_FAULTS: dict[str, dict[str, pl.Expr]] = {
    "analysis_id": {"analysis_id_missing": pl.col("analysis_id").is_null()},
    "recommendation_id": {
        "recommendation_missing": pl.col("recommendation_id").is_null() | (_ID_LENGTH == 0),
        **_text_faults("recommendation_id"),
    },
    "created_at": {
        "created_at_missing": pl.col("created_at").is_null(),
        "created_at_unreadable": is_unreadable("created_at"),
    },
    **{name: _number_faults(name, *limits) for name, limits in RATINGS.items()},
    "would_recommend": {"would_recommend_not_boolean": ~pl.col("would_recommend").cast(pl.Float64).is_between(0, 1)},
    "timeframe": _text_faults("timeframe"),
}
_FAULTS = _ROW_FAULTS | {name: _list_faults(name) for name in LIST_COLUMNS}
"""For each column: the reasons for which its value is wrong, each with an expression that is true where it is."""

REASONS = tuple(dict.fromkeys(reason for faults in _FAULTS.values() for reason in faults))
"""The stable names of all reasons for which a row is rejected."""


def _find_faults(column: ExtraColumn) -> dict[str, pl.Expr]:
    """Return the reasons for which a value of an extra column is wrong, as `_FAULTS` does."""
    value = pl.col(column.name)
    return {reason.format(column.name): find(value) for reason, find in column.column_type.faults.items()}


def _check(reason: str, wrong: pl.Expr) -> pa.Check:
    right = ~wrong.fill_null(value=False)
    return pa.Check(lambda data: data.lazyframe.select(right), name=reason, error=reason, ignore_na=False)


RawFeedback = pa.DataFrameSchema(
    {
        name: pa.Column(nullable=True, checks=[_check(*fault) for fault in _FAULTS.get(name, {}).items()])
        for name in RAW_COLUMNS
    },
    name="RawFeedback",
)
"""The rules for raw rows; the name of each check is the stable name of a reason."""


class Split(NamedTuple, Generic[Frame]):
    """Valid and rejected raw rows.

    Attributes:
        valid: The valid rows, in their order.
        rejected: The other rows, in their order, with a column `reasons`: all names of reasons, joined by commas in
            the order of `REASONS`.
    """

    valid: Frame
    rejected: Frame


@accepts_any_dataframe
def split_valid(frame: Frame, *, extra_columns: Sequence[ExtraColumn] = ()) -> Split[Frame]:
    """Split raw rows into valid ones and rejected ones with all their reasons.

    A valid frame takes one pass; pandera then explains only the rows that failed it.

    Args:
        frame: The canonical raw columns (`RAW_COLUMNS`), as `load_feedback` returns them. A lazy frame is collected.
        extra_columns: Extra columns of the frame, for `anonymize`.

    Returns:
        `Split(valid, rejected)`, two frames of the given kind; together they contain every row once.

    Raises:
        ValidationError: Columns are missing or of a wrong type.

    >>> valid, rejected = split_valid(pl.DataFrame({name: [None] for name in RAW_COLUMNS}))
    >>> rejected["reasons"].to_list()
    ['analysis_id_missing,recommendation_missing,created_at_missing']
    """
    valid, rejected = partition_valid(collect_if_lazy(frame), extra_columns)
    return Split(lazy_like(frame, valid), lazy_like(frame, add_reasons(rejected, extra_columns)))


def partition_valid(frame: pl.DataFrame, extra_columns: Sequence[ExtraColumn] = ()) -> Split[pl.DataFrame]:
    """Split rows as `split_valid` does, in one pass and without reasons; `add_reasons` adds them, for many batches."""
    require_raw(frame, extra_columns)
    suspect = frame.select(_is_suspect(frame, extra_columns).alias("suspect")).to_series()
    if not suspect.any():
        return Split(frame, frame.clear())
    return Split(frame.filter(~suspect), frame.filter(suspect))


def is_valid(frame: pl.DataFrame, extra_columns: Sequence[ExtraColumn] = ()) -> pl.Expr:
    """Return the expression that is true for the valid rows of a raw frame."""
    return ~_is_suspect(frame, extra_columns)


def _is_suspect(frame: pl.DataFrame, extra_columns: Sequence[ExtraColumn]) -> pl.Expr:
    """Return whether a row is invalid. Lists are validated once per distinct text, since decoding is expensive."""
    wrong = [
        fault for faults in (*_ROW_FAULTS.values(), *map(_find_faults, extra_columns)) for fault in faults.values()
    ]
    for column in LIST_COLUMNS:
        texts = frame.select(pl.col(column).unique())
        faulty = texts.filter(pl.any_horizontal(_FAULTS[column].values())).to_series()
        if len(faulty):
            wrong.append(pl.col(column).is_in(faulty.implode()))
    return pl.any_horizontal(wrong).fill_null(value=False)


def add_reasons(rows: pl.DataFrame, extra_columns: Sequence[ExtraColumn] = ()) -> pl.DataFrame:
    """Add the column `reasons`, from the findings of pandera, to rows that are all invalid."""
    if rows.is_empty():
        return rows.with_columns(reasons=pl.lit("", pl.String))
    # pandera converts invalid values to Python, which has no times beyond the year 9999.
    judged = rows.with_columns(pl.col("created_at").cast(pl.Datetime("us")).cast(pl.Int64))
    cases = failure_cases(RawFeedback.add_columns(_raw_columns(extra_columns)), judged)
    names = dict.fromkeys((*REASONS, *(reason for each in extra_columns for reason in _find_faults(each))))
    reasons = (
        cases.select("index", reason=pl.col("check").cast(pl.Enum(list(names))))
        .unique()
        .sort("index", "reason")
        .group_by("index", maintain_order=True)
        .agg(reasons=pl.col("reason").cast(pl.String).str.join(","))
    )
    return rows.with_columns(reasons["reasons"])


def _raw_columns(extra_columns: Sequence[ExtraColumn]) -> dict[str, pa.Column]:
    return {
        each.name: pa.Column(nullable=True, checks=[_check(*fault) for fault in _find_faults(each).items()])
        for each in raw_extra_columns(extra_columns)
    }
