"""A schema as settings of a manifest, which JSON can represent."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from feedback_etl.schema.classic import CLASSIC_SCHEMA, is_classic
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.feedback_columns import AGE_EDGES, AgeColumn, ListColumn, Rating
from feedback_etl.schema.model import AGE_RANGE_NAME, FeedbackSchema


def record_schema(schema: FeedbackSchema) -> dict[str, Any]:
    """Return the settings of a manifest that record a schema; those that record nothing are empty.

    The classic schema is not recorded, only its extra columns and other age ranges: manifests without a schema are of
    the classic one. Item ratings are recorded only where they are exported, so that declaring some changes no series.
    """
    classic, items = is_classic(schema), schema.exported_items
    return {
        "extra_columns": [list(column) for column in schema.extra_columns],
        "age_edges": list(schema.age_edges) if classic and schema.age_edges != AGE_EDGES else [],
        "schema": {} if classic else _to_record(schema),
        "items": {name: getattr(items, name) for name in ("name", "min", "max", "step")} if items else {},
    }


def read_schema(settings: Mapping[str, Any]) -> FeedbackSchema:
    """Return the schema that the settings of a manifest record.

    Raises:
        TypeError, KeyError, UsageError: The settings record no schema.
    """
    record, items = settings.get("schema"), settings.get("items")
    extra = [ExtraColumn(*column) for column in settings.get("extra_columns", [])]
    schema = (_from_record(record) if record else CLASSIC_SCHEMA).with_options(extra, settings.get("age_edges"))
    return replace(schema, exported_items=Rating(**items)) if items else schema


def describe_schema(record: Mapping[str, Any]) -> str:
    """Return the columns of a recorded schema in a few words.

    >>> from feedback_etl.schema.column_types import ExtraColumn
    >>> schema = FeedbackSchema(ratings=(Rating(name="stars", min=1, max=5),), columns=(ExtraColumn("country"),))
    >>> describe_schema(record_schema(schema)["schema"])
    'stars 1 to 5, country, item recommendation_id'
    """
    schema = _from_record(record)
    ratings = [
        f"{rating.name} yes or no" if rating.type == "boolean" else f"{rating.name} {rating.min:g} to {rating.max:g}"
        for rating in schema.ratings
    ]
    names = [*(column.name for column in schema.lists), *(column.name for column in schema.columns)]
    ages = [AGE_RANGE_NAME] if schema.age else []
    return ", ".join([*ratings, *names, *ages, *([f"item {schema.item}"] if schema.item else [])])


def _to_record(schema: FeedbackSchema) -> dict[str, Any]:
    record = asdict(schema)
    del record["extra_columns"], record["items"], record["exported_items"]
    return record | {
        "ratings": list(record["ratings"]),
        "lists": list(record["lists"]),
        "columns": [list(column) for column in schema.columns],
        "age": record["age"] | {"edges": list(schema.age_edges)} if schema.age else None,
        "dedup_key": list(schema.dedup_key),
    }


def _from_record(record: Mapping[str, Any]) -> FeedbackSchema:
    age = record["age"]
    return FeedbackSchema(
        ratings=tuple(Rating(**rating) for rating in record["ratings"]),
        lists=tuple(ListColumn(**column) for column in record["lists"]),
        columns=tuple(ExtraColumn(*column) for column in record["columns"]),
        age=AgeColumn(raw_name=age["raw_name"], edges=tuple(age["edges"])) if age else None,
        item=record["item"],
        dedup_key=tuple(record["dedup_key"]),
    )
