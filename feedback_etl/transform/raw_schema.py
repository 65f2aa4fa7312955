"""Validate raw rows: the checks of `RawFeedback`, a pandera schema, are named after the reasons for rejection.

`split_valid` returns the valid rows, and the invalid rows with their reasons.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Generic, NamedTuple

import pandera.polars as pa
import polars as pl

from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import COLUMN_TYPES, ExtraColumn
from feedback_etl.schema.feedback_columns import STEP_TOLERANCE, ListColumn, Rating
from feedback_etl.schema.model import RAW_ITEM, FeedbackSchema
from feedback_etl.schema.requirements import require_raw
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, collect_if_lazy, restore_laziness
from feedback_etl.transform.failure_cases import list_failure_cases
from feedback_etl.transform.formulas import has_control_character, is_formula
from feedback_etl.transform.items import item_faults
from feedback_etl.transform.json_lists import decode_list, is_string_list
from feedback_etl.transform.timestamps import is_unreadable

FORMULA = "formula"
"""The reason for rejecting texts that spreadsheet programs run, where formulas are to be rejected."""


def _rating_faults(rating: Rating) -> dict[str, pl.Expr]:
    name, number = rating.name, pl.col(rating.name).cast(pl.Float64)
    if rating.type == "boolean":
        return {f"{name}_not_boolean": ~number.is_between(0, 1)}
    steps = number if rating.is_whole_number else (number - rating.min) / rating.step
    is_off_step = (steps.floor() != steps) if rating.is_whole_number else (steps - steps.round()).abs() > STEP_TOLERANCE
    return {f"{name}_out_of_range": ~number.is_between(rating.min, rating.max), rating.step_reason: is_off_step}


def _text_faults(column: str) -> dict[str, pl.Expr]:
    return {FORMULA: is_formula(column), "control_character": has_control_character(column)}


def _list_faults(column: ListColumn) -> dict[str, pl.Expr]:
    elements = decode_list(column.raw_name).list
    is_list = {column.reason: ~is_string_list(column.raw_name)}
    controls = {"control_character": elements.eval(has_control_character(pl.element())).list.any()}
    if not column.is_joined:  # the text of an array is not a formula
        return is_list | controls
    joined = {
        "comma_in_element": elements.eval(pl.element().str.contains(",", literal=True)).list.any(),
        "empty_element": elements.contains(pl.lit("")),
        FORMULA: elements.eval(is_formula(pl.element())).list.any(),
    }
    return is_list | joined | controls


def _column_faults(column: ExtraColumn) -> dict[str, pl.Expr]:
    if column.column_type == COLUMN_TYPES["text"]:
        return _text_faults(column.name)
    value = pl.col(column.name)
    return {reason.format(column.name): is_invalid(value) for reason, is_invalid in column.column_type.faults.items()}


_ID_FAULTS: dict[str, dict[str, pl.Expr]] = {
    "analysis_id": {"analysis_id_missing": pl.col("analysis_id").is_null()},
    RAW_ITEM: {
        "recommendation_missing": pl.col(RAW_ITEM).is_null() | (pl.col(RAW_ITEM).cast(pl.String).str.len_bytes() == 0),
        **_text_faults(RAW_ITEM),
    },
    "created_at": {
        "created_at_missing": pl.col("created_at").is_null(),
        "created_at_unreadable": is_unreadable("created_at"),
    },
}


class _Faults(NamedTuple):
    """The reasons for which a schema rejects rows, each with an expression that is true for invalid values, by column.

    Attributes:
        rows: Those that are tested in each row.
        values: Those of columns with few distinct values, which are tested once per distinct value.
    """

    rows: dict[str, dict[str, pl.Expr]]
    values: dict[str, dict[str, pl.Expr]]

    @property
    def reasons(self) -> list[str]:
        """The names of the reasons, each once."""
        faults = (*self.rows.values(), *self.values.values())
        return list(dict.fromkeys(reason for reasons in faults for reason in reasons))


@lru_cache
def _get_faults(schema: FeedbackSchema) -> _Faults:
    """Return the reasons for rejection; those of extra columns follow the others and are tested in each row."""
    texts = [column for column in schema.columns if column.column_type == COLUMN_TYPES["text"]]
    others = [column for column in schema.columns if column not in texts]
    ids = {name: faults for name, faults in _ID_FAULTS.items() if name in schema.raw_types}
    ratings = {rating.name: _rating_faults(rating) for rating in schema.ratings}
    values = {column.name: _text_faults(column.name) for column in texts}
    items = schema.exported_items
    maps = {items.name: item_faults(items, FORMULA)} if items else {}
    return _Faults(
        ids | ratings | {column.name: _column_faults(column) for column in others} | maps,
        values | {column.raw_name: _list_faults(column) for column in schema.lists},
    )


REASONS = tuple(_get_faults(CLASSIC_SCHEMA).reasons)
"""The stable names of all reasons for rejection of the classic schema, except those of extra columns."""


def _extra_faults(schema: FeedbackSchema) -> dict[str, dict[str, pl.Expr]]:
    return {column.name: _column_faults(column) for column in schema.extra_columns}


def _select_faults(faults: Mapping[str, pl.Expr], *, reject_formulas: bool) -> list[pl.Expr]:
    return [fault for reason, fault in faults.items() if reject_formulas or reason != FORMULA]


def _create_check(reason: str, is_invalid: pl.Expr) -> pa.Check:
    is_valid = ~is_invalid.fill_null(value=False)
    return pa.Check(lambda data: data.lazyframe.select(is_valid), name=reason, error=reason, ignore_na=False)


def build_raw_feedback_schema(schema: FeedbackSchema = CLASSIC_SCHEMA) -> pa.DataFrameSchema:
    """Return the pandera schema of raw rows; the name of each check is the stable name of a reason for rejection."""
    rows, values = _get_faults(schema)
    faults = rows | values | _extra_faults(schema)
    columns = {
        name: pa.Column(nullable=True, checks=[_create_check(*fault) for fault in faults.get(name, {}).items()])
        for name in schema.raw_columns
    }
    return pa.DataFrameSchema(columns, name="RawFeedback")


RawFeedback = build_raw_feedback_schema()
"""The schema of raw rows of the classic schema."""


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
    frame: Frame,
    *,
    extra_columns: Sequence[ExtraColumn] = (),
    reject_formulas: bool = False,
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> Split[Frame]:
    """Split raw rows into valid ones and rejected ones with all their reasons.

    A frame is checked in one pass; pandera then explains only the invalid rows.

    Args:
        frame: The raw columns of the schema, as `load_feedback` returns them. A lazy frame is collected.
        extra_columns: Extra columns of the frame, for `anonymize`.
        reject_formulas: Reject texts that a spreadsheet program would run, as an export with `formulas="reject"` does.
        schema: The schema of the feedback.

    Returns:
        `Split(valid, rejected)`, two frames of the given kind; together they contain every row once.

    Raises:
        ValidationError: Columns are missing or of a wrong type.

    >>> valid, rejected = split_valid(pl.DataFrame({name: [None] for name in CLASSIC_SCHEMA.raw_columns}))
    >>> rejected["reasons"].to_list()
    ['analysis_id_missing,recommendation_missing,created_at_missing']
    """
    schema = schema.with_options(extra_columns, None)
    valid, rejected = partition_valid(collect_if_lazy(frame), schema, reject_formulas=reject_formulas)
    explained = add_reasons(rejected, schema, reject_formulas=reject_formulas)
    return Split(restore_laziness(frame, valid), restore_laziness(frame, explained))


def partition_valid(
    frame: pl.DataFrame, schema: FeedbackSchema = CLASSIC_SCHEMA, *, reject_formulas: bool = False
) -> Split[pl.DataFrame]:
    """Split rows as `split_valid` does, but without reasons, which `add_reasons` adds for many batches at once."""
    require_raw(frame, schema)
    is_invalid = frame.select(~is_valid(frame, schema, reject_formulas=reject_formulas)).to_series()
    if not is_invalid.any():
        return Split(frame, frame.clear())
    return Split(frame.filter(~is_invalid), frame.filter(is_invalid))


def is_valid(frame: pl.DataFrame, schema: FeedbackSchema = CLASSIC_SCHEMA, *, reject_formulas: bool = False) -> pl.Expr:
    """Return an expression that is true for the valid rows of this frame.

    Columns with few distinct values are validated once per distinct value, since decoding lists is expensive.
    """
    select = partial(_select_faults, reject_formulas=reject_formulas)
    rows, values = _get_faults(schema)
    faults = [fault for column in (*rows.values(), *_extra_faults(schema).values()) for fault in select(column)]
    for column, value_faults in values.items():
        distinct = frame.select(pl.col(column).unique())
        invalid = distinct.filter(pl.any_horizontal(select(value_faults))).to_series()
        if len(invalid):
            faults.append(pl.col(column).is_in(invalid.implode()))
    return ~pl.any_horizontal(faults).fill_null(value=False)


def add_reasons(
    rows: pl.DataFrame, schema: FeedbackSchema = CLASSIC_SCHEMA, *, reject_formulas: bool = False
) -> pl.DataFrame:
    """Add the column `reasons`, from the failure cases of pandera, to rows that are all invalid."""
    if rows.is_empty():
        return rows.with_columns(reasons=pl.lit("", pl.String))
    # Pandera converts invalid values to Python objects, and datetime ends with the year 9999.
    convertible = rows.with_columns(pl.col("created_at").cast(pl.Datetime("us")).cast(pl.Int64))
    cases = list_failure_cases(build_raw_feedback_schema(schema), convertible)
    names = dict.fromkeys(
        (*_get_faults(schema).reasons, *(reason for faults in _extra_faults(schema).values() for reason in faults))
    )
    reasons = (
        cases.filter(pl.lit(reject_formulas) | (pl.col("check") != FORMULA))
        .select("index", reason=pl.col("check").cast(pl.Enum(list(names))))
        .unique()
        .sort("index", "reason")
        .group_by("index", maintain_order=True)
        .agg(reasons=pl.col("reason").cast(pl.String).str.join(","))
    )
    return rows.with_columns(reasons["reasons"])
