"""The classic schema: the feedback on recommendations of the application that this package was made for.

This is the only module that names its ratings, lists and texts, beside the classic API, the demo and the tables.
"""

from dataclasses import replace
from typing import Literal

from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.feedback_columns import AgeColumn, ListColumn, Rating
from feedback_etl.schema.model import FeedbackSchema

CLASSIC_SCHEMA = FeedbackSchema(
    ratings=(
        Rating(name="helpful_rating", min=1, max=5, label="helpful", threshold=4, description="How helpful, 1 to 5."),
        Rating(
            name="product_satisfaction",
            min=1,
            max=5,
            label="satisfied",
            threshold=4,
            description="Satisfaction, 1 to 5.",
        ),
        Rating(
            name="routine_completion_pct",
            max=100,
            label="completed",
            threshold=80,
            description="Share of the routine that was completed, in percent; 0 is a value.",
        ),
        Rating(
            name="would_recommend",
            type="boolean",
            label="recommended",
            description="Whether the user would recommend it; False is a value.",
        ),
    ),
    lists=(
        ListColumn(
            raw_name="conditions_analyzed",
            name="conditions_detected",
            reason="conditions_not_a_list",
            role="quasi_identifier",
            is_joined=True,
            description="Conditions, joined by commas.",
        ),
        ListColumn(
            raw_name="rules_applied",
            name="rules_applied",
            reason="rules_not_a_list",
            is_joined=True,
            description="Rules behind it, joined by commas.",
        ),
    ),
    columns=(ExtraColumn("timeframe", "quasi_identifier"),),
    age=AgeColumn(),
    items=(Rating(name="product_ratings", min=1, max=5, description="Rating of a product, 1 to 5."),),
)
"""The schema of the default tables."""

COLUMN_DESCRIPTIONS = {"timeframe": "Time since the recommendation, such as 2_weeks."}
"""Descriptions of columns, for contracts and reports."""

ORDERED_TEXTS = ("timeframe",)
"""Columns of texts that have a natural order."""


TIMEFRAME = "timeframe"
"""The column of the time since the recommendation, of which there can be several answers."""

LateFeature = Literal["timeframe", "time"]
"""What is known only when feedback is given: "timeframe", and with "time" its hour and weekday."""

DEFAULT_VALUE = "helpful_rating"
"""The rating that represents an interaction of a user with an item."""

FEATURE_NAMES = {"conditions_detected": ("condition", "conditions"), "rules_applied": ("rule", "rules")}
"""The beginning of the names of features of lists: of an element, and of all of them."""


def list_declared_columns(schema: FeedbackSchema) -> tuple[ExtraColumn, ...]:
    """Return the columns that were declared for an export, beside those of the classic schema."""
    return schema.extra_columns if is_classic(schema) else schema.all_columns


def is_classic(schema: FeedbackSchema) -> bool:
    """Return whether a schema is the classic one, with any extra columns, age ranges and item ratings."""
    usual = replace(schema, extra_columns=(), items=CLASSIC_SCHEMA.items, exported_items=None)
    return replace(usual, age=schema.age and CLASSIC_SCHEMA.age) == CLASSIC_SCHEMA
