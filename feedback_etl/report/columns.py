"""Decide how a report shows a column, and bin its values."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import polars as pl

from feedback_etl.records.manifest import Manifest
from feedback_etl.report.contracts import build_manifest_schema
from feedback_etl.report.ticks import round_width
from feedback_etl.schema.classic import ORDERED_TEXTS
from feedback_etl.schema.model import AGE_RANGE_NAME, IMAGE_URL, PSEUDONYM, FeedbackSchema
from feedback_etl.transform.expressions import ISO_FORMAT
from feedback_etl.transform.json_lists import decode_list
from feedback_etl.transform.row_schema import TIME
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN

Kind = Literal["hidden", "list", "array", "label", "number", "time"]

_ORDERED = {*ORDERED_TEXTS, AGE_RANGE_NAME, "number", "time"}
"""Columns and kinds whose values have a natural order."""

_TYPE_NAMES = {"array": "list", "string": "text", "integer": "whole number", "time": "time"}
_UNKNOWN = {"description": "Not a column of the contract.", "pattern": PSEUDONYM_PATTERN}
"""Unknown column of an adopted file: it can contain anything, so it is treated like a pseudonym."""

_MAX_STEPS = 12
_PERIODS = ((13, "%Y-%m-%d", "1d"), (90, "week of %Y-%m-%d", "1w"), (395, "%Y-%m", "1mo"))


class Column(NamedTuple):
    """A column of the exports.

    Attributes:
        name: Name in the files.
        meaning: Description.
        type: Type in words.
        kind: How it is shown; the values of a hidden column, which identify a person or what was rated, never are.
        ordered: Whether its values have a natural order.
        bounds: Minimum and maximum allowed number, if any.
        is_item: Whether it is what was rated.
    """

    name: str
    meaning: str
    type: str
    kind: Kind
    ordered: bool = False
    bounds: tuple[float, float] | None = None
    is_item: bool = False

    @property
    def is_list(self) -> bool:
        """Whether its values are lists, of which the elements count."""
        return self.kind in ("list", "array")


def list_columns(manifest: Manifest) -> list[Column]:
    """List the columns of an export, as its manifest and the contract describe them."""
    properties = build_manifest_schema(manifest)["properties"]
    return [_describe_column(name, properties.get(name, _UNKNOWN), manifest.schema) for name in manifest.columns]


def _describe_column(name: str, schema: Mapping[str, Any], feedback: FeedbackSchema) -> Column:
    json_type = schema.get("type", ["string", "null"])  # a list of values has no type
    types = [json_type] if isinstance(json_type, str) else json_type
    bounds = (schema["minimum"], schema["maximum"]) if "minimum" in schema else None
    kind = _find_kind(name, types[0], schema.get("pattern", ""), feedback)
    description = [
        "one of a list" if "enum" in schema else _TYPE_NAMES.get(kind) or _TYPE_NAMES.get(types[0]) or types[0]
    ]
    description += [f"{bounds[0]} to {bounds[1]}"] if bounds else []
    description += ["or empty"] if "null" in types else []
    is_ordered = kind in _ORDERED or name in _ORDERED
    return Column(
        name, schema["description"], ", ".join(description), kind, is_ordered, bounds, is_item=name == feedback.item
    )


def _find_kind(name: str, type_: str, pattern: str, feedback: FeedbackSchema) -> Kind:
    """Return how a column is shown; pseudonyms and times are recognised by their pattern."""
    if name in (PSEUDONYM, feedback.item, IMAGE_URL.name) or pattern == PSEUDONYM_PATTERN:
        return "hidden"
    if lists := [column for column in feedback.lists if column.name == name]:
        return "list" if lists[0].is_joined else "array"
    if pattern == TIME:
        return "time"
    return "number" if type_ in ("integer", "number") else "label"


def bin_values(column: Column, frame: pl.DataFrame) -> pl.Expr:
    """Return the bin of each value of a text column, as text; null stays null.

    Bins are chosen for all rows of a frame, so that parts of it can be compared. A list gives a list of its elements.
    """
    value = pl.col(column.name)
    if column.kind == "list":
        return value.str.split(",")
    if column.kind == "array":
        return decode_list(value)
    if column.kind == "time":
        return _bin_times(value.str.to_datetime(ISO_FORMAT, strict=False), frame)
    if column.kind == "number":
        return _bin_numbers(column, value.cast(pl.Float64, strict=False), frame)
    return value


def _bin_times(time: pl.Expr, frame: pl.DataFrame) -> pl.Expr:
    """Bin times by days, weeks, months or years, depending on their span."""
    first, last = frame.select(time.min().alias("first"), time.max().alias("last")).row(0)
    days = (last - first).days if first else 0
    steps = ((time_format, unit) for max_days, time_format, unit in _PERIODS if days <= max_days)
    time_format, unit = next(steps, ("%Y", "1y"))
    return time.dt.truncate(unit).dt.strftime(time_format)


def _bin_numbers(column: Column, number: pl.Expr, frame: pl.DataFrame) -> pl.Expr:
    """Bin numbers by steps of a round width, unless few are distinct; with known bounds the last step is closed."""
    quantiles = (number.quantile(0.01).alias("low"), number.quantile(0.99).alias("high"))
    low, high = column.bounds or frame.select(quantiles).row(0)
    has_few = frame.select(number.drop_nulls().n_unique()).item() <= _MAX_STEPS
    if has_few or not math.isfinite(high - low) or high <= low:
        return _format_number(number)
    width = round_width((high - low) / _MAX_STEPS)
    start = (number / width).floor() * width
    if column.bounds:
        start = start.clip(upper_bound=high - width)
    is_last = pl.lit(column.bounds is not None) & (start + width == high)
    to = pl.when(is_last).then(pl.lit("to")).otherwise(pl.lit("to under"))
    return pl.format("{} {} {}", _format_number(start), to, _format_number(start + width))


def _format_number(number: pl.Expr) -> pl.Expr:
    """Format a number without a trailing `.0`."""
    return number.round(6).cast(pl.String).str.strip_suffix(".0")
