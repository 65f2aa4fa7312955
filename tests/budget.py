"""What tests cost in processor seconds, which others that work on the same machine hardly change."""

import resource
from collections.abc import Iterable

import coverage
import pytest

MOST_SECONDS = 5.0
"""More than this takes no test of `make test`; with a marker of `SLOW_TIERS` it belongs to another tier."""

SLOW_TIERS = ("slow", "torture")

PROPERTY = "processor seconds"


def processor_seconds() -> float:
    """The processor time of this process and of those children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def check_budget(test: pytest.Item, seconds: float) -> None:
    """Fail a test of the default tier that takes too long for it.

    Coverage changes what tests cost, and other profiles of Hypothesis draw more examples: neither counts.
    """
    is_default = not any(test.get_closest_marker(tier) for tier in SLOW_TIERS)
    is_quick = test.config.getoption("--hypothesis-profile") in (None, "quick")
    if is_default and is_quick and seconds > MOST_SECONDS and coverage.Coverage.current() is None:
        pytest.fail(
            f"{seconds:.1f} s of processor time, and tests of the default tier take {MOST_SECONDS:g} s at most: make "
            "it cheaper, or mark it slow and keep a cheap test of the same in the default tier (CONTRIBUTING.md)",
            pytrace=False,
        )


def budget_lines(reports: Iterable[pytest.TestReport], most: int) -> list[str]:
    """The tests that cost most, and what all cost together."""
    measured = [
        (report.nodeid, cost) for report in reports for name, cost in report.user_properties if name == PROPERTY
    ]
    costs = {test: float(str(cost)) for test, cost in measured}
    slowest = sorted(costs.items(), key=lambda item: item[1], reverse=True)[:most]
    total = f"{sum(costs.values()):.0f} s of processor time for {len(costs):,} tests"
    return [*(f"{seconds:>7.2f} s {test}" for test, seconds in slowest), total]
