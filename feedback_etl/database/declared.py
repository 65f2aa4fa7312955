"""Build the relation of a declared source: its columns by their raw names, from the tables that the database has."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from feedback_etl.database.column_types import reflect_columns
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.custom_query import extract_select
from feedback_etl.database.empty_selects import empty_query_select
from feedback_etl.database.relation import QUERY_PLACEHOLDER, Column, SourceRelation
from feedback_etl.database.statements import describe, execute, fetch_rows
from feedback_etl.errors import SourceError
from feedback_etl.plurals import list_some
from feedback_etl.schema.source import ElementTable, ItemTable, Join, SourceTable


class SourceColumns(NamedTuple):
    """Hold the columns of a table or query.

    Attributes:
        name: Its name as declared.
        rows: Its FROM clause.
        columns: Its columns by their names.
    """

    name: str
    rows: sa.FromClause
    columns: Mapping[str, Column]

    def find(self, name: str) -> Column | None:
        """Return a column by its name, or by its name in other letter case if that is the only such one."""
        if name in self.columns:
            return self.columns[name]
        similar = [column for own, column in self.columns.items() if own.lower() == name.lower()]
        return similar[0] if len(similar) == 1 else None

    def require(self, name: str, key: str) -> Column:
        """Return a column by its name.

        Raises:
            SourceError: The column does not exist; `key` is the key in the settings file that names it.
        """
        if (column := self.find(name)) is not None:
            return column
        existing = list_some(list(self.columns))
        raise SourceError(f"{self.name} has no column {name}, which is declared for {key} (it has {existing}).")


def build_declared_relation(
    source: DatabaseConnection, declaration: SourceTable, names: Iterable[str], keys: Iterable[str]
) -> SourceRelation:
    """Return the relation of a declared table or query, without the types of its columns.

    Args:
        source: The database.
        declaration: The source.
        names: The raw columns.
        keys: Those of them by which rows are counted: ids, times and consent.

    Raises:
        SourceError: A table or column does not exist, or the joined table has several rows for one feedback.
        UsageError: The query is not one closed SELECT.
    """
    feedback = _open_feedback(source, declaration)
    joined, rows = None, feedback.rows
    if declaration.join is not None:
        joined = _open_table(source, declaration.join.table, "j", "[source.join]")
        _require_unique(source, joined, declaration.join)
        rows = rows.outerjoin(joined.rows, _is_joined(declaration.join, feedback, joined, "[source.join]"))
    elements, items = dict(declaration.elements), dict(declaration.items)
    columns = {
        name: _aggregate(source, feedback, elements[name], name)
        if name in elements
        else _aggregate_items(source, feedback, items[name], name)
        if name in items
        else _select(declaration, feedback, joined, name, dialect=source.dialect)
        for name in names
    }
    own_names = [declaration.find_column(name) for name in keys]
    is_own = joined is None or all(name is None or feedback.find(name) is not None for name in own_names)
    query = extract_select(source.dialect, declaration.query) if declaration.query else None
    return SourceRelation(
        source.dialect,
        columns,
        rows,
        feedback_table=feedback.rows if is_own else rows,
        custom_query=query,
        consent=tuple(filter(None, [declaration.find_column("consent")])),
    )


def _open_feedback(source: DatabaseConnection, declaration: SourceTable) -> SourceColumns:
    if declaration.table:
        return _open_table(source, declaration.table, "f", "[source]")
    names = [str(name) for name, *_ in describe(source, empty_query_select(source.dialect, declaration.query))]
    return SourceColumns("The query", sa.table(QUERY_PLACEHOLDER), {name: sa.column(name) for name in names})


def _open_table(source: DatabaseConnection, name: str, alias: str, key: str) -> SourceColumns:
    """Return a table or view that exists, under an alias; its name may begin with that of its schema."""
    inspector = sa.inspect(source.connection)
    db_schema, table = source.db_schema, name
    if not inspector.has_table(table, schema=db_schema) and "." in name:
        db_schema, _, table = name.rpartition(".")
    if not inspector.has_table(table, schema=db_schema):
        names = sorted({*inspector.get_table_names(source.db_schema), *inspector.get_view_names(source.db_schema)})
        raise SourceError(f"The database has no table {name}, which {key} names. It has: {list_some(names)}.")
    columns: Sequence[sa.ColumnClause[Any]] = [
        sa.column(column, type_) for column, type_ in reflect_columns(inspector, table, db_schema).items()
    ]
    rows = sa.table(table, *columns, schema=db_schema).alias(alias)
    return SourceColumns(name, rows, dict(rows.c.items()))


def _select(
    declaration: SourceTable, feedback: SourceColumns, joined: SourceColumns | None, raw_name: str, *, dialect: str
) -> Column:
    """Return a raw column: that of the feedback's table, or else that of the joined one; `TABLE.COLUMN` names one."""
    name = declaration.find_column(raw_name)
    if name is None:  # an empty text is read as null; of a null, ConnectorX infers no type on SQLite
        return sa.literal_column("''") if dialect == "sqlite" else sa.cast(sa.null(), sa.Text)
    if joined is not None:
        table, _, column = name.rpartition(".")
        if table == joined.name or (feedback.find(name) is None and joined.find(name) is not None):
            return joined.require(column, raw_name)
    return feedback.require(name, raw_name)


def _is_joined(join: Join, feedback: SourceColumns, other: SourceColumns, key: str) -> sa.ColumnElement[bool]:
    return sa.and_(*(feedback.require(left, key) == other.require(right, key) for left, right in join.on))


def _require_unique(source: DatabaseConnection, joined: SourceColumns, join: Join) -> None:
    """Raise if the joined table has several rows for one feedback, which would then be read several times."""
    columns = [joined.require(name, "[source.join]") for _, name in join.on]
    one: Column = sa.literal_column("1")
    present = sa.and_(*(column.is_not(None) for column in columns))
    groups = sa.select(one).select_from(joined.rows).where(present).group_by(*columns)
    relation = SourceRelation(source.dialect, {}, joined.rows, joined.rows)
    execute(source, relation.render(groups.limit(0))).close()  # its refusal names the table, and contains no value
    if fetch_rows(source, relation.render(groups.having(sa.func.count() > one).limit(1))):
        names = ", ".join(column.name for column in columns)
        raise SourceError(
            f"{joined.name} has several rows with the same {names}, so [source.join] would repeat feedback. Join a "
            "view with one row for each, or write the join in a query."
        )


def _aggregate(source: DatabaseConnection, feedback: SourceColumns, elements: ElementTable, name: str) -> Column:
    """Return the elements of each feedback as the text of a JSON array in their order, `[]` if it has none."""
    key = f"[lists.{name}]"
    table = _open_table(source, elements.join.table, "e", key)
    element = sa.cast(table.require(elements.column, key), sa.Text)
    is_element = sa.and_(_is_joined(elements.join, feedback, table, key), element.is_not(None))
    if source.dialect == "sqlite":  # its aggregates have no order before version 3.44
        ordered = sa.select(element.label("element")).select_from(table.rows).where(is_element).order_by(element)
        rows = ordered.correlate(feedback.rows).subquery("o")
        return sa.select(sa.func.json_group_array(rows.c.element)).select_from(rows).scalar_subquery()
    array = _ARRAYS[source.dialect](element)
    text = sa.func.coalesce(sa.cast(array, sa.Text), sa.literal_column("'[]'"))
    return sa.select(text).select_from(table.rows).where(is_element).correlate(feedback.rows).scalar_subquery()


def _aggregate_items(source: DatabaseConnection, feedback: SourceColumns, items: ItemTable, name: str) -> Column:
    """Return the items of each feedback as the text of a JSON map in the order of the items, `{}` if it has none.

    A missing item becomes an empty one, which is rejected.
    """
    key = f"[items.{name}]"
    table = _open_table(source, items.join.table, "i", key)
    item = sa.func.coalesce(sa.cast(table.require(items.item, key), sa.Text), sa.literal_column("''"))
    rating, is_joined = table.require(items.rating, key), _is_joined(items.join, feedback, table, key)
    if source.dialect == "sqlite":
        ordered = sa.select(item.label("item"), rating.label("rating")).select_from(table.rows).where(is_joined)
        rows = ordered.order_by(item).correlate(feedback.rows).subquery("o")
        return sa.select(sa.func.json_group_object(rows.c.item, rows.c.rating)).select_from(rows).scalar_subquery()
    map_ = sa.cast(_MAPS[source.dialect](item, rating), sa.Text)
    text = sa.func.coalesce(map_, sa.literal_column("'{}'"))
    return sa.select(text).select_from(table.rows).where(is_joined).correlate(feedback.rows).scalar_subquery()


def _concat_json(entry: Column, key: Column, brackets: str) -> Column:
    """Return MySQL's entries as JSON in the order of a text: its own aggregates have no order.

    MySQL cuts a text that is too long, which would be no error if it were cut after an entry.
    """
    entries = sa.func.group_concat(_order(entry, sa.cast(key, sa.LargeBinary)))
    is_cut = sa.func.octet_length(entries) > sa.literal_column("@@group_concat_max_len - 4")
    whole = sa.func.concat(sa.literal_column(f"'{brackets[0]}'"), entries, sa.literal_column(f"'{brackets[1]}'"))
    return sa.case((is_cut, sa.literal_column("'too long'")), else_=whole)


def _entry(item: Column, rating: Column, quote: Any) -> Column:
    """Return an entry of a JSON map as text."""
    number = sa.func.coalesce(sa.cast(rating, sa.Text), sa.literal_column("'null'"))
    return sa.func.concat(quote(item), sa.literal_column("':'"), number)


def _order(element: Column, key: Column) -> Column:
    """Return the argument of an aggregate with the order of its elements."""
    return element.op("ORDER BY")(key)


_ARRAYS: dict[str, Callable[[Column], Column]] = {
    "postgresql": lambda element: sa.func.json_agg(_order(element, element.collate("C"))),
    "mysql": lambda element: _concat_json(sa.func.json_quote(element), element, "[]"),
    "duckdb": lambda element: sa.func.to_json(sa.func.list(_order(element, element))),
}
"""The aggregate of each dialect that yields a JSON array in the order of its elements' bytes; null without elements."""

_MAPS: dict[str, Callable[[Column, Column], Column]] = {
    "postgresql": lambda item, rating: sa.func.json_object_agg(item, _order(rating, item.collate("C"))),
    "mysql": lambda item, rating: _concat_json(_entry(item, rating, sa.func.json_quote), item, "{}"),
    "duckdb": lambda item, rating: sa.func.concat(
        sa.literal_column("'{'"),
        sa.func.string_agg(_entry(item, rating, sa.func.to_json), _order(sa.literal_column("','"), item)),
        sa.literal_column("'}'"),
    ),
}
"""The aggregate of each dialect that yields a JSON map in the order of its items' bytes."""
