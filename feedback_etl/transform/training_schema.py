"""Validate training sets: every batch must satisfy `TrainingPair`, a pandera model, before it is written."""

from collections.abc import Collection, Sequence
from functools import lru_cache

import pandera.polars as pa
import polars as pl

from feedback_etl.schema.classic import CLASSIC_SCHEMA, COLUMN_DESCRIPTIONS, is_classic
from feedback_etl.schema.column_types import UTC_TIME, ExtraColumn
from feedback_etl.schema.feedback_columns import AGE_EDGES, ListColumn, Rating
from feedback_etl.schema.model import (
    AGE_RANGE_NAME,
    EXPORT_DATE,
    IMAGE_URL,
    PSEUDONYM,
    RAW_ITEM,
    SUBJECT_HASH,
    TIME,
    FeedbackSchema,
)
from feedback_etl.transform.age_hierarchy import all_age_ranges
from feedback_etl.transform.column_transforms import with_age_ranges
from feedback_etl.transform.combined_checks import combine_checks
from feedback_etl.transform.dataframes import Frame, collect_if_lazy, restore_laziness, to_polars
from feedback_etl.transform.expressions import age_ranges
from feedback_etl.transform.failure_cases import Model, list_failure_cases, list_model_failure_cases, require_none
from feedback_etl.transform.formulas import CONTROL_CHARACTERS, is_formula
from feedback_etl.transform.items import ITEM, RATING, list_item_columns

_RANGE = "Range of the age in years, half-open"
_WIDER_RANGE = f"{_RANGE}; wider ranges belong to small equivalence classes."
_OWN_LABEL = "Range of the age, a label of the application's own."
_DECLARED_PSEUDONYM = "Pseudonym of the analysis_id of [source], or of the feedback itself: 16 or 32 hex characters."
_OWN_PSEUDONYM = "Pseudonym of recommendation_feedbacks.analysis_id, made by the application itself."
PSEUDONYM_PATTERN = "^([0-9a-f]{16}){1,2}$"
_ELEMENT = f"[^,{CONTROL_CHARACTERS}]+"
TEXT_PATTERN = f"^[^{CONTROL_CHARACTERS}]"
JOINED_PATTERN = f"^{_ELEMENT}(?:,{_ELEMENT})*$"

_DESCRIPTIONS = {
    PSEUDONYM: "Pseudonym of recommendation_feedbacks.analysis_id: 16 or 32 hex characters.",
    RAW_ITEM: "The recommendation, as in recommendation_records.",
    AGE_RANGE_NAME: f"{_RANGE}: 25 is in 25-35.",
    TIME: "When the feedback was given, ISO 8601 in UTC without an offset.",
    EXPORT_DATE: "When the export was made, ISO 8601 in UTC without an offset; one value for the file.",
    SUBJECT_HASH.name: "Pseudonym of the user: rows of the same person have the same, 16 or 32 hex characters.",
    IMAGE_URL.name: "Key of the analysed photo, where the user agreed to its use.",
    **COLUMN_DESCRIPTIONS,
}


def _build_rating_column(rating: Rating, *, nullable: bool = True) -> pa.Column:
    limits = pa.Check.in_range(*(int(end) if rating.is_whole else end for end in (rating.min, rating.max)))
    description = rating.description or _describe_rating(rating)
    checks = [] if rating.type == "boolean" else [limits]
    return pa.Column(rating.dtype, checks, nullable=nullable, description=description)


def _describe_rating(rating: Rating) -> str:
    return "An answer." if rating.type == "boolean" else f"A rating from {rating.min:g} to {rating.max:g}."


def _list_column(column: ListColumn) -> pa.Column:
    joined = "joined by commas" if column.is_joined else "a JSON array in CSV"
    checks = pa.Check.str_matches(JOINED_PATTERN) if column.is_joined else None
    return pa.Column(column.dtype, checks, nullable=True, description=column.description or f"A list, {joined}.")


def _create_column(column: ExtraColumn) -> pa.Column:
    role = column.role.replace("_", "-").capitalize()
    description = _DESCRIPTIONS.get(column.name, f"{role}; a column that was declared.")
    if column.role == "identifier":
        return pa.Column(str, pa.Check.str_matches(PSEUDONYM_PATTERN), nullable=True, description=description)
    checks = pa.Check.str_matches(TEXT_PATTERN) if column.type == "text" else None
    return pa.Column(column.column_type.dtype, checks, nullable=True, description=description)


def _create_columns(schema: FeedbackSchema) -> dict[str, pa.Column]:
    """Return the columns of a training set by name."""
    columns = {
        PSEUDONYM: pa.Column(str, pa.Check.str_matches(PSEUDONYM_PATTERN)),
        TIME: pa.Column(UTC_TIME),
        EXPORT_DATE: pa.Column(UTC_TIME),
        **{rating.name: _build_rating_column(rating) for rating in schema.ratings},
        **{column.name: _list_column(column) for column in schema.lists},
        **{column.name: _create_column(column) for column in schema.all_columns},
    }
    if schema.item:
        columns[schema.item] = pa.Column(str, pa.Check.str_matches(TEXT_PATTERN), description="The item.")
    if schema.age:
        columns[AGE_RANGE_NAME] = pa.Column(age_ranges(schema.age.edges), nullable=True, description=f"{_RANGE}.")
    for name in (PSEUDONYM, RAW_ITEM, TIME, EXPORT_DATE):
        if name in columns:
            columns[name].description = _DESCRIPTIONS[name]
    if not is_classic(schema):
        columns[PSEUDONYM].description = _DECLARED_PSEUDONYM
    if schema.age_edges == AGE_EDGES:
        columns[AGE_RANGE_NAME].description = _DESCRIPTIONS[AGE_RANGE_NAME]
    return {name: columns[name] for name in schema.training_columns}


@lru_cache
def build_training_schema(
    schema: FeedbackSchema = CLASSIC_SCHEMA, overridden: frozenset[str] = frozenset(), *, generalized: bool = False
) -> pa.DataFrameSchema:
    """Return the pandera schema of a training set; generalised exports have wider age ranges.

    Where an application overrides `bucket_age` or `hash_id`, labels or pseudonyms may be any text but a formula.
    """
    rules = pa.DataFrameSchema(_create_columns(schema), name="TrainingPair", strict=True, ordered=True)
    if "bucket_age" in overridden:
        checks = _build_text_checks(AGE_RANGE_NAME)
        rules = rules.update_column(AGE_RANGE_NAME, dtype=pl.String, checks=checks, description=_OWN_LABEL)
    elif generalized and schema.age:
        ranges = all_age_ranges(schema.age.edges)
        rules = rules.update_column(AGE_RANGE_NAME, dtype=ranges, description=_WIDER_RANGE)
    if "hash_id" in overridden:
        rules = rules.update_column(PSEUDONYM, checks=_build_text_checks(PSEUDONYM), description=_OWN_PSEUDONYM)
    return rules


def build_item_columns(
    rating: Rating, schema: FeedbackSchema = CLASSIC_SCHEMA, overridden: frozenset[str] = frozenset()
) -> dict[str, pa.Column]:
    """Return the columns of the item rows of a training set, by name."""
    pairs = build_training_schema(schema, overridden).columns
    item = pa.Column(str, pa.Check.str_matches(TEXT_PATTERN), description="What was rated.")
    columns = pairs | {ITEM: item, RATING: _build_rating_column(rating, nullable=False)}
    return {name: columns[name] for name in list_item_columns(pairs)}


def _build_text_checks(column: str) -> list[pa.Check]:
    """Return the checks of pseudonyms and labels of an application, which no export escapes."""
    return [pa.Check.str_matches(TEXT_PATTERN), _refuse_formulas(is_formula(column))]


def _refuse_formulas(formulas: pl.Expr) -> pa.Check:
    return pa.Check(
        lambda data: data.lazyframe.select(~formulas.fill_null(value=False)), name="formula", error="formula"
    )


@lru_cache
def _build_combined(schema: FeedbackSchema, overridden: frozenset[str], *, generalized: bool) -> pa.DataFrameSchema:
    few_distinct = {*schema.list_names, *(column.name for column in schema.columns if column.type == "text")}
    return combine_checks(build_training_schema(schema, overridden, generalized=generalized), few_distinct)


def validate(  # noqa: PLR0913  public, flat
    frame: Frame,
    *,
    extra_columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] | None = None,
    row_model: Model | None = None,
    overridden: Collection[str] = (),
    generalized: bool = False,
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> Frame:
    """Return the frame if it satisfies the rules of a training set, by default those of `TrainingPair`.

    Args:
        frame: The training columns of the schema; age_range may be text. A lazy frame is collected.
        extra_columns: The extra columns that follow the others, such as `schema.model.SUBJECT_HASH`.
        age_edges: The ages at which a new range begins; those of the schema by default.
        row_model: A custom pandera model that the frame must satisfy as well; it does not change the frame.
        overridden: The functions that the application overrides: "bucket_age", whose labels may then be any text but a
            formula, and "hash_id", whose pseudonyms may be.
        generalized: Whether age ranges may be wider ones, as in an export with `on_small_class="generalize"`.
        schema: The schema of the feedback.

    Returns:
        The same frame; for a lazy frame, a lazy frame of the validated rows.

    Raises:
        ValidationError: A rule is broken; the message names each broken rule, its column and the number of rows.

    >>> validate(TrainingPair.empty()).width
    12
    """
    table = collect_if_lazy(to_polars(frame))
    schema = schema.with_options(extra_columns, age_edges)
    rules = (schema, frozenset(overridden))
    typed = table
    if schema.age and "bucket_age" not in overridden:
        ranges = all_age_ranges(schema.age.edges) if generalized else age_ranges(schema.age.edges)
        typed = with_age_ranges(table, ranges)
    cases = list_failure_cases(_build_combined(*rules, generalized=generalized), typed)
    if not cases.is_empty():  # the combined check does not report which rule is broken
        cases = list_failure_cases(build_training_schema(*rules, generalized=generalized), typed)
    if row_model is not None:
        cases = pl.concat([cases, list_model_failure_cases(row_model, table)], how="diagonal_relaxed")
    require_none(cases, table)
    return restore_laziness(frame, table) if isinstance(frame, pl.LazyFrame) else frame


class TrainingPair(pa.DataFrameModel):
    """A row of the classic training set: twelve columns in this order and no other. Times are in UTC.

    A subclass can declare further columns.
    """

    @classmethod
    def to_schema(cls) -> pa.DataFrameSchema:
        """Return the classic training schema, with the columns that a subclass declares."""
        return build_training_schema().add_columns(super().to_schema().columns)

    class Config:
        """Exactly these columns, in this order, of exactly these types."""

        strict = True
        ordered = True


def validate_classic(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return training pairs that an application created without `anonymize`, if they are valid.

    Pseudonyms and labels may be any text, lists may have empty elements, no text may be a formula; else as `validate`.

    Raises:
        ValidationError: As `validate` does.
    """
    schema = build_training_schema(overridden=frozenset({"hash_id", "bucket_age"}))
    texts = (RAW_ITEM, *(column.name for column in CLASSIC_SCHEMA.columns))
    formulas = {name: is_formula(name) for name in texts} | {
        name: pl.col(name).str.split(",").list.eval(is_formula(pl.element())).list.any()
        for name in CLASSIC_SCHEMA.list_names
    }
    text = pa.Check.str_matches(f"^[^{CONTROL_CHARACTERS}]+$")
    stricter = {name: {"checks": [text, _refuse_formulas(formula)]} for name, formula in formulas.items()}
    require_none(list_failure_cases(schema.update_columns(stricter), pairs), pairs)
    return pairs
