"""The tables of the settings file that declare a schema: `[ratings.*]`, `[lists.*]`, `[columns.*]` and `[dedup]`."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.feedback_columns import AgeColumn, ListColumn, Rating, require_age_edges
from feedback_etl.schema.item_declaration import ItemSettings, declare_items
from feedback_etl.schema.model import AGE_RANGE_NAME, RAW_ITEM, FeedbackSchema
from feedback_etl.schema.source import ElementTable, ItemTable
from feedback_etl.schema.source_declaration import JoinTable

_KEY = FeedbackSchema.dedup_key


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    column: str | None = None


class RatingTable(_Table):
    """A rating: `[ratings.NAME]`. `column` is its name in the source, that of the table by default."""

    type: Literal["number", "boolean"] = "number"
    min: float | None = None
    max: float | None = None
    step: float = 1
    label: str = ""
    threshold: float | None = None
    description: str = ""

    def to_rating(self, name: str) -> Rating:
        """Return the rating; a number needs its scale, a boolean has none."""
        given, is_boolean = (self.min is not None, self.max is not None), self.type == "boolean"
        if any(given) if is_boolean else not all(given):
            needs = "has no `min` and `max`" if is_boolean else "needs `min` and `max`"
            raise UsageError(f"[ratings.{name}] {needs}, since its type is {self.type}.")
        return Rating(
            name=name,
            type=self.type,
            min=0 if self.min is None else self.min,
            max=1 if self.max is None else self.max,
            step=self.step,
            label=self.label,
            threshold=self.threshold,
            description=self.description,
        )


class ListTable(_Table):
    """A list of short texts: `[lists.NAME]`; with `[lists.NAME.join]`, `column` is a column of that table."""

    role: Literal["quasi_identifier", "sensitive", "insensitive"] = "insensitive"
    joined: bool = False
    raw_name: str | None = None
    reason: str | None = None
    description: str = ""
    join: JoinTable | None = None

    def to_list(self, name: str) -> ListColumn:
        """Return the list."""
        return ListColumn(
            raw_name=self.raw_name or name,
            name=name,
            reason=self.reason or f"{name}_not_a_list",
            role=self.role,
            is_joined=self.joined,
            description=self.description,
        )


class ColumnTable(_Table):
    """Another column: `[columns.NAME]`."""

    role: Literal["identifier", "quasi_identifier", "sensitive", "insensitive", "free_text", "item"]
    type: Literal["text", "integer", "number", "boolean", "time", "date", "list"] = "text"
    bucket: tuple[int, ...] | None = None

    def to_extra_column(self, name: str) -> ExtraColumn:
        """Return the column as one that is exported unchanged or pseudonymised.

        Raises:
            UsageError: The column is a list, or has a role or type that only a declared schema has.
        """
        if self.type == "list":
            raise UsageError(f'[columns.{name}] has the type "list": write [lists.{name}] instead, without `type`.')
        if self.role == "item" or self.type == "date" or self.bucket is not None:
            what = 'role "item"' if self.role == "item" else f'type "{self.type}" or `bucket`'
            raise UsageError(
                f"[columns.{name}] with the {what} needs a declared schema: declare [ratings.NAME] as well."
            )
        return ExtraColumn(name, self.role, self.type)

    def to_age(self, name: str) -> AgeColumn:
        """Return an age or a date of birth, which is exported as a range."""
        if name != AGE_RANGE_NAME or self.type not in ("integer", "date") or self.role != "quasi_identifier":
            raise UsageError(
                f"[columns.{name}] is an age or a date of birth: call it [columns.{AGE_RANGE_NAME}], with the type "
                '"integer" or "date" and the role "quasi_identifier".'
            )
        if not self.bucket:
            raise UsageError(f"[columns.{name}] needs `bucket`, such as [18, 25, 35, 50]: only ranges are exported.")
        require_age_edges(self.bucket, f"`bucket` of [columns.{name}]")
        return AgeColumn(edges=self.bucket, raw_name="date_of_birth" if self.type == "date" else "age")


class DedupTable(BaseModel):
    """What identifies a feedback: `[dedup]`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: tuple[str, ...] = _KEY


class Declaration(NamedTuple):
    """A declared schema.

    Attributes:
        schema: The schema.
        source_columns: Columns of the source by the names of raw columns, for those that have another name there.
        elements: Tables of the elements of lists by the names of raw columns.
        items: Tables of item ratings by the names of raw columns.
    """

    schema: FeedbackSchema
    source_columns: dict[str, str]
    elements: dict[str, ElementTable]
    items: dict[str, ItemTable]


def declare_schema(
    ratings: Mapping[str, RatingTable],
    lists: Mapping[str, ListTable],
    columns: Mapping[str, ColumnTable],
    dedup: DedupTable | None,
    items: Mapping[str, ItemSettings],
) -> Declaration:
    """Return the declared schema; without ratings, lists and key the classic one, with the columns as extra columns.

    Raises:
        UsageError: A name, a scale or the key is invalid.
    """
    if not ratings and not lists and dedup is None:
        if items:
            raise UsageError(f"[items.{next(iter(items))}] needs a declared schema: declare [ratings.NAME] as well.")
        extra = [column.to_extra_column(name) for name, column in columns.items()]
        sources = {name: column.column for name, column in columns.items() if column.column}
        return Declaration(CLASSIC_SCHEMA.with_extra_columns(extra), sources, {}, {})
    if repeated := [name for name in lists if name in columns]:
        raise UsageError(f"[lists.{repeated[0]}] and [columns.{repeated[0]}] declare the same name; remove one.")
    item = _find_item(columns)
    ages = [
        name
        for name, column in columns.items()
        if name == AGE_RANGE_NAME or column.bucket is not None or column.type == "date"
    ]
    others = {name: column for name, column in columns.items() if name not in (*ages, item)}
    age = columns[ages[0]].to_age(ages[0]) if ages else None
    item_ratings, item_columns, item_tables = declare_items(items)
    schema = FeedbackSchema(
        ratings=tuple(table.to_rating(name) for name, table in ratings.items()),
        lists=tuple(table.to_list(name) for name, table in lists.items()),
        columns=tuple(column.to_extra_column(name) for name, column in others.items()),
        age=age,
        item=item,
        dedup_key=_get_raw_key(dedup, item),
        items=item_ratings,
    )
    raw_names = {item: RAW_ITEM} | {column.name: column.raw_name for column in schema.lists}
    raw_names |= {AGE_RANGE_NAME: age.raw_name} if age else {}
    tables: dict[str, _Table] = {**ratings, **lists, **columns}
    sources = {raw_names.get(name, name): table.column or name for name, table in tables.items()}
    elements = {
        raw_names[name]: ElementTable(table.join.to_join(), table.column or name)
        for name, table in lists.items()
        if table.join is not None
    }
    renamed = {name: column for name, column in sources.items() if name != column and name not in elements}
    return Declaration(schema, renamed | item_columns, elements, item_tables)


def _find_item(columns: Mapping[str, ColumnTable]) -> str | None:
    """Return the column of the role "item", if there is one."""
    items = [name for name, column in columns.items() if column.role == "item"]
    if len(items) > 1:
        raise UsageError(f'Only one column can have the role "item", not {", ".join(items)}.')
    return items[0] if items else None


def _get_raw_key(dedup: DedupTable | None, item: str | None) -> tuple[str, ...]:
    """Return the raw names of the key; the default key is that of the classic schema, without an item if there is none.

    An item may be named as in the export.
    """
    names = tuple(RAW_ITEM if name == item else name for name in (dedup or DedupTable()).key)
    return tuple(name for name in names if item or dedup or name != RAW_ITEM)
