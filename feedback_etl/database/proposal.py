"""Propose a declaration for a reflected table by the names and types of its columns: nothing here reads a row."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from feedback_etl.database.naming import (
    AGE_WORDS,
    COUNT_WORDS,
    ID_WORDS,
    ITEM_WORDS,
    RATING_WORDS,
    SENSITIVE_REASONS,
    TABLE_WORDS,
    TAG_WORDS,
    TIME_WORDS,
    USER_WORDS,
    find_reasons,
    is_attribute,
    is_consent,
    is_label,
    separate_words,
    split_words,
)
from feedback_etl.database.reflection import ReflectedColumn, ReflectedTable, Scale
from feedback_etl.database.tables import recommendation_feedbacks
from feedback_etl.errors import SourceError

Use = Literal["feedback_id", "user_id", "item_id", "created_at", "consent", "rating", "list", "age", "column", "none"]

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


class ElementsProposal(NamedTuple):
    """Propose a list whose elements are in a table of their own.

    Attributes:
        table: The table.
        reference: Its column that refers to the feedback.
        column: Its column of the elements.
        name: The name of the list in the export: `tags` for a column `tag`.
    """

    table: ReflectedTable
    reference: str
    column: str
    name: str


class Proposal(NamedTuple):
    """Propose a declaration.

    Attributes:
        table: The table of the feedback.
        columns: All its columns, in their order.
        joined: The table of users if it records consent; its consent is read from there.
        reference: The column that refers to `joined`.
        consent: The column of `joined` that records consent.
        elements: Lists whose elements are in tables of their own.
        scales: The observed scales of the ratings, by their columns.
    """

    table: ReflectedTable
    columns: tuple[ColumnProposal, ...]
    joined: ReflectedTable | None = None
    reference: str = ""
    consent: str = ""
    elements: tuple[ElementsProposal, ...] = ()
    scales: Mapping[str, Scale] = {}

    @property
    def is_default(self) -> bool:
        """Whether the feedback is in the table of the default schema."""
        return self.table.name == recommendation_feedbacks.name

    def find(self, use: Use) -> list[ColumnProposal]:
        """Return the columns with a use."""
        return [column for column in self.columns if column.use == use]

    def with_use(self, use: Use, name: str) -> "Proposal":
        """Return the proposal with a use moved to another column, or to none if no column has the name."""
        columns = [
            column._replace(use=use, reason="")
            if column.column.name == name
            else column._replace(use="none")
            if column.use == use
            else column
            for column in self.columns
        ]
        return self._replace(columns=tuple(columns))

    def require_complete(self) -> None:
        """Raise if an export could not read the table.

        Raises:
            SourceError: It has no key, no time or no rating.
        """
        wanted: dict[Use, str] = {"feedback_id": "key", "created_at": "time", "rating": "rating"}
        if missing := [name for use, name in wanted.items() if not self.find(use)]:
            raise SourceError(
                f"No column of {self.table.full_name} looks like a {' or a '.join(missing)}. Name another table with "
                "--table, or declare its columns in a settings file (docs/how-to/declared-source.md)."
            )


def rank_tables(tables: Iterable[ReflectedTable]) -> list[ReflectedTable]:
    """Return the tables that may contain feedback, the most likely one first: those with a key, a time and a rating.

    Tables that are equally likely are in the order of their names.
    """
    ranks = {table: _rank(table) for table in tables}
    return sorted((table for table, rank in ranks.items() if rank), key=lambda table: (-ranks[table], table.name))


def _rank(table: ReflectedTable) -> int:
    uses = [column.use for column in _propose_columns(table)]
    if not {"feedback_id", "created_at", "rating"} <= {*uses}:
        return 0
    is_named = bool(split_words(table.name) & TABLE_WORDS)
    return 1 + 3 * is_named + min(uses.count("rating"), 3) + 2 * ("user_id" in uses) + ("item_id" in uses)


def propose(tables: Sequence[ReflectedTable], table: ReflectedTable) -> Proposal:
    """Return the declaration to propose for one of several tables."""
    columns = _propose_columns(table)
    joined, consent = None, ""
    user = next((column.column for column in columns if column.use == "user_id"), None)
    if user is not None and not any(column.use == "consent" for column in columns):
        joined = next((other for other in tables if other.name == user.references and len(other.key) == 1), None)
        consent = next((column.name for column in joined.columns if _is_consent(column)), "") if joined else ""
    elements = tuple(_find_elements(tables, table))
    if user is None or not consent:
        return Proposal(table, columns, elements=elements)
    return Proposal(table, columns, joined, user.name, consent, elements)


def _find_elements(tables: Iterable[ReflectedTable], table: ReflectedTable) -> Iterator[ElementsProposal]:
    """Yield the tables that refer to feedback, and otherwise have one column of short texts."""
    for other in tables:
        references = [column.name for column in other.columns if column.references == table.name]
        texts = [column.name for column in other.columns if column.kind in ("word", "text") and not column.references]
        is_list = bool((split_words(other.name) | {word for text in texts for word in split_words(text)}) & TAG_WORDS)
        if other != table and len(references) == 1 and len(texts) == 1 and is_list and is_label(texts[0]):
            name = _export_names(other)[texts[0]]
            yield ElementsProposal(other, references[0], texts[0], name if name.endswith("s") else f"{name}s")


def _propose_columns(table: ReflectedTable) -> tuple[ColumnProposal, ...]:
    """Return what to do with each column; the first that fits has a use that one column can have."""
    single: dict[Use, str] = {
        "feedback_id": _find_key(table),
        "created_at": _find_time(table),
        "user_id": _find_reference(table, USER_WORDS),
        "item_id": next(filter(None, (_find_reference(table, {word}, USER_WORDS) for word in ITEM_WORDS)), ""),
        "consent": next((column.name for column in table.columns if _is_consent(column)), ""),
    }
    uses = {name: use for use, name in reversed(single.items()) if name}
    names = _export_names(table)
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
    if reasons and (is_text or column.kind in ("date", "time", "list", "other")):
        return ColumnProposal(column, "none", name, reasons[0])
    if column.kind == "list" and words & TAG_WORDS:
        return ColumnProposal(column, "list", name)
    return ColumnProposal(column, "none", name, "text without a limit" if column.kind == "text" else "")


def _find_key(table: ReflectedTable) -> str:
    named = [column.name for column in table.columns if column.name.lower() == "id"]
    return table.key[0] if len(table.key) == 1 else next(iter(named), "")


def _find_time(table: ReflectedTable) -> str:
    """Return the time of a feedback: of the type of a time, or, as on SQLite, text of such a name."""
    times = [column.name for column in table.columns if column.kind == "time"]
    texts = [column.name for column in table.columns if column.kind in ("text", "word")]
    for names in (times, [name for name in texts if re.search("(_at|_on|time|stamp|date)$", name.lower())]):
        for word in TIME_WORDS:
            if match := next((name for name in names if word in split_words(name)), ""):
                return match
    return times[0] if len(times) == 1 else ""


def _find_reference(table: ReflectedTable, words: Iterable[str], others: frozenset[str] = frozenset()) -> str:
    """Return the first column that identifies something with one of these names, and with none of `others`."""
    for column in (column for column in table.columns if column.name not in table.key):
        own = split_words(column.name)
        is_whole_name = own <= {*words} and (column.kind != "text" or words is USER_WORDS)  # a long text is no item
        is_id = own & ID_WORDS or is_whole_name or column.references or column.kind == "uuid"
        about = own | (split_words(column.references) if column.references else set())
        about |= {word.removesuffix("s") for word in about}
        if is_id and about & {*words} and not about & others and column.kind in _ID_KINDS:
            return column.name
    return ""


def _is_consent(column: ReflectedColumn) -> bool:
    return column.kind in ("boolean", "integer") and is_consent(column.name)


def _export_names(table: ReflectedTable) -> dict[str, str]:
    """Return a name for each column that an export can have: lower-case letters, digits and underscores."""
    names: dict[str, str] = {}
    for column in table.columns:
        words = re.findall("[a-z0-9]+", separate_words(column.name).lower())
        name = "_".join(words) or "column"
        name = name if name[0].isalpha() else f"column_{name}"
        while name in names.values():
            name += "_2"
        names[column.name] = name
    return names
