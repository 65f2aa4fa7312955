"""Cast what drivers return to the canonical raw columns."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.columns import CONSENT, IMAGE_OPT_IN, LIST_COLUMNS, RATINGS, RAW_COLUMNS, ColumnTypeName, ExtraColumn
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError
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
"""The value that SQLite returns for a `would_recommend` that is null."""

AFTER_EVERY_WINDOW = datetime.max
"""The value that a database returns for a `created_at` that no driver can read: no row that is read has that time."""


def to_raw(frame: pl.DataFrame, extra: Sequence[ExtraColumn] = ()) -> pl.DataFrame:
    """Cast a driver's frame to the raw columns and extra ones, in their order.

    Ids stay integers or text. Ratings and ages become Int64, or Float64 if the source contains fractions: such a
    rating is rejected later, never cast. `would_recommend` is Boolean, or Int64 if it contains numbers other than 0
    and 1. Times become naive UTC in microseconds; one that cannot be read becomes `timestamps.UNREADABLE`.

    Raises:
        SourceError: Columns have a wrong type; the message names each.
    """
    problems = []
    columns = []
    known = raw_types(extra)
    for name in (*RAW_COLUMNS, *(column.name for column in extra)):
        kind, dtype = known[name], frame.schema[name]
        # If there is no value, the type of the driver's column has no meaning.
        cast = kind.cast(dtype) or (kind.cast(pl.Null()) if frame[name].null_count() == frame.height else None)
        if cast is None:
            problems.append(f"{name} is {_describe_dtype(dtype)}, expected {kind.expected}")
        else:
            columns.append(cast(pl.col(name)).alias(name))
    if problems:
        raise SourceError(f"Columns of a wrong type: {'; '.join(problems)}.")
    raw = frame.select(columns).with_columns(_unreadable_times(frame, extra))
    answers = ["would_recommend", *(column.name for column in extra if column.type == "boolean")]
    return raw.with_columns(pl.col(name).cast(pl.Boolean) for name in answers if raw[name].is_between(0, 1).all())


def filter_window(frame: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Return the rows of a raw frame that are in the window, for sources whose SQL compares times as text."""
    time, unreadable = pl.col("created_at"), is_unreadable("created_at")
    if window.start is None:
        return frame.filter(time.is_null() | (time < window.end) | unreadable)
    return frame.filter(time.is_between(window.start, window.end, closed="left") | unreadable)


def unreadable_flag(name: str) -> str:
    """Return the name of the column that is true where the database has a time that no driver can read."""
    return f"{name} is unreadable"


def _unreadable_times(frame: pl.DataFrame, extra: Sequence[ExtraColumn]) -> list[pl.Expr]:
    """Mark the times that the SQL replaced since drivers cannot read them."""
    marked = [
        pl.when(frame[unreadable_flag(name)].cast(pl.Boolean)).then(UNREADABLE).otherwise(pl.col(name)).alias(name)
        for name in (column.name for column in extra)
        if unreadable_flag(name) in frame.columns
    ]
    if frame.schema["created_at"] != pl.String:
        time = pl.col("created_at")
        marked.append(pl.when(time == AFTER_EVERY_WINDOW).then(UNREADABLE).otherwise(time).alias("created_at"))
    return marked


Cast = Callable[[pl.Expr], pl.Expr]

_LARGER_INTEGERS = (pl.UInt64, pl.Int128, pl.UInt128)
"""Types that may exceed Int64: MySQL's BIGINT UNSIGNED, DuckDB's UBIGINT."""


def _same(column: pl.Expr) -> pl.Expr:
    return column


def _id(dtype: pl.DataType) -> Cast | None:
    if dtype == pl.Null:
        return lambda column: column.cast(pl.Int64)
    if dtype == pl.String:
        return lambda column: column.replace("", None)
    if dtype in _LARGER_INTEGERS:
        return _same
    return (lambda column: column.cast(pl.Int64)) if dtype.is_integer() else None


def _number(dtype: pl.DataType) -> Cast | None:
    if (dtype.is_integer() and dtype not in _LARGER_INTEGERS) or dtype == pl.Null:
        return lambda column: column.cast(pl.Int64)
    return (lambda column: column.cast(pl.Float64)) if dtype.is_numeric() else None


def _integer(dtype: pl.DataType) -> Cast | None:
    if dtype in _LARGER_INTEGERS:  # values that exceed Int64 are rejected later
        return _same
    return (lambda column: column.cast(pl.Int64)) if dtype.is_integer() or dtype == pl.Null else None


def _boolean(dtype: pl.DataType) -> Cast | None:
    if dtype == pl.Boolean:
        return lambda column: column.cast(pl.Int64)
    if dtype in _LARGER_INTEGERS:
        return lambda column: column.cast(pl.Float64).clip(-1, 2).cast(pl.Int64)
    if dtype.is_integer() or dtype == pl.Null:
        return lambda column: column.cast(pl.Int64).replace(NO_ANSWER, None)
    return None


def _text(dtype: pl.DataType) -> Cast | None:
    if dtype not in (pl.String, pl.Null):
        return None
    return lambda column: column.cast(pl.String).replace("", None)


def _time(dtype: pl.DataType) -> Cast | None:
    if dtype == pl.String:
        return _parsed_time
    if isinstance(dtype, pl.Datetime):
        zone = dtype.time_zone
        return lambda column: (column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zone else column).cast(
            TIME
        )
    return (lambda column: column.cast(TIME)) if dtype == pl.Null else None


def _parsed_time(text: pl.Expr) -> pl.Expr:
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
        cast: Return the cast from the dtype of a driver's column; None if the dtype is wrong.
        postgresql: The names of accepted types on PostgreSQL and DuckDB; "unknown" is any user-defined type.
        mysql: The names of accepted types on MySQL and MariaDB.
    """

    expected: str
    cast: Callable[[pl.DataType], Cast | None]
    postgresql: frozenset[str]
    mysql: frozenset[str]


_IDENTIFIER = RawType(
    "an integer, a UUID or text", _id, _INTEGERS | _TEXTS | {"uuid", "unknown"}, _MYSQL_INTEGERS | _MYSQL_TEXTS
)
_NUMERIC = RawType(
    "a number", _number, _INTEGERS | {"float4", "float8", "numeric"}, _MYSQL_INTEGERS | {"decimal", "float", "double"}
)
_TRUTH = RawType("a boolean", _boolean, _INTEGERS | {"bool"}, _MYSQL_INTEGERS | {"bit"})
_LIST = RawType("JSON text", _text, _TEXTS | {"json", "jsonb", "text[]", "varchar[]"}, _MYSQL_TEXTS | {"json"})
_WORD = RawType("text", _text, _TEXTS | {"unknown"}, _MYSQL_TEXTS)
_INSTANT = RawType("a timestamp", _time, frozenset({"timestamp", "timestamptz"}), frozenset({"datetime", "timestamp"}))

_RAW: dict[str, RawType] = {
    **dict.fromkeys(("feedback_id", "user_id", "analysis_id", "recommendation_id"), _IDENTIFIER),
    **dict.fromkeys((*RATINGS, "age"), _NUMERIC),
    "would_recommend": _TRUTH,
    **dict.fromkeys(LIST_COLUMNS, _LIST),
    "timeframe": _WORD,
    "created_at": _INSTANT,
}
_TYPES: dict[ColumnTypeName, RawType] = {
    "text": _WORD,
    "integer": RawType("an integer", _integer, _INTEGERS, _MYSQL_INTEGERS),
    "number": _NUMERIC,
    "boolean": _TRUTH,
    "time": _INSTANT,
}


def raw_types(extra: Sequence[ExtraColumn] = ()) -> dict[str, RawType]:
    """Return the types that each raw column, the consent columns and the extra columns may have."""
    extra_types = {column.name: _IDENTIFIER if column.role == "identifier" else _TYPES[column.type] for column in extra}
    return _RAW | dict.fromkeys((CONSENT, IMAGE_OPT_IN), _TRUTH) | extra_types


def _describe_dtype(dtype: pl.DataType) -> str:
    if dtype == pl.String:
        return "text"
    return "a floating-point number" if dtype.is_float() else str(dtype).lower()
