"""The table `[source]` of the settings file, which says where feedback is."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from feedback_etl.schema.source import ElementTable, Join, SourceTable

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

    def to_source(
        self, columns: Mapping[str, str], elements: Mapping[str, ElementTable], read_query: Callable[[Path], str]
    ) -> SourceTable:
        """Return the source.

        Args:
            columns: The columns of other raw columns, by raw names, where these differ.
            elements: The tables of the elements of lists, by raw names.
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
        )
