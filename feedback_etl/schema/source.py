"""The source of declared feedback: the table or query that contains it, and the source's name of each raw column."""

import json
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from feedback_etl.errors import UsageError


class Join(NamedTuple):
    """Name another table, and how its rows belong to feedback.

    Attributes:
        table: Its name, optionally with that of its schema.
        on: Pairs of a column of the feedback's table and the column of the other table that is equal to it.
    """

    table: str
    on: tuple[tuple[str, str], ...]


class ElementTable(NamedTuple):
    """Name a table that has one row for each element of a list.

    Attributes:
        join: The table.
        column: Its column of the elements.
    """

    join: Join
    column: str


class ItemTable(NamedTuple):
    """Name a table that has one row for each item that a feedback rates.

    Attributes:
        join: The table.
        item: Its column of the items.
        rating: Its column of their ratings.
    """

    join: Join
    item: str
    rating: str


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """Describe where feedback is. A value: hashable, comparable, and sent to workers.

    Attributes:
        table: The table, optionally with its schema (`shop.reviews`); "" for a query.
        query: The text of a SELECT instead of a table.
        columns: Pairs of a raw column and its column in the table, in the joined table or in the query. Other raw
            columns have their own name there.
        join: A table with at most one row for each feedback.
        elements: Pairs of a raw list and the table of its elements.
        items: Pairs of a raw map of item ratings and the table of its items.

    Raises:
        UsageError: There is neither a table nor a query, or both; a query is joined; or a column is missing that every
            source has.
    """

    table: str = ""
    query: str = field(default="", repr=False)
    columns: tuple[tuple[str, str], ...] = ()
    join: Join | None = None
    elements: tuple[tuple[str, ElementTable], ...] = ()
    items: tuple[tuple[str, ItemTable], ...] = ()

    def __post_init__(self) -> None:
        if bool(self.table) == bool(self.query):
            raise UsageError("[source] must name either a table or a query.")
        if self.query and (self.join or self.elements or self.items):
            raise UsageError("[source] with a query cannot join a table: join it in the query.")
        if missing := [name for name in ("feedback_id", "created_at") if name not in dict(self.columns)]:
            raise UsageError(f"[source] must name the column of {' and '.join(missing)}.")

    def to_text(self, items: str | None = None) -> str:
        """Return a text that differs from that of any other source, and from any query.

        Of the tables of items it contains that of the exported `items`.
        """
        record = asdict(self)
        del record["items"]
        exported = [table for name, table in self.items if name == items]
        return json.dumps(record | ({"items": exported} if exported else {}), sort_keys=True)

    def find_column(self, raw_name: str) -> str | None:
        """Return the source's name of a raw column; None if the source has no such column.

        What a feedback is about (`analysis_id`) is the feedback itself unless a column is declared, so that the rows of
        a person are not linked. A user and consent exist only if they are declared.
        """
        columns = dict(self.columns)
        if raw_name == "analysis_id":
            return columns.get(raw_name, columns["feedback_id"])
        return columns.get(raw_name, None if raw_name in ("user_id", "consent") else raw_name)
