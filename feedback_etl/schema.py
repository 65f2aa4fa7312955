"""What a row must be: `RawFeedback` says what is wrong with one, `TrainingPair` is the gate before anything is written.

Both are pandera models. They judge with full depth whatever PANDERA_VALIDATION_ENABLED and PANDERA_VALIDATION_DEPTH
say. `validate` raises, `split_valid` gives the good rows and the explained bad ones.
"""

from typing import Annotated, Generic, NamedTuple

import pandera.polars as pa
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors

from feedback_etl.columns import LIST_COLUMNS, RATINGS, RAW_COLUMNS, require_raw
from feedback_etl.errors import ValidationError
from feedback_etl.expressions import AGE_RANGE, MAX_AGE, decode_list, is_formula, is_string_list
from feedback_etl.frames import Frame, collected, for_any_frame, lazy_like, to_polars


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
    "created_at": {"created_at_missing": pl.col("created_at").is_null()},
    **{name: _number_faults(name, *limits) for name, limits in RATINGS.items()},
    "would_recommend": {"would_recommend_not_boolean": ~pl.col("would_recommend").cast(pl.Int64).is_between(0, 1)},
    "age": {"age_out_of_range": ~pl.col("age").is_between(0, MAX_AGE)},
    "timeframe": _text_faults("timeframe"),
}
_FAULTS = _ROW_FAULTS | {name: _list_faults(name) for name in LIST_COLUMNS}
"""For each column: the reasons for which its value is wrong, each with an expression that is true where it is."""

REASONS = tuple(dict.fromkeys(reason for faults in _FAULTS.values() for reason in faults))
"""The stable names of all reasons for which a row is rejected."""


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
"""What can be wrong with a raw row; the name of each check is the stable name of a reason."""

_NO_FORMULA = r"[^=+\-@\t\r\n]"
_ELEMENT = r"[^,=+\-@\t\r\n][^,]*"
TEXT_PATTERN = f"^{_NO_FORMULA}"
JOINED_PATTERN = f"^{_ELEMENT}(?:,{_ELEMENT})*$"

UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class TrainingPair(pa.DataFrameModel):
    """A row of the training set: twelve columns in this order and no other. Times are in UTC."""

    analysis_hash: str = pa.Field(
        str_matches="^[0-9a-f]{16}$",
        description="Pseudonym of recommendation_feedbacks.analysis_id: 16 hex characters.",
    )
    recommendation_id: str = pa.Field(
        str_matches=TEXT_PATTERN, description="The recommendation, as in recommendation_records."
    )
    helpful_rating: pl.Int8 = pa.Field(
        nullable=True, in_range={"min_value": 1, "max_value": 5}, description="How helpful, 1 to 5."
    )
    product_satisfaction: pl.Int8 = pa.Field(
        nullable=True, in_range={"min_value": 1, "max_value": 5}, description="Satisfaction, 1 to 5."
    )
    routine_completion_pct: pl.Int8 = pa.Field(
        nullable=True,
        in_range={"min_value": 0, "max_value": 100},
        description="Share of the routine that was completed, in percent; 0 is a value.",
    )
    would_recommend: pl.Boolean = pa.Field(
        nullable=True, description="Whether the user would recommend it; False is a value."
    )
    conditions_detected: str = pa.Field(
        nullable=True, str_matches=JOINED_PATTERN, description="Conditions, joined by commas."
    )
    rules_applied: str = pa.Field(
        nullable=True, str_matches=JOINED_PATTERN, description="Rules behind it, joined by commas."
    )
    timeframe: str = pa.Field(
        nullable=True, str_matches=TEXT_PATTERN, description="Time since the recommendation, such as 2_weeks."
    )
    age_range: pl.Enum = pa.Field(
        nullable=True,
        dtype_kwargs={"categories": AGE_RANGE.categories},
        description="Range of the age in years, half-open: 25 is in 25-35.",
    )
    feedback_timestamp: UtcTime = pa.Field(
        description="When the feedback was given, ISO 8601 in UTC without an offset.",
    )
    export_date: UtcTime = pa.Field(
        description="When the export was made, ISO 8601 in UTC without an offset; one value for the file.",
    )

    class Config:
        """Exactly these columns, in this order, of exactly these types."""

        strict = True
        ordered = True


class Split(NamedTuple, Generic[Frame]):
    """Raw rows, told apart.

    Attributes:
        valid: The rows in which nothing is wrong, in their order.
        rejected: The other rows, in their order, with a column `reasons`: the names of all that is wrong, joined by
            commas in the order of `REASONS`.
    """

    valid: Frame
    rejected: Frame


@for_any_frame
def split_valid(frame: Frame) -> Split[Frame]:
    """Tell valid raw rows from those with something wrong, with all the reasons.

    A frame in which nothing is wrong costs one pass; pandera then explains only the rows that failed it.

    Args:
        frame: The canonical raw columns (`RAW_COLUMNS`), as `load_feedback` gives them. A lazy frame is run for it.

    Returns:
        `Split(valid, rejected)`, two frames of the kind that was given; together they hold every row once.

    Raises:
        ValidationError: Columns are missing or of a wrong type.

    >>> valid, rejected = split_valid(pl.DataFrame({name: [None] for name in RAW_COLUMNS}))
    >>> rejected["reasons"].to_list()
    ['analysis_id_missing,recommendation_missing,created_at_missing']
    """
    valid, rejected = tell_apart(collected(frame))
    return Split(lazy_like(frame, valid), lazy_like(frame, explain(rejected)))


def tell_apart(frame: pl.DataFrame) -> Split[pl.DataFrame]:
    """`split_valid` without the reasons, in one pass; `explain` adds them, for the rows of many batches at once."""
    require_raw(frame)
    suspect = frame.select(_is_suspect(frame).alias("suspect")).to_series()
    if not suspect.any():
        return Split(frame, frame.clear())
    return Split(frame.filter(~suspect), frame.filter(suspect))


def _is_suspect(frame: pl.DataFrame) -> pl.Expr:
    """Whether anything is wrong with a row. Lists are judged once per distinct text: decoding is what costs."""
    wrong = [fault for faults in _ROW_FAULTS.values() for fault in faults.values()]
    for column in LIST_COLUMNS:
        texts = frame.select(pl.col(column).unique())
        faulty = texts.filter(pl.any_horizontal(_FAULTS[column].values())).to_series()
        if len(faulty):
            wrong.append(pl.col(column).is_in(faulty.implode()))
    return pl.any_horizontal(wrong).fill_null(value=False)


def explain(rows: pl.DataFrame) -> pl.DataFrame:
    """Raw rows that are all wrong, with a column `reasons`: what pandera finds."""
    if rows.is_empty():
        return rows.with_columns(reasons=pl.lit("", pl.String))
    cases = _failure_cases(RawFeedback, rows)
    reasons = (
        cases.select("index", reason=pl.col("check").cast(pl.Enum(REASONS)))
        .unique()
        .sort("index", "reason")
        .group_by("index", maintain_order=True)
        .agg(reasons=pl.col("reason").cast(pl.String).str.join(","))
    )
    return rows.with_columns(reasons["reasons"])


def validate(frame: Frame) -> Frame:
    """The frame itself, if it is a training set by `TrainingPair`.

    Args:
        frame: The twelve columns of `TrainingPair`, as `anonymize` gives them. A lazy frame is run for it.

    Returns:
        The same frame; of a lazy frame, the rows that were validated, lazy.

    Raises:
        ValidationError: Something is wrong; the message names each broken rule, its column and the number of rows.

    >>> validate(TrainingPair.empty()).width
    12
    """
    table = collected(to_polars(frame))
    cases = _failure_cases(TrainingPair.to_schema(), table)
    if cases.is_empty():
        return lazy_like(frame, table) if isinstance(frame, pl.LazyFrame) else frame
    # What is wrong with the columns themselves has no row, and stands under the schema's name instead of the column's.
    column = pl.when(schema_context="DataFrameSchema").then("failure_case").otherwise("column")
    rule = pl.concat_str(column, pl.lit(" "), pl.col("check").str.replace(r"\(.*", ""))
    rows = pl.when(pl.col("index").is_null()).then(table.height).otherwise(1).sum()
    counts = cases.group_by(rule.alias("rule")).agg(rows=rows).sort("rows", "rule", descending=[True, False])
    reasons = dict(counts.iter_rows())
    listed = ", ".join(f"{name} ({rows:,} {'row' if rows == 1 else 'rows'})" for name, rows in reasons.items())
    raise ValidationError(f"The training set breaks its rules and was not written: {listed}.", reasons)


def _failure_cases(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> pl.DataFrame:
    """What pandera finds wrong, one row a finding; empty where nothing is."""
    try:
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        return pl.DataFrame(errors.failure_cases)
    return pl.DataFrame()
