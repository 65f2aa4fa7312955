"""Which cases of a test belong to the default tier, where a test is not of one tier as a whole."""

import re
from collections.abc import Iterable

import pytest
from folders import FORMS


def mark_slow(items: Iterable[pytest.Item], *, is_complete: bool) -> None:
    """Mark `slow` what repeats others: servers where they make no difference, and cases beside those of a `sample`.

    If the tests are complete, a name in a sample that no case has is an error: its test would have left the tier.
    """
    unknown: dict[str, set[str]] = {}
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        params, sample = item.callspec.params, item.get_closest_marker("sample")
        is_repeated = item.get_closest_marker("any_database") or params.get("form", FORMS[0]) != FORMS[0]
        if is_repeated and params.get("database", "sqlite") != "sqlite":
            item.add_marker(pytest.mark.slow)
        if sample:
            named = {name for name in sample.args if _is_named(item.callspec.id, name)}
            unknown.setdefault(item.nodeid.split("[")[0], set(sample.args)).difference_update(named)
            if not named:
                item.add_marker(pytest.mark.slow)
    if is_complete and (wrong := {test: names for test, names in unknown.items() if names}):
        raise pytest.UsageError(f"samples of cases that do not exist: {wrong}")


RANDOM_TESTS = ("test_generalization", "test_series_k_recount", "test_series_model", "test_series_versions")
"""Modules whose slow cases are more random draws of the same test, and reach no other lines."""


def is_repetition(test: pytest.Item) -> bool:
    """Return whether a slow test of `RANDOM_TESTS` is a case of one that is not slow as a whole."""
    whole = [mark for node in test.listchain()[:-1] for mark in node.own_markers]
    if isinstance(test, pytest.Function):
        whole += getattr(test.function, "pytestmark", [])
    is_case = test.get_closest_marker("slow") is not None and all(mark.name != "slow" for mark in whole)
    return is_case and test.path.stem in RANDOM_TESTS


def _is_named(case: str, name: str) -> bool:
    return bool(re.fullmatch(".*".join(map(re.escape, name.split("*"))), case))
