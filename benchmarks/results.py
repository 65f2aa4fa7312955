"""The results as Markdown; what somebody wrote into the notes stays."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from comparison import Measured
from contenders import BARE, BULK, OURS
from targets import MEGABYTE, targets

_NOTES = re.compile(r"<!-- notes -->\n(.*?)<!-- /notes -->", re.DOTALL)


class Results(NamedTuple):
    """Everything that was measured.

    Attributes:
        rounds: How often it was run.
        main: The comparison.
        scale: The series, by number of rows.
        startup: Seconds.
        startup_rows: Rows of the small exports.
        machine: What it ran on.
        date: When.
    """

    rounds: int
    main: Mapping[str, Measured]
    scale: Mapping[int, Mapping[str, Measured]]
    startup: Mapping[str, float]
    startup_rows: int
    machine: Sequence[tuple[str, str]]
    date: str


def markdown(results: Results, notes: str = "") -> str:
    """Return the page."""
    return "\n".join(
        [
            "# What the benchmarks measured",
            "",
            f"Written by `make bench` on {results.date}. Times are seconds from the start of a process to its end, "
            f"medians; all took turns ({results.rounds} rounds). Ratios are medians of those within a round. "
            "Memory is the highest sum of PSS over all processes of a contender, in a run of its own; that of "
            "PostgreSQL is not in it.",
            "",
            *_table(("machine", ""), results.machine),
            "## Targets",
            "",
            *_table(("target", "measured", "wanted", ""), _target_rows(results)),
            f"## Side by side, {results.main[OURS].rows:,} rows",
            "",
            *_table(
                ("", "seconds", "from", "to", "processor s", "PostgreSQL's", "us a row", "x bare `COPY`", "peak MB"),
                _contender_rows(results.main),
            ),
            "## Size",
            "",
            "Windows of one database, up to now.",
            "",
            *_table(
                ("rows", *(f"{name}, {unit}" for name in (OURS, BULK) for unit in ("s", "MB")), f"{BARE}, s", "x"),
                _scale_rows(results.scale),
            ),
            "## Start-up",
            "",
            f"A small database has {results.startup_rows:,} rows.",
            "",
            *_table(("", "seconds"), ((name, f"{seconds:.3f}") for name, seconds in results.startup.items())),
            "## Notes",
            "",
            f"<!-- notes -->\n{notes}<!-- /notes -->",
            "",
        ]
    )


def kept_notes(path: Path) -> str:
    """Return the text between the markers of an existing page."""
    found = _NOTES.search(path.read_text(encoding="utf-8")) if path.exists() else None
    return found[1] if found else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def _target_rows(results: Results) -> Iterator[tuple[str, ...]]:
    for target in targets(results.main, results.scale, results.startup):
        limit = f"{'>=' if target.at_least else '<='} {_number(target.bound)} {target.unit}"
        yield target.what, f"{_number(target.measured)} {target.unit}", limit, "met" if target.is_met else "**missed**"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _contender_rows(main: Mapping[str, Measured]) -> Iterator[tuple[str, ...]]:
    for name, measured in main.items():
        told = name if measured.rows == main[BARE].rows else f"{name}, a slice of {measured.rows:,} rows"
        yield _contender_row(told, measured, main[BARE], imports=True)
        if measured.tells_seconds:
            yield _contender_row(f"{name}, imports aside", measured, main[BARE], imports=False)


def _contender_row(name: str, measured: Measured, bare: Measured, *, imports: bool) -> tuple[str, ...]:
    seconds = measured.seconds(imports=imports)
    cpu = median(timing.cpu for timing in measured.timings)
    server = median(timing.server_cpu for timing in measured.timings)
    return (
        name,
        *(f"{value:.2f}" for value in (median(seconds), min(seconds), max(seconds))),
        *((f"{cpu:.2f}", f"{server:.2f}") if imports else ("", "")),
        f"{median(seconds) / measured.rows * 1e6:.2f}",
        f"{measured.ratio_to(bare, imports=imports):.2f}",
        _megabytes(measured) if imports else "",
    )


def _scale_rows(scale: Mapping[int, Mapping[str, Measured]]) -> Iterator[tuple[str, ...]]:
    for rows, figures in scale.items():
        ours = [
            cell
            for name in (OURS, BULK)
            for cell in ((_seconds(figures[name]), _megabytes(figures[name])) if name in figures else ("", ""))
        ]
        ratio = figures[OURS].ratio_to(figures[BARE])
        yield f"{rows:,}", *ours, _seconds(figures[BARE]), f"{ratio:.2f}"


def _seconds(measured: Measured) -> str:
    return f"{median(measured.seconds()):.2f}"


def _megabytes(measured: Measured) -> str:
    return "" if measured.peak is None else f"{measured.peak / MEGABYTE:.0f}"
