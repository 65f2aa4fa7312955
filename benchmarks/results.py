"""The results as Markdown; the notes of an earlier page are kept."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from comparison import SLOW_ROUNDS, Measured
from contenders import BARE, OURS
from targets import MEGABYTE, targets

_NOTES = re.compile(r"<!-- notes -->\n(.*?)<!-- /notes -->", re.DOTALL)


class Results(NamedTuple):
    """Everything that was measured.

    Attributes:
        rounds: How often it was run.
        main: The comparison.
        options: Our export with options.
        sqlite: Ours and the script on SQLite.
        steps: What `steps.measure` returns.
        scale: The series, by number of rows.
        startup: Seconds.
        startup_rows: Rows of the small exports.
        machine: What it ran on.
        date: When.
    """

    rounds: int
    main: Mapping[str, Measured]
    options: Mapping[str, Measured]
    sqlite: Mapping[str, Measured]
    steps: Mapping[str, Any]
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
            f"medians; all took turns ({results.rounds} rounds; slow ones {SLOW_ROUNDS}, "
            "options and sizes 3). Ratios are medians of those within a round. "
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
            "## Where the processor time goes",
            "",
            "Processor seconds of each step for a million rows, from a recorded Arrow stream (`steps.py`), and of the "
            "part of it that no other code could save: the digest, the text or the bytes alone. In an export, they "
            "run in two processes and three threads.",
            "",
            *_table(("step", "s", "bound"), _step_rows(**results.steps)),
            "## What options cost",
            "",
            *_table(("", "seconds", "x plain export", "peak MB"), _ratio_rows(results.options, OURS)),
            f"## SQLite, {results.sqlite[OURS].rows:,} rows",
            "",
            *_table(("", "seconds", "x ours", "peak MB"), _ratio_rows(results.sqlite, OURS)),
            "## Size",
            "",
            "Windows of one database, up to now.",
            "",
            *_table(
                ("rows", f"{OURS}, s", "MB", f"{BARE}, s", "x"),
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
    measured = (results.main, results.options, results.sqlite, results.scale, results.startup)
    for target in targets(*measured):
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
        ours, bare = figures[OURS], figures[BARE]
        yield f"{rows:,}", _seconds(ours), _megabytes(ours), _seconds(bare), f"{ours.ratio_to(bare):.2f}"


def _step_rows(*, rows: int, steps: Mapping[str, float], bounds: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """Return the rows of the steps, per million rows, and of their sum."""
    for name, seconds in [*steps.items(), ("sum", sum(steps.values()))]:
        bound = sum(bounds.values()) if name == "sum" else bounds.get(name)
        yield name, f"{seconds / rows * 1e6:.2f}", "" if bound is None else f"{bound / rows * 1e6:.2f}"


def _ratio_rows(figures: Mapping[str, Measured], plain: str) -> Iterator[tuple[str, ...]]:
    for name, measured in figures.items():
        yield name, _seconds(measured), f"{measured.ratio_to(figures[plain]):.2f}", _megabytes(measured)


def _seconds(measured: Measured) -> str:
    return f"{median(measured.seconds()):.2f}"


def _megabytes(measured: Measured) -> str:
    return "" if measured.peak is None else f"{measured.peak / MEGABYTE:.0f}"
