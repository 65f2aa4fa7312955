"""A schema as values that JSON can represent, for manifests."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.feedback_columns import AgeColumn, ListColumn, Rating
from feedback_etl.schema.model import FeedbackSchema


def to_record(schema: FeedbackSchema) -> dict[str, Any]:
    """Return the schema without its extra columns, which manifests record on their own."""
    record = asdict(schema)
    del record["extra_columns"]
    return record | {
        "columns": [list(column) for column in schema.columns],
        "dedup_key": list(schema.dedup_key),
        "ratings": list(record["ratings"]),
        "lists": list(record["lists"]),
        "age": {**record["age"], "edges": list(record["age"]["edges"])} if schema.age else None,
    }


def from_record(record: Mapping[str, Any]) -> FeedbackSchema:
    """Return the schema of a record; raises TypeError, KeyError or UsageError if it is none."""
    age = record["age"]
    return FeedbackSchema(
        ratings=tuple(Rating(**rating) for rating in record["ratings"]),
        lists=tuple(ListColumn(**column) for column in record["lists"]),
        columns=tuple(ExtraColumn(*column) for column in record["columns"]),
        age=AgeColumn(**{**age, "edges": tuple(age["edges"])}) if age else None,
        item=record["item"],
        dedup_key=tuple(record["dedup_key"]),
    )
