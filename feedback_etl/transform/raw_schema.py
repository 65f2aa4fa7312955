"""Validate raw rows: the checks of `RawFeedback`, a pandera schema, are named after the reasons for rejection.

`split_valid` returns the valid rows, and the invalid rows with their reasons.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Generic, NamedTuple

import pandera.polars as pa
import polars as pl

from feedback_etl.columns import (
    COLUMN_TYPES,
    LIST_COLUMNS,
    RATINGS,
    RAW_COLUMNS,
    ExtraColumn,
    raw_extra_columns,
    require_raw,
)
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, collect_if_lazy, lazy_like
from feedback_etl.transform.failure_cases import failure_cases
from feedback_etl.transform.formulas import has_control_character, is_formula
from feedback_etl.transform.json_lists import decode_list, is_string_list
from feedback_etl.transform.timestamps import is_unreadable

FORMULA = "formula"
"""The reason for rejecting texts that spreadsheet programs run, where formulas are to be rejected."""


def _number_faults(column: str, least: float, greatest: float) -> dict[str, pl.Expr]:
    number = pl.col(column).cast(pl.Float64)
    return {
        f"{column}_out_of_range": ~number.is_between(least, greatest),
        f"{column}_not_whole": number.floor() != number,
    }


def _text_faults(column: str) -> dict[str, pl.Expr]:
    return {FORMULA: is_formula(column), "control_character": has_control_character(column)}


def _list_faults(column: str) -> dict[str, pl.Expr]:
    elements = decode_list(column).list
    return {
        LIST_COLUMNS[column]: ~is_string_list(column),
        "comma_in_element": elements.eval(pl.element().str.contains(",", literal=True)).list.any(),
        "empty_element": elements.contains(pl.lit("")),
        FORMULA: elements.eval(is_formula(pl.element())).list.any(),
        "control_character": elements.eval(has_control_character(pl.element())).list.any(),
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
}
_VALUE_FAULTS = {"timeframe": _text_faults("timeframe")} | {name: _list_faults(name) for name in LIST_COLUMNS}
"""The same for columns with few distinct values, which are validated once per distinct value."""

_FAULTS = _ROW_FAULTS | _VALUE_FAULTS
"""Maps each column to its reasons for rejection, and each reason to an expression that is true for invalid values."""

REASONS = tuple(dict.fromkeys(reason for faults in _FAULTS.values() for reason in faults))
"""The stable names of all reasons for rejection, except those of extra columns."""


def _find_faults(column: ExtraColumn) -> dict[str, pl.Expr]:
    """Return the reasons for rejection of an extra column and their expressions, as in `_FAULTS`."""
    if column.column_type == COLUMN_TYPES["text"]:
        return _text_faults(column.name)
    value = pl.col(column.name)
    return {reason.format(column.name): is_invalid(value) for reason, is_invalid in column.column_type.faults.items()}


def _select_faults(faults: Mapping[str, pl.Expr], *, reject_formulas: bool) -> list[pl.Expr]:
    return [fault for reason, fault in faults.items() if reject_formulas or reason != FORMULA]


def _create_check(reason: str, is_invalid: pl.Expr) -> pa.Check:
    is_valid = ~is_invalid.fill_null(value=False)
    return pa.Check(lambda data: data.lazyframe.select(is_valid), name=reason, error=reason, ignore_na=False)


RawFeedback = pa.DataFrameSchema(
    {
        name: pa.Column(nullable=True, checks=[_create_check(*fault) for fault in _FAULTS.get(name, {}).items()])
        for name in RAW_COLUMNS
    },
    name="RawFeedback",
)
"""The schema of raw rows; the name of each check is the stable name of a reason for rejection."""


class Split(NamedTuple, Generic[Frame]):
    """Valid and rejected raw rows.

    Attributes:
        valid: The valid rows, in their order.
        rejected: The invalid rows, in their order, with a column `reasons`: the names of their reasons in the order
            of `REASONS`, joined by commas.
    """

    valid: Frame
    rejected: Frame


@accepts_any_dataframe
def split_valid(
    frame: Frame, *, extra_columns: Sequence[ExtraColumn] = (), reject_formulas: bool = False
) -> Split[Frame]:
    """Split raw rows into valid ones and rejected ones with all their reasons.

    A frame is checked in one pass; pandera then explains only the invalid rows.

    Args:
        frame: The canonical raw columns (`RAW_COLUMNS`), as `load_feedback` returns them. A lazy frame is collected.
        extra_columns: Extra columns of the frame, for `anonymize`.
        reject_formulas: Reject texts that a spreadsheet program would run, as an export with `formulas="reject"` does.

    Returns:
        `Split(valid, rejected)`, two frames of the given kind; together they contain every row once.

    Raises:
        ValidationError: Columns are missing or of a wrong type.

    >>> valid, rejected = split_valid(pl.DataFrame({name: [None] for name in RAW_COLUMNS}))
    >>> rejected["reasons"].to_list()
    ['analysis_id_missing,recommendation_missing,created_at_missing']
    """
    valid, rejected = partition_valid(collect_if_lazy(frame), extra_columns, reject_formulas=reject_formulas)
    explained = add_reasons(rejected, extra_columns, reject_formulas=reject_formulas)
    return Split(lazy_like(frame, valid), lazy_like(frame, explained))


def partition_valid(
    frame: pl.DataFrame, extra_columns: Sequence[ExtraColumn] = (), *, reject_formulas: bool = False
) -> Split[pl.DataFrame]:
    """Split rows as `split_valid` does, but without reasons, which `add_reasons` adds for many batches at once."""
    require_raw(frame, extra_columns)
    is_invalid = frame.select(~is_valid(frame, extra_columns, reject_formulas=reject_formulas)).to_series()
    if not is_invalid.any():
        return Split(frame, frame.clear())
    return Split(frame.filter(~is_invalid), frame.filter(is_invalid))


def is_valid(
    frame: pl.DataFrame, extra_columns: Sequence[ExtraColumn] = (), *, reject_formulas: bool = False
) -> pl.Expr:
    """Return an expression that is true for the valid rows of this frame.

    Columns with few distinct values are validated once per distinct value, since decoding lists is expensive.
    """
    select = partial(_select_faults, reject_formulas=reject_formulas)
    faults = [
        fault for column in (*_ROW_FAULTS.values(), *map(_find_faults, extra_columns)) for fault in select(column)
    ]
    for column, value_faults in _VALUE_FAULTS.items():
        values = frame.select(pl.col(column).unique())
        invalid = values.filter(pl.any_horizontal(select(value_faults))).to_series()
        if len(invalid):
            faults.append(pl.col(column).is_in(invalid.implode()))
    return ~pl.any_horizontal(faults).fill_null(value=False)


def add_reasons(
    rows: pl.DataFrame, extra_columns: Sequence[ExtraColumn] = (), *, reject_formulas: bool = False
) -> pl.DataFrame:
    """Add the column `reasons`, from the failure cases of pandera, to rows that are all invalid."""
    if rows.is_empty():
        return rows.with_columns(reasons=pl.lit("", pl.String))
    # Pandera converts invalid values to Python objects, and datetime ends with the year 9999.
    convertible = rows.with_columns(pl.col("created_at").cast(pl.Datetime("us")).cast(pl.Int64))
    cases = failure_cases(RawFeedback.add_columns(_raw_columns(extra_columns)), convertible)
    names = dict.fromkeys((*REASONS, *(reason for column in extra_columns for reason in _find_faults(column))))
    reasons = (
        cases.filter(pl.lit(reject_formulas) | (pl.col("check") != FORMULA))
        .select("index", reason=pl.col("check").cast(pl.Enum(list(names))))
        .unique()
        .sort("index", "reason")
        .group_by("index", maintain_order=True)
        .agg(reasons=pl.col("reason").cast(pl.String).str.join(","))
    )
    return rows.with_columns(reasons["reasons"])


def _raw_columns(extra_columns: Sequence[ExtraColumn]) -> dict[str, pa.Column]:
    return {
        column.name: pa.Column(nullable=True, checks=[_create_check(*fault) for fault in _find_faults(column).items()])
        for column in raw_extra_columns(extra_columns)
    }
