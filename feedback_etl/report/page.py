"""Render the report as one self-contained HTML page, without network access or scripts; Jinja escapes all values."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from feedback_etl.database.window import parse_window
from feedback_etl.plurals import pluralize
from feedback_etl.records.audit_verification import VerificationResult
from feedback_etl.report.charts import Bar, Stack, draw_bars, draw_stacks
from feedback_etl.report.data import ClassSize, ReportData
from feedback_etl.report.distribution import Distribution
from feedback_etl.report.drift import LARGE, MODERATE, Drift
from feedback_etl.report.outcomes import OTHER_FIGURES, SERIES, ExportOutcome
from feedback_etl.schema.classic import is_classic
from feedback_etl.training.committed_export import CommittedExport
from feedback_etl.transform.items import list_item_columns

MAX_EXPORTS = 60
"""The newest exports are drawn and listed, up to this number."""

_VISIBLE = {code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Bidirectional control characters (Unicode, annex 9) are shown as escapes and have no effect."""

_TONES = {"small": "main", "too few rows to compare": "third", "moderate": "third", "large": "bad"}


def render_page(data: ReportData) -> str:
    """Render the page; equal data results in equal pages."""
    newest = data.outcomes[-MAX_EXPORTS:]
    text = (
        _create_environment()
        .get_template("page.html")
        .render(
            data=data,
            newest=newest,
            series=SERIES,
            other_figures=OTHER_FIGURES,
            item_rows=_list_item_rows(newest),
            totals=[sum(counts) for counts in zip(*(export.counts for export in data.outcomes), strict=True)],
            over_time=_draw_rows_over_time(newest),
            dictionary=[(column, _draw_distribution(column)) for column in data.dictionary],
            classes=_draw_classes(data.sizes, data.quasi_identifiers),
            small_classes=sum(size.classes for size in data.sizes if size.small),
            identifying=_list_identifying(data.selection.combined),
            drift=_draw_drift(data.drift),
            problems=sum(len(_list_known_problems(verdict)) for verdict in data.verdicts.values()),
            is_unverified=any(verdict.unverified for verdict in data.verdicts.values()),
            is_protected=all(verdict.is_protected for verdict in data.verdicts.values()),
        )
    )
    return text.translate(_VISIBLE)


@cache
def _create_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("feedback_etl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _format_number,
        "share": _format_share,
        "moment": _format_time,
        "window": _window,
        "pluralize": pluralize,
        "known_problems": _list_known_problems,
    }
    return environment


def _list_known_problems(verdict: VerificationResult) -> list[str]:
    """Return the problems but those that an unavailable key causes."""
    return [problem for problem in verdict.problems if problem not in verdict.unverified]


def _list_item_rows(exports: Sequence[ExportOutcome]) -> list[list[str]]:
    """Return the file, the name, the number and the columns of the item rows of each export, the newest first."""
    return [
        [file.path, manifest.items, f"{file.rows:,}", ", ".join(list_item_columns(manifest.columns))]
        for manifest in (export.manifest for export in reversed(exports))
        for file in manifest.all("items")
        if not manifest.pruned_at
    ]


def _draw_rows_over_time(exports: list[ExportOutcome]) -> Markup:
    """Draw the outcome of the rows of each export."""
    items = [Stack(export.label, export.counts) for export in exports]
    description = f"One column for each of {len(items)} exports, from {exports[0].name} to {exports[-1].name}."
    return draw_stacks("Rows by export", description, items, [tone for _, tone in SERIES.values()])


def _draw_distribution(item: Distribution) -> Markup | None:
    """Draw the values of a column, and the share of empty ones; None for hidden columns."""
    shares = [Bar(share.label, share.rows, _format_share(share.rows, item.rows)) for share in item.shares]
    if not shares:
        return None
    if item.empty:
        shares.append(Bar("empty", item.empty, _format_share(item.empty, item.rows), "third"))
    return draw_bars(f"Values of {item.column.name}", f"Shares of {item.rows:,} rows.", shares)


def _draw_classes(sizes: list[ClassSize], quasi_identifiers: list[str]) -> Markup:
    """Draw the number of equivalence classes by size."""
    items = [Bar(size.label, size.classes, f"{size.classes:,}", "bad" if size.small else "main") for size in sizes]
    description = (
        f"Number of equivalence classes by size; people of one class have equal {', '.join(quasi_identifiers)}."
    )
    return draw_bars("Equivalence classes by size", description, items)


def _list_identifying(exports: Sequence[CommittedExport]) -> list[str]:
    """Return which values outside the quasi-identifiers belong to few rows."""
    has_times = any(export.precision == "exact" for export in exports)
    has_ids = any(is_classic(export.manifest.schema) and export.kind.recommendation_id == "keep" for export in exports)
    return [*["exact times"] * has_times, *["recommendation ids"] * has_ids]


def _draw_drift(drift: list[Drift]) -> Markup:
    """Draw the drift of each column."""
    items = [Bar(item.column, item.psi, f"{item.psi:.3f}", _TONES[item.verdict]) for item in drift]
    description = "Population stability index of each column, the largest first."
    return draw_bars("Drift by column", description, items, marks=[(MODERATE, f"{MODERATE:g}"), (LARGE, f"{LARGE:g}")])


def _format_number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _format_share(part: int, whole: int) -> str:
    """Format a share in percent.

    >>> _format_share(1, 3), _format_share(1, 30_000), _format_share(0, 0)
    ('33.3 %', '< 0.1 %', '0.0 %')
    """
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def _format_time(time: str) -> str:
    """Format a time of a manifest, to the second."""
    return time[:19].replace("T", " ")


def _window(window: Sequence[str | None]) -> str:
    """Format the window of a manifest.

    >>> _window([None, "2025-10-25T12:00:00.000000"]), _window([None, None])
    ('the beginning to 2025-10-25 12:00:00 UTC', 'unknown')
    """
    return str(parse_window(window) or "unknown")
