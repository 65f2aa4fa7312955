"""Differences between the settings of incremental series, in words, and which of them are intended."""

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_etl.errors import UsageError

_SETTING_NAMES = {"recommendation_id": "hash_recommendation_id", "query_sha256": "query"}
"""The options behind settings of other names."""


def list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Return the changes of settings in words, by name; the text of a query is not shown.

    >>> list_changes({"min_feedback_fields": 1, "k": None}, {"min_feedback_fields": 2, "k": None})
    {'min_feedback_fields': '`min_feedback_fields` is 2, the series has 1'}
    """
    changed = (name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name))
    return {name: _describe_change(name, before.get(name), after.get(name)) for name in changed}


def _describe_change(name: str, before: Any, after: Any) -> str:
    if name == "query_sha256":
        if before and after:
            return "the query is another one"
        return "`query` is not set, the series has one" if before else "`query` is set, the series has none"
    was, now = (_describe_value(name, value) for value in (before, after))
    return f"`{_SETTING_NAMES.get(name, name)}` is {now or 'not set'}, the series has {was or 'none'}"


def _describe_value(name: str, value: Any) -> str:
    if name == "cursor":
        return str(value or "created_at")
    if name == "recommendation_id":
        return str(value == "hash")
    if isinstance(value, list | tuple):
        return ", ".join(str(part[0] if isinstance(part, list | tuple) else part) for part in value)
    return "" if value in (None, "", {}) else str(value)


def require_intended(
    settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]], *, new_series: bool, new_key: bool
) -> None:
    """Refuse to begin a series beside others, whose rows it would export again, unless that is intended.

    A series that differs from another only in its key is left to the check of the folder's key, or to `new_key`.

    Args:
        settings: The settings of the series.
        others: Those of the others, the newest last; empty for a series that has begun.
        new_series, new_key: What is intended.

    Raises:
        UsageError: The message names the settings that differ from those of the most similar series.
    """
    if new_series or not others:
        return
    changes = min((list_changes(before, settings) for before in reversed(others)), key=len)
    if "key_id" in changes and (len(changes) == 1 or not new_key):
        return
    listed = "; ".join(changes.values())
    raise UsageError(
        f"This run would begin a new series beside an existing one and export its rows again: {listed}. Pass "
        "`new_series` to begin it, or name another folder (`output_dir`)."
    )
