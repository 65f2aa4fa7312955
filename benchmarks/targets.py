"""What we want to reach, and whether we did."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from comparison import Measured
from contenders import BARE, DLT, ENFORCED, NOTHING_NEW, ORM, OURS, PANDAS, SAME_WORK, SCRIPT, UNCOUNTED
from startup import HELP, IMPORT, POSTGRES, SQLITE, WITH_PANDAS

MEGABYTE = 1_000_000
_MAX_TIME_GROWTH = 1.05
_MAX_MEMORY_GROWTH = 1.1

Figures = Mapping[str, Measured]


class Target(NamedTuple):
    """One of them: what was measured, in which unit, and how much it may be at most (or has to be at least)."""

    what: str
    measured: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether we did."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def targets(
    main: Figures, options: Figures, sqlite: Figures, scale: Mapping[int, Figures], startup: Mapping[str, float]
) -> Iterator[Target]:
    """Return the targets that could be measured."""
    yield from _side_by_side(main)
    plain = options[OURS]
    yield Target(f"time of {ENFORCED}, compared with {OURS}", options[ENFORCED].ratio_to(plain), 1.3, "x")
    yield Target(f"time of {NOTHING_NEW}, compared with {OURS}", options[NOTHING_NEW].ratio_to(plain), 0.25, "x")
    yield Target(f"time on SQLite, compared with {SCRIPT}", sqlite[OURS].ratio_to(sqlite[SCRIPT]), 1, "x")
    yield from _by_size(main, scale)
    limits = {IMPORT: 0.1, HELP: 0.2, SQLITE: 1.0, POSTGRES: 1.0}
    limits |= {f"{WITH_PANDAS}{name}": limits[name] for name in (SQLITE, POSTGRES)}
    for name in filter(startup.__contains__, limits):
        yield Target(name, startup[name], limits[name], "s")


def _side_by_side(main: Figures) -> Iterator[Target]:
    ours = main[OURS]
    for name, share in ((BARE, 1.2), (SCRIPT, 0.8), (SAME_WORK, 0.8), (DLT, 0.7)):
        if name in main:
            yield Target(f"time, compared with {name}", ours.ratio_to(main[name]), share, "x")
    if UNCOUNTED in main:
        yield Target(f"time, compared with {UNCOUNTED}", ours.ratio_to(main[UNCOUNTED]), 1.1, "x")
    if PANDAS in main:
        yield Target(f"how many times as fast as {PANDAS}", main[PANDAS].ratio_to(ours), 5, "x", at_least=True)
    faster = main[ORM].ratio_to(ours, imports=False)
    yield Target(f"how many times as fast for a row as an {ORM}", faster, 50, "x", at_least=True)


def _by_size(main: Figures, scale: Mapping[int, Figures]) -> Iterator[Target]:
    ours = main[OURS]
    if ours.peak is not None:
        yield Target(f"peak memory at {ours.rows:,} rows", ours.peak / MEGABYTE, 450, "MB")
    most = max(scale, default=0)
    if ours.rows not in scale or most == ours.rows:
        return
    small, large = scale[ours.rows][OURS], scale[most][OURS]
    compared = f"at {most:,} rows, compared with {ours.rows:,}"
    longer = large.ratio_to(small) * large.rows / small.rows
    yield Target(f"time {compared}", longer, _MAX_TIME_GROWTH * most / ours.rows, "x")
    if small.peak is not None and large.peak is not None:
        yield Target(f"peak memory {compared}", large.peak / small.peak, _MAX_MEMORY_GROWTH, "x")
