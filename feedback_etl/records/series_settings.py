"""Differences between the settings of incremental series, in words."""

from collections.abc import Mapping
from typing import Any

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
