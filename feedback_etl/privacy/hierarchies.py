"""Generalisation hierarchies: for each quasi-identifier, coarser and coarser values, and at last none."""

from collections.abc import Mapping, Sequence
from typing import get_args

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import AGE_RANGE_NAME, FeedbackSchema
from feedback_etl.transform.age_hierarchy import join_age_ranges
from feedback_etl.transform.formulas import CONTROL_CHARACTERS, is_formula
from feedback_etl.transform.transforms import TRUNCATED, TimestampPrecision

Hierarchies = Mapping[str, Mapping[str, Sequence[str]]]
"""For each column, the coarser values of a value, from the finest to the coarsest."""

_FINEST_PERIOD = "day"


def list_levels(
    column: str,
    *,
    hierarchies: Hierarchies,
    precision: TimestampPrecision = "exact",
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> list[pl.Expr]:
    """Return expressions for the coarser values of a quasi-identifier, from the finest to the coarsest.

    Each converts the values of an export, so that a level does not depend on the one before: weeks are not nested in
    months. A value that a level does not know stays as it is. Emptying is not among the levels.

    Args:
        column: Name of the column; ages are labels as text.
        hierarchies: Hierarchies of the application, which replace the built-in one of a column.
        precision: Precision of the times, of which coarser ones are levels.
        schema: Schema of the export, with its age ranges, lists and times.
    """
    value = pl.col(column)
    if column in hierarchies:
        values = hierarchies[column]
        levels = range(max(map(len, values.values()), default=0))
        return [value.replace({text: coarser[: level + 1][-1] for text, coarser in values.items()}) for level in levels]
    if column == AGE_RANGE_NAME and schema.age:
        return [value.replace(level) for level in join_age_ranges(schema.age.edges)]
    lists = {own.name: own for own in schema.lists if own.role == "quasi_identifier"}
    if column in lists:
        return [value.str.split(",").list.first() if lists[column].is_joined else value.list.head(1)]
    if column in schema.time_columns:
        periods = get_args(TimestampPrecision)
        coarser = periods[max(periods.index(precision) + 1, periods.index(_FINEST_PERIOD)) :]
        return [value.dt.truncate(TRUNCATED[period]) for period in coarser]
    return []


def require_hierarchies(hierarchies: Hierarchies, schema: FeedbackSchema = CLASSIC_SCHEMA) -> None:
    """Raise if a hierarchy cannot be used.

    Raises:
        UsageError: A column is not a text column, or coarser values are missing or could not be exported.
    """
    texts = schema.text_columns
    for column, values in hierarchies.items():
        if column not in texts:
            raise UsageError(f"`hierarchies` are for text columns ({', '.join(texts)}); age_edges define age ranges.")
        coarser = pl.Series([text for several in values.values() for text in several], dtype=pl.String)
        is_wrong = (coarser == "") | coarser.str.contains(f"[{CONTROL_CHARACTERS}]")
        is_run = pl.DataFrame({"text": coarser}).select(is_formula("text")).to_series()
        if not all(values.values()) or bool((is_wrong | is_run).any()):
            raise UsageError(
                f"In `hierarchies`, each value of {column} must have coarser ones: texts that are not empty, without "
                "control characters, that no spreadsheet would run."
            )
