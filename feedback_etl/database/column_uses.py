"""Find what each column of a reflected table is, by its name and type."""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from feedback_etl.database.naming import (
    AGE_WORDS,
    CHANGE_WORDS,
    COUNT_WORDS,
    ID_WORDS,
    ITEM_WORDS,
    RATING_WORDS,
    SENSITIVE_REASONS,
    TAG_WORDS,
    TIME_WORDS,
    USER_WORDS,
    find_reasons,
    is_attribute,
    is_consent,
    separate_words,
    split_words,
)
from feedback_etl.database.reflection import ReflectedColumn, ReflectedTable

Use = Literal[
    "feedback_id",
    "user_id",
    "item_id",
    "created_at",
    "changed_at",
    "consent",
    "rating",
    "items",
    "list",
    "age",
    "column",
    "none",
]

_ID_KINDS = ("integer", "uuid", "word", "text", "other")
"""Kinds of columns that can contain ids."""


class ColumnProposal(NamedTuple):
    """Propose what to do with a column.

    Attributes:
        column: Its name in the source.
        use: What it is; "none" if it is not exported.
        name: Its name in the export.
        reason: Why it looks personal, so that it is not exported; "" for other columns.
        is_identifier: Whether it refers to something.
    """

    column: ReflectedColumn
    use: Use
    name: str
    reason: str = ""
    is_identifier: bool = False


def propose_columns(table: ReflectedTable) -> tuple[ColumnProposal, ...]:
    """Return what to do with each column; the first that fits has a use that one column can have."""
    single: dict[Use, str] = {
        "feedback_id": _find_key(table),
        "created_at": _find_time(table),
        "user_id": find_reference(table, USER_WORDS),
        "item_id": next(filter(None, (find_reference(table, {word}, USER_WORDS) for word in ITEM_WORDS)), ""),
        "consent": next((column.name for column in table.columns if is_consent_column(column)), ""),
        "changed_at": next((column.name for column in table.columns if _is_change_time(column)), ""),
    }
    uses = {name: use for use, name in reversed(single.items()) if name}
    names = export_names(table)
    return tuple(
        ColumnProposal(column, uses[column.name], names[column.name])
        if column.name in uses
        else _propose_column(column, names[column.name])
        for column in table.columns
    )


def _propose_column(column: ReflectedColumn, name: str) -> ColumnProposal:
    words = split_words(column.name)
    if column.kind == "integer" and "age" in words and words <= AGE_WORDS:
        return ColumnProposal(column, "age", "age_range")
    is_text = column.kind in ("text", "word")
    if words & ID_WORDS or column.kind == "uuid" or column.references:
        return ColumnProposal(column, "none", name, is_identifier=True)
    reasons = find_reasons(column.name)
    if {*reasons} & SENSITIVE_REASONS:  # these come first
        return ColumnProposal(column, "none", name, reasons[0])
    if column.kind in ("integer", "number", "boolean") and words & RATING_WORDS and not words & COUNT_WORDS:
        return ColumnProposal(column, "rating", name)
    if is_attribute(column.name) and (is_text or column.kind == "boolean"):
        return ColumnProposal(column, "column", name)
    if reasons and (is_text or column.kind in ("date", "time", "list", "map", "other")):
        return ColumnProposal(column, "none", name, reasons[0])
    if column.kind == "list" and words & TAG_WORDS:
        return ColumnProposal(column, "list", name)
    if column.kind == "map" and {word.removesuffix("s") for word in words} & (RATING_WORDS | {*ITEM_WORDS}):
        return ColumnProposal(column, "items", name)
    return ColumnProposal(column, "none", name, "text without a limit" if column.kind == "text" else "")


def _find_key(table: ReflectedTable) -> str:
    named = [column.name for column in table.columns if column.name.lower() == "id"]
    return table.key[0] if len(table.key) == 1 else next(iter(named), "")


def _find_time(table: ReflectedTable) -> str:
    """Return the time of a feedback: of the type of a time, or, as on SQLite, text of such a name."""
    times = [column.name for column in table.columns if column.kind == "time"]
    texts = [column.name for column in table.columns if column.kind in ("text", "word")]
    ends = [name for name in texts if re.search("([ _](at|on)|time|stamp|date)$", separate_words(name).lower())]
    for names in (times, ends):
        for word in TIME_WORDS:
            if match := next((name for name in names if word in split_words(name)), ""):
                return match
    return times[0] if len(times) == 1 else ""


def find_reference(table: ReflectedTable, words: Iterable[str], others: frozenset[str] = frozenset()) -> str:
    """Return the first column that identifies something with one of these names, and with none of `others`."""
    for column in (column for column in table.columns if column.name not in table.key):
        own = split_words(column.name)
        is_whole_name = own <= {*words} and (column.kind != "text" or words is USER_WORDS)  # a long text is not an item
        is_id = own & ID_WORDS or is_whole_name or column.references or column.kind == "uuid"
        about = own | (split_words(column.references) if column.references else set())
        about |= {word.removesuffix("s") for word in about}
        if is_id and about & {*words} and not about & others and column.kind in _ID_KINDS:
            return column.name
    return ""


def _is_change_time(column: ReflectedColumn) -> bool:
    """Return whether a column looks like the time of the last change, which may be text as on SQLite."""
    words = split_words(column.name)
    is_time = column.kind == "time" or (column.kind in ("text", "word") and bool(words & {"at", "on", "time"}))
    return is_time and bool(words & CHANGE_WORDS)


def is_consent_column(column: ReflectedColumn) -> bool:
    """Return whether a column of a truth value looks like consent."""
    return column.kind in ("boolean", "integer") and is_consent(column.name)


def export_name(name: str) -> str:
    """Return a name in lower-case letters, digits and underscores, as an export can have it."""
    words = "_".join(re.findall("[a-z0-9]+", separate_words(name).lower())) or "column"
    return words if words[0].isalpha() else f"column_{words}"


def export_names(table: ReflectedTable) -> dict[str, str]:
    """Return a name for each column that an export can have: lower-case letters, digits and underscores."""
    names: dict[str, str] = {}
    for column in table.columns:
        name = export_name(column.name)
        while name in names.values():
            name += "_2"
        names[column.name] = name
    return names
