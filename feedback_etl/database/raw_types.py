"""Cast the columns that drivers return to the canonical raw columns."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import RawTypeName
from feedback_etl.schema.model import CONSENT, IMAGE_OPT_IN, FeedbackSchema
from feedback_etl.transform.timestamps import UNREADABLE, is_unreadable

TIME = pl.Datetime("us")
_NAIVE_FORMAT = "%Y-%m-%d %H:%M:%S%.f"
_BLANKS = " \t\n\x0b\x0c\r"
_ISO_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    rf"(?:[ T][0-9]{{2}}:[0-9]{{2}}:[0-5][0-9](?:\.[0-9]+)?[{_BLANKS}]*"
    rf"(?:[+-](?:0[0-9]|1[0-4])[0-5][0-9]|(?:[Zz]|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?[{_BLANKS}]*))?$"
)
"""The forms that SQLite reads, with seconds; not the others that Polars would parse (single digits, short years)."""

NO_ANSWER = 2**63 - 1
"""The value that SQLite returns for a boolean that is null."""

AFTER_EVERY_WINDOW = datetime.max
"""The value that a database returns for a `created_at` that no driver can read: no row that is read has that time."""


def to_raw(frame: pl.DataFrame, schema: FeedbackSchema = CLASSIC_SCHEMA) -> pl.DataFrame:
    """Cast a driver's frame to the raw columns of a schema, in their order.

    Ids stay integers or text. Ratings and ages become Int64, or Float64 if the source contains fractions: such a
    rating is rejected later, never cast. Answers are Boolean, or Int64 if they contain numbers other than 0
    and 1. Times become naive UTC in microseconds; one that cannot be read becomes `timestamps.UNREADABLE`.

    Raises:
        SourceError: Columns have a wrong type; the message names them.
    """
    problems = []
    columns = []
    types = list_raw_types(schema)
    for name in schema.raw_columns:
        type_, dtype = types[name], frame.schema[name]
        column = type_.cast(pl.col(name), dtype)
        if column is None and frame[name].null_count() == frame.height:  # the type of a column of nulls has no meaning
            column = type_.cast(pl.col(name), pl.Null())
        if column is None:
            problems.append(f"{name} is {_describe_dtype(dtype)}, expected {type_.expected}")
        else:
            columns.append(column.alias(name))
    if problems:
        raise SourceError(f"Columns of a wrong type: {'; '.join(problems)}.")
    raw = frame.select(columns).with_columns(_unreadable_times(frame, schema))
    answers = list_raw_names(schema, "boolean")
    return raw.with_columns(pl.col(name).cast(pl.Boolean) for name in answers if raw[name].is_between(0, 1).all())


def filter_window(frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Return the rows of a raw frame that are in the window, for sources whose SQL compares times as text."""
    time, unreadable = pl.col("created_at"), is_unreadable("created_at")
    if window.start is None:
        return frame.filter(time.is_null() | (time < window.end) | unreadable)
    return frame.filter(time.is_between(window.start, window.end, closed="left") | unreadable)


def name_unreadable_flag(name: str) -> str:
    """Return the name of the column that is true where the database has a time that no driver can read."""
    return f"{name} is unreadable"


def _unreadable_times(frame: pl.DataFrame, schema: FeedbackSchema) -> list[pl.Expr]:
    """Mark the times that the SQL replaced since drivers cannot read them."""
    marked = [
        pl.when(frame[name_unreadable_flag(name)].cast(pl.Boolean)).then(UNREADABLE).otherwise(pl.col(name)).alias(name)
        for name in list_raw_names(schema, "time")
        if name_unreadable_flag(name) in frame.columns
    ]
    if frame.schema["created_at"] != pl.String:
        time = pl.col("created_at")
        marked.append(pl.when(time == AFTER_EVERY_WINDOW).then(UNREADABLE).otherwise(time).alias("created_at"))
    return marked


_LARGER_INTEGERS = (pl.UInt64, pl.Int128, pl.UInt128)
"""Types that may exceed Int64: MySQL's BIGINT UNSIGNED, DuckDB's UBIGINT. Values that do are rejected later."""


def _cast_integer(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype in _LARGER_INTEGERS:
        return column
    return column.cast(pl.Int64) if dtype.is_integer() or dtype == pl.Null else None


def _cast_id(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    return column.replace("", None) if dtype == pl.String else _cast_integer(column, dtype)


def _cast_number(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype.is_numeric() and (dtype in _LARGER_INTEGERS or not dtype.is_integer()):
        return column.cast(pl.Float64)
    return _cast_integer(column, dtype)


def _cast_boolean(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype == pl.Boolean:
        return column.cast(pl.Int64)
    if dtype in _LARGER_INTEGERS:
        return column.cast(pl.Float64).clip(-1, 2).cast(pl.Int64)
    return column.cast(pl.Int64).replace(NO_ANSWER, None) if dtype.is_integer() or dtype == pl.Null else None


def _cast_text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    return column.cast(pl.String).replace("", None) if dtype in (pl.String, pl.Null) else None


def _cast_time(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype == pl.String:
        return _parse_time(column)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(TIME) if isinstance(dtype, pl.Datetime) or dtype == pl.Null else None


def _cast_date(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype == pl.String:
        return column.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    return column.cast(pl.Date) if dtype in (pl.Date, pl.Datetime, pl.Null) else None


def _parse_time(text: pl.Expr) -> pl.Expr:
    """Parse text: `T` or blank, with or without a fraction, with `Z`, an offset or neither (then UTC), or a day."""
    iso = pl.when(text.str.contains(_ISO_TIME)).then(text).str.replace("T", " ", literal=True)
    iso = pl.when(iso.str.len_bytes() == 10).then(iso + " 00:00:00").otherwise(iso.str.strip_chars_end(_BLANKS))
    naive = iso.str.strip_chars_end(f"Zz{_BLANKS}").str.to_datetime(_NAIVE_FORMAT, time_unit="us", strict=False)
    offset = pl.when(iso.str.contains(r"[+-][0-9]{2}:?[0-9]{2}$")).then(iso)
    zoned = offset.str.to_datetime(f"{_NAIVE_FORMAT}%z", time_unit="us", strict=False)
    time = pl.coalesce(naive, zoned.dt.replace_time_zone(None))
    on_calendar = pl.when(time.is_between(datetime.min, datetime.max)).then(time)
    return pl.when(text != "").then(on_calendar.fill_null(UNREADABLE))


_INTEGERS = frozenset({"int2", "int4", "int8"})
_TEXTS = frozenset({"text", "varchar", "bpchar"})
_MYSQL_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_MYSQL_TEXTS = frozenset({"text", "varchar"})


class RawType(NamedTuple):
    """Describe the types that a raw column may have in a database.

    Attributes:
        expected: A description for messages.
        cast: Cast a driver's column of a dtype; None if the dtype is wrong.
        postgresql: The names of accepted types on PostgreSQL and DuckDB; "unknown" is any user-defined type.
        mysql: The names of accepted types on MySQL and MariaDB.
    """

    expected: str
    cast: Callable[[pl.Expr, pl.DataType], pl.Expr | None]
    postgresql: frozenset[str]
    mysql: frozenset[str]


_TIMES, _MYSQL_TIMES = frozenset({"timestamp", "timestamptz"}), frozenset({"datetime", "timestamp"})
_NUMBERS, _MYSQL_NUMBERS = frozenset({"float4", "float8", "numeric"}), frozenset({"decimal", "float", "double"})
_JSON, _MYSQL_JSON = frozenset({"json", "jsonb", "text[]", "varchar[]"}), frozenset({"json"})
_TYPES: dict[RawTypeName, RawType] = {
    "identifier": RawType(
        "an integer, a UUID or text", _cast_id, _INTEGERS | _TEXTS | {"uuid", "unknown"}, _MYSQL_INTEGERS | _MYSQL_TEXTS
    ),
    "text": RawType("text", _cast_text, _TEXTS | {"unknown"}, _MYSQL_TEXTS),
    "integer": RawType("an integer", _cast_integer, _INTEGERS, _MYSQL_INTEGERS),
    "number": RawType("a number", _cast_number, _INTEGERS | _NUMBERS, _MYSQL_INTEGERS | _MYSQL_NUMBERS),
    "boolean": RawType("a boolean", _cast_boolean, _INTEGERS | {"bool"}, _MYSQL_INTEGERS | {"bit"}),
    "time": RawType("a timestamp", _cast_time, _TIMES, _MYSQL_TIMES),
    "list": RawType("JSON text", _cast_text, _TEXTS | _JSON, _MYSQL_TEXTS | _MYSQL_JSON),
    "date": RawType("a date", _cast_date, _TIMES | {"date"}, _MYSQL_TIMES | {"date"}),
}


def list_raw_types(schema: FeedbackSchema = CLASSIC_SCHEMA) -> dict[str, RawType]:
    """Return the types that each raw column and the consent columns may have in a database."""
    types = {name: _TYPES[type_] for name, type_ in schema.raw_types.items()}
    return types | dict.fromkeys((CONSENT, IMAGE_OPT_IN), _TYPES["boolean"])


def list_raw_names(schema: FeedbackSchema, type_: RawTypeName) -> list[str]:
    """Return the raw columns of a type."""
    return [name for name, own in schema.raw_types.items() if own == type_]


def _describe_dtype(dtype: pl.DataType) -> str:
    return "text" if dtype == pl.String else "a floating-point number" if dtype.is_float() else str(dtype).lower()
