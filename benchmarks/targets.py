"""What we want to reach, and whether we did."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from comparison import Measured
from contenders import ALONE, BARE, DLT, ENFORCED, ORM, OURS, PANDAS, SAME_WORK, SCRIPT, UNCOUNTED
from startup import HELP, IMPORT, POSTGRES, SQLITE

MEGABYTE = 1_000_000
_MOST_GROWTH = 1.1

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


def targets(main: Figures, scale: Mapping[int, Figures], startup: Mapping[str, float]) -> Iterator[Target]:
    """Return the targets that could be measured."""
    yield from _side_by_side(main)
    yield from _by_size(main, scale)
    for name, seconds in ((IMPORT, 0.1), (HELP, 0.35), (SQLITE, 1.2), (POSTGRES, 1.2)):
        yield Target(name, startup[name], seconds, "s")


def _side_by_side(main: Figures) -> Iterator[Target]:
    ours = main[OURS]
    for name, share in ((BARE, 1.2), (SCRIPT, 0.8), (SAME_WORK, 0.8), (DLT, 0.7)):
        if name in main:
            yield Target(f"time, compared with {name}", ours.ratio_to(main[name]), share, "x")
    if UNCOUNTED in main:
        yield Target(f"time, compared with {UNCOUNTED}", ours.ratio_to(main[UNCOUNTED]), 1.1, "x")
    if ENFORCED in main:
        yield Target(f"time of {ENFORCED}, compared with {OURS}", main[ENFORCED].ratio_to(ours), 1.3, "x")
    if PANDAS in main:
        yield Target(f"how many times as fast as {PANDAS}", main[PANDAS].ratio_to(ours), 5, "x", at_least=True)
    faster = main[ORM].ratio_to(ours, imports=False)
    yield Target(f"how many times as fast for a row as an {ORM}", faster, 50, "x", at_least=True)
    alone = main[ALONE].ratio_to(main[BARE], imports=False)
    yield Target(f"time of {ALONE}, imports aside, compared with {BARE}", alone, 0.6, "x")


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
    yield Target(f"time {compared}", longer, _MOST_GROWTH * most / ours.rows, "x")
    if small.peak is not None and large.peak is not None:
        yield Target(f"peak memory {compared}", large.peak / small.peak, _MOST_GROWTH, "x")
