"""Wider age ranges: neighbouring ranges joined two by two, for equivalence classes that are too small."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from feedback_etl.schema.feedback_columns import AGE_EDGES
from feedback_etl.schema.record import read_schema
from feedback_etl.transform.expressions import age_ranges


def join_age_ranges(edges: Sequence[int] = AGE_EDGES) -> list[dict[str, str]]:
    """Return the wider label of each age range by level; a level joins twice as many neighbours as the one before.

    The level that would join all ranges is left out: it says nothing about the age.

    >>> for level in join_age_ranges([18, 25, 35, 50]):
    ...     print(*level.values())
    <25 <25 25-50 25-50 50+
    <50 <50 <50 <50 50+
    """
    labels = list(age_ranges(edges).categories)
    bounds, levels, size = [None, *edges, None], list[dict[str, str]](), 2
    while size < len(labels):
        starts = [number - number % size for number in range(len(labels))]
        ends = [min(start + size, len(labels)) for start in starts]
        wider = [_format_range(bounds[start], bounds[end]) for start, end in zip(starts, ends, strict=True)]
        levels.append(dict(zip(labels, wider, strict=True)))
        size *= 2
    return levels


def _format_range(low: int | None, high: int | None) -> str:
    if low is None:
        return f"<{high}"
    return f"{low}+" if high is None else f"{low}-{high}"


def all_age_ranges(edges: Sequence[int] = AGE_EDGES) -> pl.Enum:
    """Return the dtype of age ranges in a generalised export: the ranges, in ascending order, then the wider ones.

    >>> all_age_ranges([18, 25, 35, 50]).categories.to_list()
    ['<18', '18-25', '25-35', '35-50', '50+', '<25', '25-50', '<50']
    """
    wider = (label for level in join_age_ranges(edges) for label in level.values())
    return pl.Enum(list(dict.fromkeys((*age_ranges(edges).categories, *wider))))


def is_generalized(settings: Mapping[str, Any]) -> bool:
    """Return whether small equivalence classes of an export with these settings were generalised."""
    return settings.get("on_small_class") == "generalize"


def exported_age_ranges(settings: Mapping[str, Any]) -> pl.Enum:
    """Return the dtype of the age ranges of an export with these settings; without an age it has no values."""
    edges = read_schema(settings).age_edges
    if not edges:
        return pl.Enum([])
    return all_age_ranges(edges) if is_generalized(settings) else age_ranges(edges)
