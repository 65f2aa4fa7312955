"""The report as one HTML page that needs nothing else: no network, no script. Jinja escapes all that is put into it."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from feedback_etl.report.charts import Bar, Stack, bars, stacks
from feedback_etl.report.data import ClassSize, Gathered
from feedback_etl.report.distribution import Distribution
from feedback_etl.report.drift import LARGE, MODERATE, Drift

if TYPE_CHECKING:
    from feedback_etl.exports.manifest import Manifest

MOST_EXPORTS = 60
"""The newest so many are drawn and listed."""

_SERIES = {
    "exported_records": ("exported", "main"),
    "deduplicated_records": ("duplicates", "second"),
    "skipped_records": ("skipped", "third"),
    "errors": ("rejected", "bad"),
    "suppressed_records": ("suppressed", "fourth"),
}
"""What becomes of a row: the statistic of the manifest, its name on the page and the class of its colour."""

_VISIBLE = {code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""What turns the direction of the text around it (Unicode, annex 9) is shown, and turns nothing."""

_TONES = {"little": "main", "too few rows to tell": "third", "moderate": "third", "large": "bad"}


def page(gathered: Gathered) -> str:
    """The page; equal facts give equal pages."""
    newest = gathered.exports[-MOST_EXPORTS:]
    text = (
        _environment()
        .get_template("page.html")
        .render(
            facts=gathered,
            newest=newest,
            series=_SERIES,
            totals={name: sum(_statistic(each.statistics, name) for each in newest) for name in _SERIES},
            over_time=_over_time(newest),
            dictionary=[(each, _distribution(each)) for each in gathered.dictionary],
            classes=_classes(gathered.sizes, gathered.quasi_identifiers),
            small_classes=sum(each.classes for each in gathered.sizes if each.small),
            drift=_drift(gathered.drift),
            faults=sum(len(verdict.problems) for verdict in gathered.verdicts.values()),
        )
    )
    return text.translate(_VISIBLE)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("feedback_etl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "share": _share, "moment": _moment, "window": _window}
    return environment


def _over_time(exports: "list[Manifest]") -> Markup:
    """What became of the rows that each export has read."""
    items = [Stack(each.created_at[:10], [_statistic(each.statistics, name) for name in _SERIES]) for each in exports]
    told = f"One column for each of {len(items)} exports, from {items[0].label} to {items[-1].label}."
    return stacks("Rows by export", told, items, [tone for _, tone in _SERIES.values()])


def _statistic(statistics: Mapping[str, Any], name: str) -> int:
    """A figure of a manifest; 0 where it does not tell it, as of files that were adopted."""
    value = statistics.get(name, 0)
    return value if isinstance(value, int) else 0


def _distribution(told: Distribution) -> Markup | None:
    """The values of a column, and how many rows have none."""
    items = [Bar(each.label, each.rows, _share(each.rows, told.rows)) for each in told.shares]
    if not items:
        return None
    if told.empty:
        items.append(Bar("empty", told.empty, _share(told.empty, told.rows), "third"))
    return bars(f"Values of {told.column.name}", f"Shares of {told.rows:,} rows.", items)


def _classes(sizes: list[ClassSize], known: list[str]) -> Markup:
    """How many classes are small."""
    items = [Bar(each.label, each.classes, f"{each.classes:,}", "bad" if each.small else "main") for each in sizes]
    told = f"Number of classes by size; a class is the people with equal {', '.join(known)}."
    return bars("Classes by size", told, items)


def _drift(drift: list[Drift]) -> Markup:
    """How far each column has moved."""
    items = [Bar(each.column, each.psi, f"{each.psi:.3f}", _TONES[each.verdict]) for each in drift]
    told = "Population stability index of each column, the greatest first."
    return bars("Drift by column", told, items, marks=[(MODERATE, f"{MODERATE:g}"), (LARGE, f"{LARGE:g}")])


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not told"


def _share(part: int, whole: int) -> str:
    """A share in percent.

    >>> _share(1, 3), _share(1, 30_000), _share(0, 0)
    ('33.3 %', '< 0.1 %', '0.0 %')
    """
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def _moment(time: str) -> str:
    """A time of a manifest as people read it, to the second."""
    return time[:19].replace("T", " ")


def _window(window: Sequence[str | None]) -> str:
    """That of a manifest; it has an end if it is known.

    >>> _window([None, "2025-10-25T12:00:00.000000"]), _window([None, None])
    ('open to 2025-10-25 12:00:00', 'unknown')
    """
    start, end = window
    return f"{_moment(start) if start else 'open'} to {_moment(end)}" if end else "unknown"
