"""Reflect the tables of an unknown database, and the scales of its ratings."""

import re
import warnings
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.exc import SAWarning, SQLAlchemyError

from feedback_etl.database import tables
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.driver_errors import build_query_error, get_query_reason
from feedback_etl.database.quoting import quote_text
from feedback_etl.database.statements import fetch_rows

SAMPLE_ROWS = 100_000
"""Rows of a table from which the scale of a rating is taken: more take seconds, and rarely widen it."""

ColumnKind = Literal[
    "integer", "number", "boolean", "text", "word", "time", "date", "list", "map", "json", "uuid", "other"
]


_DUCKDB_KINDS: dict[str, ColumnKind] = {
    "JSON": "json",
    r".*\[\d*\]": "list",
    "BOOLEAN": "boolean",
    "U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?": "integer",
    r"FLOAT|DOUBLE|DECIMAL\(.*": "number",
    "VARCHAR": "text",
    r"ENUM\(.*": "word",
    "UUID": "uuid",
    "TIMESTAMP.*": "time",
    "DATE": "date",
}
"""What the types of DuckDB contain, by patterns of their names."""


class ReflectedColumn(NamedTuple):
    """Describe a column of a table.

    Attributes:
        name: Its name.
        kind: What its type contains. A "word" is text of a limited length, at most `MAX_WORD_LENGTH` characters; a
            "list" is an array or JSON arrays, a "map" is JSON maps of numbers, and "json" is JSON that was not sampled.
        references: The table that its foreign key refers to; "" if it has none.
        refers_to: The column of that table.
        scale: The observed numbers of a map.
    """

    name: str
    kind: ColumnKind
    references: str = ""
    refers_to: str = ""
    scale: "Scale | None" = None


class ReflectedTable(NamedTuple):
    """Describe a table or view.

    Attributes:
        name: Its name.
        columns: Its columns, in their order.
        key: The columns of its primary key; empty for a view.
        db_schema: The schema that contains it; None for the default schema.
    """

    name: str
    columns: tuple[ReflectedColumn, ...]
    key: tuple[str, ...] = ()
    db_schema: str | None = None

    @property
    def full_name(self) -> str:
        """The name with that of the schema, as declarations have it."""
        return f"{self.db_schema}.{self.name}" if self.db_schema else self.name

    def is_referred_to(self, column: ReflectedColumn) -> bool:
        """Return whether a column refers to the primary key of this table, so that both can be joined by it."""
        return column.references == self.name and self.key == (column.refers_to,)


class Scale(NamedTuple):
    """Describe the values of a rating, nulls left out.

    Attributes:
        min: The smallest value; None if there are no values.
        max: The largest value.
        step: The distance of two values: 1 or 0.5; None if it is another one.
    """

    min: float | None
    max: float | None
    step: float | None = 1


MAX_WORD_LENGTH = 40
"""Characters: longer texts, and those without a limit, may be sentences that a person wrote."""


def reflect_tables(source: DatabaseConnection) -> list[ReflectedTable]:
    """Return the tables and views of a schema with the columns that the user may read, in the order of their names.

    Raw files are one table. DuckDB's catalogue is read, since its driver reflects no columns.
    """
    if source.dialect == "duckdb":
        return _reflect_duckdb(source)
    inspector, db_schema = sa.inspect(source.connection), source.db_schema
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # about types that SQLAlchemy does not know
        try:
            names = sorted({*inspector.get_table_names(db_schema), *inspector.get_view_names(db_schema)})
            reflected = [_reflect_table(inspector, name, db_schema) for name in names]
        except SQLAlchemyError as error:
            raise build_query_error(get_query_reason(error)) from None
    return _select_readable(source, reflected) if source.dialect == "postgresql" else reflected


def _select_readable(source: DatabaseConnection, reflected: Iterable[ReflectedTable]) -> list[ReflectedTable]:
    """Leave out what the user may not read: only PostgreSQL lists it."""
    db_schema = quote_text(source.db_schema) if source.db_schema else "current_schema()"
    rows = fetch_rows(
        source,
        "SELECT relname, attname FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid "  # noqa: S608  quoted
        f"WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {db_schema}) AND attnum > 0 "
        "AND NOT attisdropped AND has_column_privilege(c.oid, attnum, 'SELECT')",
    )
    readable = {*map(tuple, rows)}
    visible = (
        table._replace(columns=tuple(own for own in table.columns if (table.name, own.name) in readable))
        for table in reflected
    )
    return [table for table in visible if table.columns]


def _reflect_table(inspector: sa.Inspector, name: str, db_schema: str | None) -> ReflectedTable:
    references = {
        key["constrained_columns"][0]: (str(key["referred_table"]), str(key["referred_columns"][0]))
        for key in inspector.get_foreign_keys(name, schema=db_schema)
        if len(key["constrained_columns"]) == 1
    }
    columns = tuple(
        ReflectedColumn(str(column["name"]), find_kind(column["type"]), *references.get(column["name"], ()))
        for column in inspector.get_columns(name, schema=db_schema)
    )
    key = inspector.get_pk_constraint(name, schema=db_schema)["constrained_columns"]
    return ReflectedTable(name, columns, tuple(key), db_schema)


def _reflect_duckdb(source: DatabaseConnection) -> list[ReflectedTable]:
    db_schema = quote_text(source.db_schema) if source.db_schema else "current_schema()"
    columns = fetch_rows(
        source,
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal AND database_name = "  # noqa: S608  quoted
        f"current_database() AND schema_name = {db_schema} ORDER BY table_name, column_index",
    )
    constraints = fetch_rows(
        source,
        "SELECT table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names "  # noqa: S608  quoted
        "FROM duckdb_constraints() "
        f"WHERE database_name = current_database() AND schema_name = {db_schema}",
    )
    key = {name: tuple(columns) for name, type_, columns, *_ in constraints if type_ == "PRIMARY KEY"}
    references = {
        (name, columns[0]): (other, others[0])
        for name, type_, columns, other, others in constraints
        if type_ == "FOREIGN KEY" and len(columns) == 1
    }
    reflected: dict[str, list[ReflectedColumn]] = {}
    for table, name, type_ in columns:
        column = ReflectedColumn(name, find_duckdb_kind(type_), *references.get((table, name), ()))
        reflected.setdefault(table, []).append(column)
    return [ReflectedTable(name, tuple(own), key.get(name, ()), source.db_schema) for name, own in reflected.items()]


def find_duckdb_kind(type_: str) -> ColumnKind:
    """Return what a type of DuckDB contains.

    >>> [find_duckdb_kind(type_) for type_ in ("VARCHAR[]", "DECIMAL(3,1)", "ENUM('a', 'b')", "TIMESTAMP_NS")]
    ['list', 'number', 'word', 'time']
    """
    return next((kind for pattern, kind in _DUCKDB_KINDS.items() if re.fullmatch(pattern, type_)), "other")


def find_kind(type_: Any) -> ColumnKind:
    """Return what a type of SQLAlchemy contains.

    >>> find_kind(sa.String(20)), find_kind(sa.Text()), find_kind(mysql.TINYINT(display_width=1))
    ('word', 'text', 'boolean')
    >>> [find_kind(type_) for type_ in (sa.Numeric(), sa.REAL(), sa.DOUBLE_PRECISION(), mysql.DOUBLE(), sa.FLOAT())]
    ['number', 'number', 'number', 'number', 'number']
    """
    if isinstance(type_, sa.Boolean) or (isinstance(type_, mysql.TINYINT) and type_.display_width == 1):
        return "boolean"
    if isinstance(type_, sa.String) and not isinstance(type_, sa.Enum):
        return "word" if (type_.length or MAX_WORD_LENGTH + 1) <= MAX_WORD_LENGTH else "text"
    kinds: list[tuple[type[Any], ColumnKind]] = [
        (sa.Enum, "word"),
        (sa.Uuid, "uuid"),
        (sa.Integer, "integer"),
        (sa.Numeric, "number"),
        (sa.Float, "number"),
        (sa.DateTime, "time"),
        (sa.Date, "date"),
        (sa.JSON, "json"),
        (postgresql.ARRAY, "list"),
    ]
    return next((kind for class_, kind in kinds if isinstance(type_, class_)), "other")


def fetch_scales(source: DatabaseConnection, table: ReflectedTable, names: Iterable[str]) -> dict[str, Scale]:
    """Return the scale of each of several numeric columns, from the first rows of a table.

    Raises:
        SourceError: The database stopped the query.
    """
    names = list(names)
    if not names:
        return {}
    rows = sa.table(table.name, *map(sa.column, names), schema=table.db_schema)
    sample = sa.select(*rows.columns).limit(sa.literal_column(str(SAMPLE_ROWS))).subquery("sample")
    measures: list[sa.ColumnElement[Any]] = []
    for name in names:
        value: sa.ColumnElement[Any] = sample.c[name]
        if source.has_files:
            value = sa.func.text_to_number(sa.cast(value, sa.Text), sa.literal(name))
        twice = value * sa.literal_column("2")
        measures += [sa.func.min(value), sa.func.max(value)]
        measures += [sa.func.max(sa.func.abs(number - sa.func.round(number))) for number in (value, twice)]
    dialect = tables.DIALECTS["postgresql" if source.dialect == "duckdb" else source.dialect]
    labelled = [measure.label(f"m{number}") for number, measure in enumerate(measures)]
    statement = sa.select(*labelled).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    (values,) = fetch_rows(source, statement.string)
    return {name: _to_scale(*values[4 * number : 4 * number + 4]) for number, name in enumerate(names)}


def _to_scale(lowest: Any, highest: Any, fraction: Any, fraction_of_twice: Any) -> Scale:
    if not all(isinstance(value, int | float) or hasattr(value, "as_tuple") for value in (lowest, highest)):
        return Scale(None, None)
    step = 1 if not fraction else 0.5 if not fraction_of_twice else None
    return Scale(float(lowest), float(highest), step)
