"""JSON Schema of the rows of an export: of its pairs, and of its item rows."""

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.transform.training_schema import build_item_columns, build_training_schema

_JSON_TYPES = {pl.Boolean: "boolean", pl.Float64: "number"}
TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?$"


def build_row_schema(
    schema: FeedbackSchema = CLASSIC_SCHEMA, overridden: Collection[str] = (), *, generalized: bool = False
) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one row of an export, where an empty field is null."""
    columns = build_training_schema(schema, frozenset(overridden), generalized=generalized).columns
    description = "One row of a feedback_etl export: pseudonymised feedback on one recommendation."
    return _object("TrainingPair", description, columns)


def build_item_row_schema(
    rating: Rating, schema: FeedbackSchema = CLASSIC_SCHEMA, overridden: Collection[str] = ()
) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one item row of an export; no field is empty but that of a user."""
    description = "One item row of a feedback_etl export (--items): the rating of an item in pseudonymised feedback."
    return _object("ItemRow", description, build_item_columns(rating, schema, frozenset(overridden)))


def _object(title: str, description: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "type": "object",
        "properties": {name: _build_property(column) for name, column in columns.items()},
        "required": list(columns),
        "additionalProperties": False,
    }


def _build_property(column: Any) -> dict[str, Any]:
    dtype = column.dtype.type
    facts: dict[str, Any] = {"description": column.description}
    for check in column.checks:
        limits = check.statistics
        facts |= {"pattern": limits["pattern"]} if "pattern" in limits else {}
        facts |= {"minimum": limits["min_value"], "maximum": limits["max_value"]} if "min_value" in limits else {}
    if isinstance(dtype, pl.Enum):
        return facts | {"enum": [*dtype.categories, None]}
    if isinstance(dtype, pl.Datetime):
        facts["pattern"] = TIME
    if isinstance(dtype, pl.List):
        return facts | {"type": ["array", "null"], "items": {"type": "string"}}
    kind = _JSON_TYPES.get(dtype, "integer" if dtype.is_integer() else "string")
    return facts | {"type": [kind, "null"] if column.nullable else kind}
