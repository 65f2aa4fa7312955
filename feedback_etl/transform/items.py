"""Ratings of several items in one feedback: a JSON map of item to rating becomes rows of a second data file.

Until a training pair is written it carries its items in two columns of lists, so that whatever happens to the pair
happens to its items: a pair that is a duplicate, suppressed, pending or erased has no item rows. No column of an export
has a blank in its name.
"""

from collections.abc import Collection, Mapping

import polars as pl

from feedback_etl.schema.feedback_columns import STEP_TOLERANCE, Rating
from feedback_etl.schema.model import PSEUDONYM, SUBJECT_HASH, TIME
from feedback_etl.transform.formulas import has_control_character, is_formula
from feedback_etl.transform.json_lists import JSON_STRING, NULL_OR_EMPTY, SPACE

ITEM, RATING = "item", "rating"
"""The columns of item rows, beside the pseudonyms and the time of the feedback."""

RATED_ITEMS, _RATINGS = "rated items", "ratings of items"
"""The columns of training pairs that carry items."""

_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_ENTRY = rf"{JSON_STRING}{SPACE}:{SPACE}(?:{_NUMBER}|null)"
_MAP = rf"\A{SPACE}\{{{SPACE}(?:{_ENTRY}{SPACE}(?:,{SPACE}{_ENTRY}{SPACE})*)?\}}{SPACE}\z"
_PARTS = r'(?s)\A(.*")[ \t\n\r]*:[ \t\n\r]*([^"]*)\z'


def is_item_map(column: str) -> pl.Expr:
    """Return whether a JSON text is a map of texts to numbers or nulls; an empty text, `null` and SQL NULL count too.

    >>> frame = pl.DataFrame({"json": ['{"a": 4, "b": null}', "null", None, '{"a": "4"}', "[]"]})
    >>> frame.select(is_item_map("json")).to_series().to_list()
    [True, True, True, False, False]
    """
    text = pl.col(column).cast(pl.String)
    return text.is_null() | text.str.contains(NULL_OR_EMPTY) | text.str.contains(_MAP)


def decode_items(column: str) -> pl.Expr:
    """Decode the items of a JSON map of item to rating to List(String); other texts become null.

    >>> frame = pl.DataFrame({"json": ['{"SKU: 1": 4, "b": null}', "{}", "[]"]})
    >>> frame.select(decode_items("json"), decode_item_ratings("json").alias("ratings")).rows()
    [(['SKU: 1', 'b'], [4.0, None]), ([], []), (None, None)]
    """
    items = _entries(column).list.eval(pl.element().str.extract(_PARTS, 1)).list.join(",")
    return (pl.lit("[") + items + pl.lit("]")).str.json_decode(pl.List(pl.String)).alias(column)


def decode_item_ratings(column: str) -> pl.Expr:
    """Decode the ratings of a JSON map of item to rating to List(Float64), in the order of `decode_items`."""
    number = pl.element().str.extract(_PARTS, 2).cast(pl.Float64, strict=False)  # null is not a number
    return _entries(column).list.eval(number).alias(column)


def _entries(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String)
    return pl.when(text.str.contains(_MAP)).then(text).otherwise(None).str.extract_all(_ENTRY)


def item_faults(rating: Rating, formula: str) -> dict[str, pl.Expr]:
    """Return the reasons for rejecting a map of item ratings, each with an expression that is true for invalid ones.

    Args:
        rating: The name of the map and the scale of its ratings.
        formula: The name of the reason for an item that spreadsheet programs would run.
    """
    name, items, number = rating.name, decode_items(rating.name).list, pl.element()
    steps = (number - rating.min) / rating.step
    ratings: Mapping[str, pl.Expr] = {
        f"{name}_out_of_range": ~number.is_between(rating.min, rating.max),
        rating.step_reason: number.is_finite() & ((steps - steps.round()).abs() > STEP_TOLERANCE),
    }
    return {
        f"{name}_not_a_map": ~is_item_map(name),
        **{reason: decode_item_ratings(name).list.eval(fault).list.any() for reason, fault in ratings.items()},
        f"{name}_repeated_item": items.n_unique() != items.len(),
        f"{name}_empty_item": items.contains(pl.lit("")),
        formula: items.eval(is_formula(pl.element())).list.any(),
        "control_character": items.eval(has_control_character(pl.element())).list.any(),
    }


def add_items(pairs: pl.DataFrame, raw: pl.DataFrame, rating: Rating | None) -> pl.DataFrame:
    """Return training pairs that carry the items of their raw rows; unchanged if no items are exported."""
    if rating is None:
        return pairs
    name = rating.name
    number = pl.when(pl.element() == 0).then(0.0).otherwise(pl.element()).cast(rating.dtype)
    items = decode_items(name)
    items = pl.when(items.list.len() > 0).then(items).alias(RATED_ITEMS)  # no value to inspect where nothing is rated
    ratings = decode_item_ratings(name).list.eval(number).alias(_RATINGS)
    return pairs.hstack(raw.select(items, ratings))


def without_items(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return training pairs without the items that they carry."""
    return pairs.drop(RATED_ITEMS, _RATINGS, strict=False)


def explode_items(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the item rows of training pairs, in the order of the pairs and of their maps; none for a null rating."""
    if RATED_ITEMS not in pairs.columns:
        return pl.DataFrame()
    rows = pairs.drop_nulls(RATED_ITEMS).explode(RATED_ITEMS, _RATINGS).drop_nulls(_RATINGS)
    named = rows.with_columns(pl.col(RATED_ITEMS).alias(ITEM), pl.col(_RATINGS).alias(RATING))
    return named.select(list_item_columns(pairs.columns))


def list_item_columns(pair_columns: Collection[str]) -> list[str]:
    """Return the columns of item rows, given those of their pairs."""
    people = [PSEUDONYM, *([SUBJECT_HASH.name] if SUBJECT_HASH.name in pair_columns else [])]
    return [*people, ITEM, RATING, TIME]
