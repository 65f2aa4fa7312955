"""The table `[source]` of the settings file, which says where feedback is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from feedback_etl.errors import UsageError
from feedback_etl.schema.item_declaration import ItemSettings
from feedback_etl.schema.model import RAW_IDS
from feedback_etl.schema.source import ElementTable, ItemTable, Join, SourceTable

_CONFIG = ConfigDict(extra="forbid", hide_input_in_errors=True)


class JoinTable(BaseModel):
    """A table that is joined once: `[source.join]`. `on` has the feedback's columns as keys."""

    model_config = _CONFIG

    table: str
    on: dict[str, str]

    def to_join(self) -> Join:
        """Return the join."""
        return Join(self.table, tuple(self.on.items()))


class SourceSettings(BaseModel):
    """Where feedback is, and its ids, time and consent: `[source]`."""

    model_config = _CONFIG

    table: str = ""
    query: Path | None = None
    feedback_id: str
    created_at: str
    user_id: str | None = None
    analysis_id: str | None = None
    consent: str | None = None
    join: JoinTable | None = None

    def require_pseudonyms(self, tables: Mapping[str, Mapping[str, Any]], item: str) -> None:
        """Raise if an id would be exported as it is, since its pseudonyms would then protect no one.

        Args:
            tables: The declarations of columns by the name of their table (`columns`) and their own name.
            item: The table of the item, which may be the id of the feedback, but not that of a person.

        Raises:
            UsageError: A column is that of an id, or the column of the joined table that is equal to it.
        """
        columns = {
            f"{kind}.{name}": table.column or name
            for kind, declared in tables.items()
            for name, table in declared.items()
            if getattr(table, "join", None) is None and getattr(table, "role", "") != "identifier"
        }
        ids = {name: getattr(self, name) for name in ("user_id", "analysis_id", "feedback_id")}
        names = {column.lower(): name for name, column in reversed(ids.items()) if column is not None}
        for left, right in self.join.on.items() if self.join else ():
            if left.lower() in names:
                names[f"{self.join.table}.{right}".lower()] = names[left.lower()]  # type: ignore[union-attr]
        for table, column in columns.items():
            name = names.get(column.lower())
            if name is not None and (table != item or name == "user_id"):
                raise UsageError(
                    f"[{table}] would export {column} as it is, which [source] names as `{name}`: give it the role "
                    '"identifier" in [columns], or remove it.'
                )

    def require_no_ids(self, items: Mapping[str, ItemSettings]) -> None:
        """Raise UsageError if the items of a table are ids, by the names of raw columns or of the source's columns."""
        ids = {*RAW_IDS, *(column.lower() for name in RAW_IDS if (column := getattr(self, name)) is not None)}
        for name, settings in items.items():
            if settings.item is not None and settings.item.lower() in ids:
                raise UsageError(
                    f"[items.{name}] would export {settings.item} as the item, which is an id of feedback."
                )

    def to_source(
        self,
        columns: Mapping[str, str],
        elements: Mapping[str, ElementTable],
        items: Mapping[str, ItemTable],
        read_query: Callable[[Path], str],
    ) -> SourceTable:
        """Return the source.

        Args:
            columns: The columns of other raw columns, by raw names, where these differ.
            elements: The tables of the elements of lists, by raw names.
            items: The tables of item ratings, by raw names.
            read_query: Return the text of a query file.

        Raises:
            UsageError: The declaration is contradictory, or the query cannot be read.
        """
        own = {name: getattr(self, name) for name in ("feedback_id", "created_at", "user_id", "analysis_id", "consent")}
        named = {name: column for name, column in own.items() if column is not None}
        return SourceTable(
            table=self.table,
            query=read_query(self.query) if self.query else "",
            columns=(*named.items(), *columns.items()),
            join=self.join.to_join() if self.join else None,
            elements=tuple(elements.items()),
            items=tuple(items.items()),
        )
