"""Test the ages in exports: ranges are allowed, ages and dates of birth are not."""

from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import ExportContents, find_problems
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.options.privacy import MIN_RANGE_YEARS
from feedback_etl.privacy.birth_dates import AgeCounts, extract_number, find_ages
from feedback_etl.schema.feedback_columns import find_narrow_ranges
from feedback_etl.transform.age_hierarchy import exported_age_ranges

MIN_DISTINCT_AGES = 20
"""Whole numbers from which a column of any name may be ages."""

_MIN_POSSIBLE_SHARE = 0.8
"""Share of the distinct values of a column from which numbers may be ages."""

_LABEL = r"^([0-9]+)(?:\s*-\s*([0-9]+))?$"
_MAX_AGE, _FIRST_YEAR = 130, 1900
_MONTHS = 216, 960
"""Bounds of the median of ages in months: 18 and 80 years."""


def check_ages(context: CheckContext) -> ChecklistItem:
    """Test that ages are ranges, and that no declared column contains ages or dates of birth."""
    exports, remedies = context.files, context.remedies
    no_labels = pl.Series([], dtype=pl.String)

    def find_problem(export: ExportContents) -> str:
        labels = export.texts.get("age_range", no_labels)
        if "bucket_age" in export.manifest.overridden:
            return _find_ages(labels)
        edges = export.manifest.schema.age_edges
        ranges = list(exported_age_ranges(export.manifest.settings).categories)
        if narrow := find_narrow_ranges(edges, MIN_RANGE_YEARS):
            return f"has ranges of fewer than {MIN_RANGE_YEARS} years: {', '.join(narrow)}"
        return "" if labels.is_in(ranges).all() else "has ages that are not ranges"

    problems, untested = find_problems(exports, find_problem, remedies), []
    for export in exports:
        columns = _find_age_columns(export)
        range_ = "[columns.age_range] of [source]" if remedies.settings.source else "age_range of the query"
        remedy = f"replace these columns by {range_}\n{remedies.replace(export.manifest)}"
        clause = f"{export.path.name} contains ages or dates of birth in"
        problems += [Finding(f"{clause} {name}", remedy) for name in columns.certain]
        untested += [
            Finding(f"{name} of {export.path.name}, whose numbers may be ages or years of birth")
            for name in columns.possible
        ]
    passed = "Ages are ranges, or labels of the application that are not ages."
    return build_item("ages", problems, passed=passed, untested=untested)


def _find_ages(labels: pl.Series) -> str:
    """Return how many labels of the application are ages, or ranges of few years."""
    bounds = labels.str.extract_groups(_LABEL).struct.unnest().cast(pl.Float64, strict=False)
    ages = int(bounds.select((pl.nth(0).is_not_null() & pl.nth(1).is_null()).sum()).item())
    narrow = int(bounds.select((pl.nth(1) - pl.nth(0) < MIN_RANGE_YEARS).sum()).item())
    if ages:
        return f"has {ages:,} labels that are ages"
    return f"has {narrow:,} ranges of fewer than {MIN_RANGE_YEARS} years" if narrow else ""


class _AgeColumns(NamedTuple):
    """Declared columns of an export that contain ages or dates of birth, and those that may."""

    certain: list[str]
    possible: list[str]


def _find_age_columns(export: ExportContents) -> _AgeColumns:
    """Find the declared columns with dates of birth or ages, by their names and values."""
    columns, year = _AgeColumns([], []), datetime.fromisoformat(export.manifest.created_at).year
    for name, role, kind in export.manifest.declared_columns:
        values = export.texts.get(name)
        if values is None or values.is_empty() or role == "identifier" or kind == "boolean":
            continue
        kinds = find_ages(name, values.dtype, year)
        counts = AgeCounts(*values.to_frame().select(**{kind: is_age.sum() for kind, is_age in kinds.items()}).row(0))
        numbers = values.to_frame().select(extract_number(pl.col(name))).to_series().drop_nulls()
        if counts.find_problems(name, len(values)):
            columns.certain.append(name)
        elif _may_be_ages(numbers, year, len(values)):
            columns.possible.append(name)
    return columns


def _may_be_ages(numbers: pl.Series, year: int, values: int) -> bool:
    """Return whether most of a number of distinct values are whole, and all possible ages or years of birth."""
    whole = numbers.filter(numbers == numbers.round())
    median = whole.median()
    if len(whole) < MIN_DISTINCT_AGES or not isinstance(median, float):
        return False
    ranges = [(0, _MAX_AGE), (_FIRST_YEAR, year), *([(0, 12 * _MAX_AGE)] if _MONTHS[0] <= median <= _MONTHS[1] else [])]
    return any(whole.is_between(*bounds).sum() >= _MIN_POSSIBLE_SHARE * values for bounds in ranges)
