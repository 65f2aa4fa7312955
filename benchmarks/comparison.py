"""Contenders side by side: each once for its memory, then all in turn, round by round, for their time."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from measure import Bench, Command, Failed, Timing

SLOW_ROUNDS = 2


@dataclass(frozen=True)
class Measured:
    """What the runs of a contender took.

    Attributes:
        rows: Rows of feedback that it read.
        peak: Peak memory in bytes, of a run of its own; None where it cannot be measured.
        timings: One for each round.
    """

    rows: int
    peak: int | None
    timings: tuple[Timing, ...]

    @property
    def tells_seconds(self) -> bool:
        """Whether it measured itself too, without the imports."""
        return all("seconds" in timing.output.told for timing in self.timings)

    def seconds(self, *, imports: bool = True) -> list[float]:
        """Return the seconds of each round: from start to end or, without imports, as the contender measured them."""
        return [timing.wall if imports else timing.output.told["seconds"] for timing in self.timings]

    def ratio_to(self, other: "Measured", *, imports: bool = True) -> float:
        """How many times as long a row takes: the median over the rounds, whose runs are neighbours in time."""
        rounds = zip(self.seconds(imports=imports), other.seconds(), strict=False)  # slow contenders run less often
        return median(own / its for own, its in rounds) * other.rows / self.rows


def compare(  # noqa: PLR0913
    bench: Bench,
    commands: Mapping[str, Command],
    rows_of: Mapping[str, int],
    rounds: int,
    *,
    slow: Collection[str] = (),
    memory: bool = True,
) -> dict[str, Measured]:
    """Measure commands, each of which reads so many rows; the run for the memory also fills the caches.

    The slow ones take part in the first two rounds only. Without `memory` there is no such run.

    Raises:
        Failed: A command ended with an error; the message names it.
    """
    peaks: dict[str, int | None] = dict.fromkeys(commands)
    timings: dict[str, list[Timing]] = {name: [] for name in commands}
    for name, command in commands.items() if memory else ():
        with named(name):
            peaks[name] = bench.peak_memory(command)
    for number in range(1, rounds + 1):
        for name, command in commands.items():
            if number > SLOW_ROUNDS and name in slow:
                continue
            with named(name):
                timings[name].append(bench.time(command))
            print(f"round {number}  {timings[name][-1].wall:8.2f} s  {name}", flush=True)
    return {name: Measured(rows_of[name], peaks[name], tuple(timings[name])) for name in commands}


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say who failed."""
    try:
        yield
    except Failed as failure:
        raise Failed(f"{name}: {failure}") from None
