"""The tables `[items.*]` of the settings file, which declare ratings of several items in one feedback."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from feedback_etl.errors import UsageError
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.source import ItemTable, Join


class ItemSettings(BaseModel):
    """Item ratings: `[items.NAME]`, a JSON map of item to rating in `column`, or rows of a `table`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    column: str | None = None
    table: str | None = None
    on: dict[str, str] | None = None
    item: str | None = None
    rating: str | None = None
    min: float
    max: float
    step: float = 1
    description: str = ""

    def to_rating(self, name: str) -> Rating:
        """Return the scale of the ratings."""
        return Rating(name=name, min=self.min, max=self.max, step=self.step, description=self.description)

    def to_table(self, name: str) -> ItemTable | None:
        """Return the table of the items; None if they are a map in a column.

        Raises:
            UsageError: Neither is declared in full, or both are.
        """
        of_table = (self.table, self.on, self.item, self.rating)
        if not any(of_table):
            return None
        if self.column is not None or not (self.table and self.on and self.item and self.rating):
            raise UsageError(
                f"[items.{name}] needs either column, a JSON map of item to rating, or table, on, item and rating."
            )
        if self.item.lower() in (right.lower() for right in self.on.values()):
            raise UsageError(f"[items.{name}] would export {self.item} as the item, which joins the rows: it is an id.")
        return ItemTable(Join(self.table, tuple(self.on.items())), self.item, self.rating)


def declare_items(
    items: Mapping[str, ItemSettings],
) -> tuple[tuple[Rating, ...], dict[str, str], dict[str, ItemTable]]:
    """Return declared item ratings, the columns of maps that have another name, and the tables of the others."""
    tables = {name: table for name, settings in items.items() if (table := settings.to_table(name))}
    columns = {name: settings.column for name, settings in items.items() if settings.column not in (None, name)}
    return tuple(settings.to_rating(name) for name, settings in items.items()), columns, tables
