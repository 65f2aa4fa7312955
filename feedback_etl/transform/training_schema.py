"""Validate training sets: every batch must satisfy `TrainingPair`, a pandera model, before it is written."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Annotated

import pandera.polars as pa
import polars as pl

from feedback_etl.columns import AGE_EDGES, IMAGE_URL, SUBJECT_HASH, ExtraColumn
from feedback_etl.transform.age_hierarchy import all_age_ranges
from feedback_etl.transform.column_transforms import with_age_ranges
from feedback_etl.transform.combined_checks import combine_checks
from feedback_etl.transform.dataframes import Frame, collect_if_lazy, lazy_like, to_polars
from feedback_etl.transform.expressions import AGE_RANGE, age_ranges
from feedback_etl.transform.failure_cases import Model, failure_cases, model_failure_cases, require_none
from feedback_etl.transform.formulas import CONTROL_CHARACTERS, is_formula

_RANGE = "Range of the age in years, half-open"
_WIDER_RANGE = f"{_RANGE}; wider ranges belong to small equivalence classes."
_OWN_LABEL = "Range of the age, a label of the application's own."
_OWN_PSEUDONYM = "Pseudonym of recommendation_feedbacks.analysis_id, made by the application itself."
PSEUDONYM_PATTERN = "^([0-9a-f]{16}){1,2}$"
_ELEMENT = f"[^,{CONTROL_CHARACTERS}]+"
TEXT_PATTERN = f"^[^{CONTROL_CHARACTERS}]"
JOINED_PATTERN = f"^{_ELEMENT}(?:,{_ELEMENT})*$"

UtcTime = Annotated[pl.Datetime, "us", "UTC"]


class TrainingPair(pa.DataFrameModel):
    """A row of the training set: twelve columns in this order and no other. Times are in UTC."""

    analysis_hash: str = pa.Field(
        str_matches=PSEUDONYM_PATTERN,
        description="Pseudonym of recommendation_feedbacks.analysis_id: 16 or 32 hex characters.",
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
        description=f"{_RANGE}: 25 is in 25-35.",
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


_DESCRIPTIONS = {
    SUBJECT_HASH: "Pseudonym of the user: rows of the same person have the same, 16 or 32 hex characters.",
    IMAGE_URL: "Key of the analysed photo, where the user agreed to its use.",
}


@lru_cache
def training_schema(
    extra_columns: tuple[ExtraColumn, ...] = (),
    age_edges: tuple[int, ...] = AGE_EDGES,
    overridden: frozenset[str] = frozenset(),
    *,
    generalized: bool = False,
) -> pa.DataFrameSchema:
    """Return `TrainingPair` with the requested age ranges and extra columns; generalised exports have wider ranges.

    Where an application overrides `bucket_age` or `hash_id`, labels or pseudonyms may be any text but a formula.
    """
    schema = TrainingPair.to_schema()
    if "bucket_age" in overridden:
        checks = _own_text_checks("age_range")
        schema = schema.update_column("age_range", dtype=pl.String, checks=checks, description=_OWN_LABEL)
    elif generalized:
        schema = schema.update_column("age_range", dtype=all_age_ranges(age_edges), description=_WIDER_RANGE)
    elif age_edges != AGE_EDGES:
        schema = schema.update_column("age_range", dtype=age_ranges(age_edges), description=f"{_RANGE}.")
    if "hash_id" in overridden:
        checks = _own_text_checks("analysis_hash")
        schema = schema.update_column("analysis_hash", checks=checks, description=_OWN_PSEUDONYM)
    columns = {column.name: _create_column(column) for column in extra_columns}
    return schema.add_columns(columns) if columns else schema


def _own_text_checks(column: str) -> list[pa.Check]:
    """Return the checks of pseudonyms and labels of an application, which no export escapes."""
    return [pa.Check.str_matches(TEXT_PATTERN), _refuse_formulas(is_formula(column))]


def _refuse_formulas(formulas: pl.Expr) -> pa.Check:
    return pa.Check(
        lambda data: data.lazyframe.select(~formulas.fill_null(value=False)), name="formula", error="formula"
    )


@lru_cache
def _combined_schema(
    extra_columns: tuple[ExtraColumn, ...], age_edges: tuple[int, ...], overridden: frozenset[str], *, generalized: bool
) -> pa.DataFrameSchema:
    return combine_checks(training_schema(extra_columns, age_edges, overridden, generalized=generalized))


def _create_column(column: ExtraColumn) -> pa.Column:
    role = column.role.replace("_", "-").capitalize()
    description = _DESCRIPTIONS.get(column, f"{role}; a column that was declared.")
    if column.role == "identifier":
        return pa.Column(str, pa.Check.str_matches(PSEUDONYM_PATTERN), nullable=True, description=description)
    checks = pa.Check.str_matches(TEXT_PATTERN) if column.type == "text" else None
    return pa.Column(column.column_type.dtype, checks, nullable=True, description=description)


def validate(  # noqa: PLR0913  public, flat
    frame: Frame,
    *,
    extra_columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] = AGE_EDGES,
    row_model: Model | None = None,
    overridden: Collection[str] = (),
    generalized: bool = False,
) -> Frame:
    """Return the frame if it satisfies `TrainingPair`.

    Args:
        frame: The twelve columns of `TrainingPair`; age_range may be text. A lazy frame is collected.
        extra_columns: The extra columns that follow the twelve, such as `columns.SUBJECT_HASH`.
        age_edges: The ages at which a new range begins.
        row_model: A custom pandera model that the frame must satisfy as well; it does not change the frame.
        overridden: The functions that the application overrides: "bucket_age", whose labels may then be any text but a
            formula, and "hash_id", whose pseudonyms may be.
        generalized: Whether age ranges may be wider ones, as in an export with `on_small_class="generalize"`.

    Returns:
        The same frame; for a lazy frame, a lazy frame of the validated rows.

    Raises:
        ValidationError: A rule is broken; the message names each broken rule, its column and the number of rows.

    >>> validate(TrainingPair.empty()).width
    12
    """
    table = collect_if_lazy(to_polars(frame))
    rules = (tuple(extra_columns), tuple(age_edges), frozenset(overridden))
    ranges = all_age_ranges(age_edges) if generalized else age_ranges(age_edges)
    typed = table if "bucket_age" in overridden else with_age_ranges(table, ranges)
    cases = failure_cases(_combined_schema(*rules, generalized=generalized), typed)
    if not cases.is_empty():  # the combined check does not report which rule is broken
        cases = failure_cases(training_schema(*rules, generalized=generalized), typed)
    if row_model is not None:
        cases = pl.concat([cases, model_failure_cases(row_model, table)], how="diagonal_relaxed")
    require_none(cases, table)
    return lazy_like(frame, table) if isinstance(frame, pl.LazyFrame) else frame


def validate_classic(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return training pairs that an application created without `anonymize`, if they are valid.

    Pseudonyms and labels may be any text, lists may have empty elements, no text may be a formula; else as `validate`.

    Raises:
        ValidationError: As `validate` does.
    """
    schema = training_schema(overridden=frozenset({"hash_id", "bucket_age"}))
    formulas = {name: is_formula(name) for name in ("recommendation_id", "timeframe")} | {
        name: pl.col(name).str.split(",").list.eval(is_formula(pl.element())).list.any()
        for name in ("conditions_detected", "rules_applied")
    }
    text = pa.Check.str_matches(f"^[^{CONTROL_CHARACTERS}]+$")
    stricter = {name: {"checks": [text, _refuse_formulas(formula)]} for name, formula in formulas.items()}
    require_none(failure_cases(schema.update_columns(stricter), pairs), pairs)
    return pairs
