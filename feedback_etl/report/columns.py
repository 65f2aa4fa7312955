"""What a report may show of a column, and how its values are put into bins."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import polars as pl

from feedback_etl.columns import IMAGE_URL, ExtraColumn
from feedback_etl.contracts import row_schema
from feedback_etl.exports.manifest import Manifest
from feedback_etl.expressions import AGE_EDGES, ISO_FORMAT

Kind = Literal["hidden", "list", "label", "number", "time"]

_HIDDEN = {"analysis_hash", "recommendation_id", IMAGE_URL.name}
_LISTS = {"conditions_detected", "rules_applied"}
_ORDERED = {"timeframe", "age_range"}
_MOST_STEPS = 12
_DAYS = ((13, "%Y-%m-%d", "1d"), (90, "week of %Y-%m-%d", "1w"), (395, "%Y-%m", "1mo"))


class Column(NamedTuple):
    """A column of the exports.

    Attributes:
        name: In the files.
        meaning: In words.
        type: In words.
        kind: What is shown of it: of a hidden one, which tells one person from another, never a value.
        ordered: Whether its values have an order of their own.
        bounds: The least and the greatest number that it may hold, where there are such.
    """

    name: str
    meaning: str
    type: str
    kind: Kind
    ordered: bool = False
    bounds: tuple[float, float] | None = None


def columns_of(manifest: Manifest) -> list[Column]:
    """The columns of an export, as its manifest and the contract tell them."""
    extra = [ExtraColumn(*each) for each in manifest.settings.get("extra_columns", [])]
    properties = row_schema(extra, manifest.settings.get("age_edges", AGE_EDGES))["properties"]
    pseudonyms = {each.name for each in extra if each.role == "identifier"}
    times = {each.name for each in extra if each.type == "time"} | {"feedback_timestamp", "export_date"}
    return [_column(name, properties.get(name, {}), pseudonyms, times) for name in manifest.columns]


def _column(name: str, facts: Mapping[str, Any], pseudonyms: set[str], times: set[str]) -> Column:
    types = [facts["type"]] if isinstance(facts.get("type"), str) else facts.get("type", ["string", "null"])
    bounds = (facts["minimum"], facts["maximum"]) if "minimum" in facts else None
    kind: Kind = "label"
    if name in _HIDDEN | pseudonyms or "[0-9a-f]{16}" in facts.get("pattern", ""):
        kind = "hidden"
    elif name in _LISTS:
        kind = "list"
    elif name in times:
        kind = "time"
    elif {"integer", "number"} & {*types}:
        kind = "number"
    what = {"string": "text", "integer": "whole number"}.get(types[0], types[0])
    told = "time" if kind == "time" else "one of a list" if "enum" in facts else what
    told += f", {bounds[0]} to {bounds[1]}" if bounds else ""
    told += ", or empty" if "null" in types or "enum" in facts else ""
    meaning = facts.get("description", "Not a column of the contract.")
    return Column(name, meaning, told, kind, kind in ("number", "time") or name in _ORDERED, bounds)


def binned(column: Column, frame: pl.DataFrame) -> pl.Expr:
    """The bin of each value of a column of text, as text; null stays null.

    Bins are made for all rows of a frame, so that parts of it can be compared. A list gives a list of its elements.
    """
    value = pl.col(column.name)
    if column.kind == "list":
        return value.str.split(",")
    if column.kind == "time":
        return _period(value.str.to_datetime(ISO_FORMAT, strict=False), frame)
    if column.kind == "number":
        return _step(column, value.cast(pl.Float64, strict=False), frame)
    return value


def _period(time: pl.Expr, frame: pl.DataFrame) -> pl.Expr:
    """Days, weeks, months or years, so that there are not too many."""
    first, last = frame.select(time.min().alias("first"), time.max().alias("last")).row(0)
    days = (last - first).days if first else 0
    form, every = next(((form, every) for most, form, every in _DAYS if days <= most), ("%Y", "1y"))
    return time.dt.truncate(every).dt.strftime(form)


def _step(column: Column, number: pl.Expr, frame: pl.DataFrame) -> pl.Expr:
    """Numbers as they are where they are few, else steps of a round width."""
    low, high = column.bounds or frame.select(
        number.quantile(0.01).alias("low"), number.quantile(0.99).alias("high")
    ).row(0)
    few = frame.select(number.drop_nulls().n_unique()).item() <= _MOST_STEPS
    if few or low is None or not math.isfinite(high - low) or high <= low:
        return number.cast(pl.Int64, strict=False).cast(pl.String) if _whole(number, frame) else number.cast(pl.String)
    width = _round_width((high - low) / _MOST_STEPS)
    begin = (number / width).floor() * width
    if not column.bounds:
        return pl.format("{} to under {}", _plain(begin), _plain(begin + width))
    begin = begin.clip(upper_bound=high - width)  # the greatest value belongs to the last step
    return pl.format(
        "{} to {}",
        _plain(begin),
        pl.when(begin == high - width)
        .then(_plain(begin + width))
        .otherwise(pl.format("under {}", _plain(begin + width))),
    )


def _whole(number: pl.Expr, frame: pl.DataFrame) -> bool:
    return bool(frame.select((number.drop_nulls() % 1 == 0).all()).item())


def _plain(number: pl.Expr) -> pl.Expr:
    """A number as people write it: without `.0`."""
    return number.round(6).cast(pl.String).str.strip_suffix(".0")


def _round_width(least: float) -> float:
    """The least of 1, 2, 5, 10, 20, ... and their tenths that is not below a number.

    >>> _round_width(8.3), _round_width(0.03), _round_width(120)
    (10.0, 0.05, 200.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(round(power * factor, 9) for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
