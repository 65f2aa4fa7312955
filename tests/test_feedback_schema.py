"""The schema of feedback: what a declaration can say, and what it cannot."""

import json
import pickle
import re
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.declaration import (
    ColumnTable,
    Declaration,
    DedupTable,
    ListTable,
    RatingTable,
    declare_schema,
)
from feedback_etl.schema.feedback_columns import AgeColumn, Rating
from feedback_etl.schema.item_declaration import ItemSettings
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.record import read_schema, record_schema

STARS = Rating(name="stars", min=1, max=10, step=0.5)
COURSES: dict[str, Any] = {
    "ratings": {
        "stars": {"column": "rating", "min": 1, "max": 10, "step": 0.5},
        "would_buy_again": {"type": "boolean"},
    },
    "lists": {"tags": {}},
    "columns": {
        "course": {"role": "item", "column": "course_id"},
        "country": {"role": "quasi_identifier"},
        "visits": {"role": "sensitive", "type": "integer"},
        "age_range": {"role": "quasi_identifier", "type": "date", "column": "born", "bucket": [30, 60]},
    },
    "dedup": {"key": ["user_id", "course", "created_at"]},
}


def declare(tables: dict[str, Any]) -> Declaration:
    """Return the schema of tables of a settings file."""
    return declare_schema(
        {name: RatingTable(**table) for name, table in tables.get("ratings", {}).items()},
        {name: ListTable(**table) for name, table in tables.get("lists", {}).items()},
        {name: ColumnTable(**table) for name, table in tables.get("columns", {}).items()},
        DedupTable(**tables["dedup"]) if "dedup" in tables else None,
        {name: ItemSettings(**table) for name, table in tables.get("items", {}).items()},
    )


def test_declared_schema_has_the_declared_columns() -> None:
    """And no others: neither those of the classic schema nor a date of birth."""
    schema, sources, *_ = declare(COURSES)
    assert schema.training_columns == (
        *("analysis_hash", "course", "stars", "would_buy_again", "tags", "country", "visits", "age_range"),
        *("feedback_timestamp", "export_date"),
    )
    assert schema.raw_columns == (
        *("feedback_id", "user_id", "analysis_id", "recommendation_id", "stars", "would_buy_again", "tags"),
        *("country", "visits", "date_of_birth", "created_at"),
    )
    assert sources == {"stars": "rating", "recommendation_id": "course_id", "date_of_birth": "born"}
    assert schema.quasi_identifiers == ("age_range", "country")
    assert schema.sensitive_columns == ("stars", "would_buy_again", "visits")
    assert schema.dedup_key == ("user_id", "recommendation_id", "created_at")
    assert schema.pair_key == ("analysis_hash", "course", "feedback_timestamp")
    assert not schema.has_whole_key
    assert {**schema.labels} == {
        "stars": ("stars", 1, 10, None, 0.5),
        "would_buy_again": ("would_buy_again", 0, 1, 1, 1),
    }


def test_columns_alone_are_extra_columns_of_the_classic_schema() -> None:
    """As before there were declarations."""
    schema, *_ = declare({"columns": {"country": {"role": "quasi_identifier"}}})
    assert schema == CLASSIC_SCHEMA.with_extra_columns([ExtraColumn("country", "quasi_identifier")])
    assert schema.training_columns[-3:] == ("feedback_timestamp", "export_date", "country")


def test_schema_without_an_item_has_no_such_column() -> None:
    """And its default key does not name one."""
    schema, *_ = declare({"ratings": {"thumb": {"type": "boolean"}}})
    assert schema.raw_columns == ("feedback_id", "user_id", "analysis_id", "thumb", "created_at")
    assert schema.training_columns == ("analysis_hash", "thumb", "feedback_timestamp", "export_date")
    assert schema.dedup_key == ("analysis_id", "created_at")


@pytest.mark.parametrize(
    ("limits", "dtype"),
    [
        ({"min": 1, "max": 10}, pl.Int8),
        ({"min": 1, "max": 10, "step": 0.5}, pl.Float64),
        ({"min": 0.5, "max": 5}, pl.Float64),
        ({"min": 0, "max": 1000}, pl.Int64),
        ({"type": "boolean"}, pl.Boolean),
    ],
)
def test_type_of_a_rating_follows_its_scale(limits: dict[str, Any], dtype: pl.DataType) -> None:
    """The smallest that contains all values."""
    assert Rating(name="stars", **limits).dtype == dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": {}}, "needs at least one rating"),
        ({"ratings": {"stars": {"min": 5, "max": 5}}}, "rating stars needs a `min` below its `max`"),
        ({"ratings": {"stars": {"min": 1, "max": 5, "step": 0}}}, "rating stars needs a `step` above 0"),
        ({"ratings": {"stars": {"min": 1, "max": 5, "threshold": 1}}}, "The `threshold` of the rating stars"),
        ({"ratings": {"stars": {}}}, r"\[ratings.stars\] needs `min` and `max`"),
        ({"ratings": {"stars": {"type": "boolean", "max": 3}}}, r"\[ratings.stars\] has no `min` and `max`"),
        ({"ratings": {"user_id": {"type": "boolean"}}}, "A column cannot be called user_id"),
        ({"ratings": {"Stars": {"type": "boolean"}}}, "lower-case letters"),
        ({"lists": {"country": {}}}, r"\[lists.country\] and \[columns.country\] declare the same name"),
        ({"lists": {"stars": {"raw_name": "all_stars"}}}, "A column cannot be called stars"),
        ({"lists": {"tags": {"raw_name": "stars"}}}, "Two columns are called stars in raw rows"),
        ({"columns": {"a": {"role": "item"}, "b": {"role": "item"}}}, 'Only one column can have the role "item"'),
        ({"columns": {"born": {"role": "quasi_identifier", "type": "date"}}}, r"call it \[columns.age_range\]"),
        ({"columns": {"age_range": {"role": "quasi_identifier", "type": "date"}}}, "needs `bucket`"),
        ({"columns": {"age_range": {"role": "quasi_identifier", "type": "integer"}}}, "needs `bucket`"),
        (
            {"columns": {"age_range": {"role": "quasi_identifier", "type": "integer", "bucket": [50, 18]}}},
            r"`bucket` of \[columns.age_range\] must be ascending",
        ),
        ({"columns": {"note": {"role": "free_text", "type": "integer"}}}, 'The role "free_text" is for columns'),
        ({"dedup": {"key": ["user_id"]}}, "must contain created_at"),
        ({"dedup": {"key": ["created_at", "page"]}}, "only columns of the feedback"),
    ],
)
def test_invalid_declarations_are_refused(change: dict[str, Any], message: str) -> None:
    """With a sentence that names the table."""
    with pytest.raises(UsageError, match=message):
        declare(COURSES | change)


def test_list_among_columns_is_refused_with_the_table_to_write() -> None:
    """The same keys without `type` declare it there."""
    column = {"role": "sensitive", "type": "list", "column": "labels"}
    with pytest.raises(UsageError, match="without `type`") as refusal:
        declare(COURSES | {"columns": {"topics": column}})
    (name,) = re.findall(r"write \[lists\.(\w+)\] instead", str(refusal.value))
    del column["type"]
    declaration = declare(COURSES | {"lists": {name: column}})
    assert ("topics", "sensitive") in [(column.name, column.role) for column in declaration.schema.lists]
    assert declaration.source_columns["topics"] == "labels"


def test_columns_of_declared_schemas_need_one() -> None:
    """An item among extra columns would be none."""
    with pytest.raises(UsageError, match=r"\[columns.course\] with the role .item. needs a declared schema"):
        declare({"columns": {"course": {"role": "item"}}})


@pytest.mark.parametrize(
    "schema",
    [
        CLASSIC_SCHEMA,
        declare(COURSES).schema,
        replace(CLASSIC_SCHEMA, age=None, items=()),
        CLASSIC_SCHEMA.with_options([ExtraColumn("city")], [30]),
    ],
)
def test_schema_is_a_value(schema: FeedbackSchema) -> None:
    """It can be hashed, sent to workers and recorded in a manifest."""
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert hash(schema) == hash(replace(schema))
    settings = {name: value for name, value in record_schema(schema).items() if value}
    assert read_schema(json.loads(json.dumps(settings))) == schema


def test_ages_in_years_and_dates_of_birth_have_their_types() -> None:
    """Numbers and dates."""
    schemas = [FeedbackSchema(ratings=(STARS,), age=AgeColumn(raw_name=name)) for name in ("age", "date_of_birth")]
    assert [schema.raw_types[schema.raw_columns[-2]] for schema in schemas] == ["number", "date"]


def test_classic_schema_needs_no_record() -> None:
    """Manifests without one are of the classic schema, as those of earlier versions."""
    assert not any(record_schema(CLASSIC_SCHEMA).values())
    assert read_schema({}) == CLASSIC_SCHEMA
