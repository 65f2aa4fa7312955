"""Propose a declaration for a reflected table by the names and types of its columns: nothing here reads a row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from feedback_etl.database.column_uses import (
    ColumnProposal,
    Use,
    export_name,
    export_names,
    find_reference,
    is_consent_column,
    propose_columns,
)
from feedback_etl.database.naming import (
    TABLE_WORDS,
    TAG_WORDS,
    USER_WORDS,
    is_consent,
    is_label,
    is_refusal,
    split_words,
)
from feedback_etl.database.reflection import ReflectedTable, Scale
from feedback_etl.database.tables import recommendation_feedbacks
from feedback_etl.errors import SourceError


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


class ItemsProposal(NamedTuple):
    """Propose ratings of items that are in a table of their own.

    Attributes:
        table: The table.
        reference: Its column that refers to the feedback.
        item: Its column of the items.
        rating: Its column of the ratings.
        name: The name of the item ratings.
        scale: The observed scale; None before the table is read.
    """

    table: ReflectedTable
    reference: str
    item: str
    rating: str
    name: str
    scale: Scale | None = None


class Proposal(NamedTuple):
    """Propose a declaration.

    Attributes:
        table: The table of the feedback.
        columns: All its columns, in their order.
        joined: The table of users if it records consent, or the one that says whose feedback it is.
        reference: The column that refers to `joined`.
        consent: The column of `joined` that records consent; "" if none does.
        user: The column of `joined` that identifies the user; "" if the feedback's table does.
        elements: Lists whose elements are in tables of their own.
        items: Item ratings that are in tables of their own.
        unused_consent: Columns that look like consent or a refusal, and that a declaration cannot name.
        scales: The observed scales of the ratings, by their columns.
    """

    table: ReflectedTable
    columns: tuple[ColumnProposal, ...]
    joined: ReflectedTable | None = None
    reference: str = ""
    consent: str = ""
    user: str = ""
    elements: tuple[ElementsProposal, ...] = ()
    items: tuple[ItemsProposal, ...] = ()
    unused_consent: tuple[str, ...] = ()
    scales: Mapping[str, Scale] = {}

    @property
    def is_default(self) -> bool:
        """Whether the feedback is in the table of the default schema."""
        return self.table.name == recommendation_feedbacks.name

    @property
    def has_consent(self) -> bool:
        """Whether a column of consent is declared."""
        return bool(self.consent or self.find("consent"))

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
    uses = [column.use for column in propose_columns(table)]
    if not {"feedback_id", "created_at", "rating"} <= {*uses}:
        return 0
    is_named = bool(split_words(table.name) & TABLE_WORDS)
    return 1 + 3 * is_named + min(uses.count("rating"), 3) + 2 * ("user_id" in uses) + ("item_id" in uses)


def propose(tables: Sequence[ReflectedTable], table: ReflectedTable) -> Proposal:
    """Return the declaration to propose for one of several tables."""
    proposal = _propose_source(tables, table)
    others = [other for other in tables if other.full_name != table.full_name]
    unused = tuple(_find_unused_consent([*others, table], proposal))
    return proposal._replace(items=tuple(_find_items(others, table)), unused_consent=unused)


def _propose_source(tables: Sequence[ReflectedTable], table: ReflectedTable) -> Proposal:
    columns = propose_columns(table)
    joined, consent = None, ""
    user = next((column.column for column in columns if column.use == "user_id"), None)
    if user is not None and not any(column.use == "consent" for column in columns):
        joined = next((other for other in tables if other.is_referred_to(user)), None)
        consent = next((column.name for column in joined.columns if is_consent_column(column)), "") if joined else ""
    elements = tuple(_find_elements(tables, table))
    if user is None:
        return Proposal(table, columns, *_find_joined_user(tables, table), elements=elements)
    if not consent:
        return Proposal(table, columns, elements=elements)
    return Proposal(table, columns, joined, user.name, consent, elements=elements)


def _find_joined_user(
    tables: Sequence[ReflectedTable], table: ReflectedTable
) -> tuple[ReflectedTable | None, str, str, str]:
    """Return the table that says whose feedback it is, the reference to it, and its columns of consent and the user."""
    for column in table.columns:
        other = next((other for other in tables if other.is_referred_to(column)), None)
        user = find_reference(other, USER_WORDS) if other else ""
        if other and user:
            return other, column.name, next((own.name for own in other.columns if is_consent_column(own)), ""), user
    return None, "", "", ""


def _find_elements(tables: Iterable[ReflectedTable], table: ReflectedTable) -> Iterator[ElementsProposal]:
    """Yield the tables that refer to feedback, and otherwise have one column of short texts."""
    for other in tables:
        references = [column.name for column in other.columns if table.is_referred_to(column)]
        texts = [column.name for column in other.columns if column.kind in ("word", "text") and not column.references]
        is_list = bool((split_words(other.name) | {word for text in texts for word in split_words(text)}) & TAG_WORDS)
        is_other = other.full_name != table.full_name  # their columns can differ: one was sampled
        if is_other and len(references) == 1 and len(texts) == 1 and is_list and is_label(texts[0]):
            name = export_names(other)[texts[0]]
            yield ElementsProposal(other, references[0], texts[0], name if name.endswith("s") else f"{name}s")


def _find_items(others: Iterable[ReflectedTable], table: ReflectedTable) -> Iterator[ItemsProposal]:
    """Yield the tables that refer to feedback, and have one column that names an item and one with its rating."""
    for other in others:
        references = [column.name for column in other.columns if table.is_referred_to(column)]
        uses = propose_columns(other._replace(key=()))  # the item may be a part of the key
        items = [column.column.name for column in uses if column.use == "item_id"]
        ratings = [column.column for column in uses if column.use == "rating"]
        if len(references) == len(items) == len(ratings) == 1 and ratings[0].kind != "boolean" and items != references:
            name = export_name(other.name)
            name += "_items" * (name in export_names(table).values())
            yield ItemsProposal(other, references[0], items[0], ratings[0].name, name)


def _find_unused_consent(tables: Iterable[ReflectedTable], proposal: Proposal) -> Iterator[str]:
    """Yield refusals, and, where no consent is declared, columns of consent that cannot be."""
    for table in tables:
        for column in table.columns:
            is_unused_consent = is_consent(column.name) and not proposal.has_consent
            if is_refusal(column.name) or is_unused_consent:
                yield f"{table.full_name}.{column.name}"
