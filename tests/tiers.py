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


def _is_named(case: str, name: str) -> bool:
    return bool(re.fullmatch(".*".join(map(re.escape, name.split("*"))), case))
