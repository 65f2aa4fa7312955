"""Types and roles of columns, and the declaration of a single column."""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import polars as pl

Role = Literal["identifier", "quasi_identifier", "sensitive", "insensitive", "free_text"]
ColumnTypeName = Literal["text", "integer", "number", "boolean", "time"]
RawTypeName = ColumnTypeName | Literal["identifier", "list", "date"]


class ColumnType(NamedTuple):
    """Type of the values of a column.

    Attributes:
        dtype: The dtype in a training set.
        expected: Description of the dtypes that raw columns may have, for messages.
        accepts: Function that returns whether a raw column may have a dtype.
        faults: Maps each reason for rejection, with "{}" for the name of the column, to a function that returns an
            expression that is true for invalid raw values.
    """

    dtype: pl.DataType
    expected: str
    accepts: Callable[[pl.DataType], bool]
    faults: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {}


UTC_TIME = pl.Datetime("us", "UTC")
COLUMN_TYPES: dict[RawTypeName, ColumnType] = {
    "identifier": ColumnType(
        pl.String(),
        "integers or text (floats are not exact; pandas: the dtype Int64)",
        lambda dtype: dtype.is_integer() or dtype == pl.String,
    ),
    "text": ColumnType(pl.String(), "text", lambda dtype: dtype == pl.String),
    "integer": ColumnType(
        pl.Int64(),
        "integers",
        lambda dtype: dtype.is_integer(),
        {"{}_out_of_range": lambda value: value.cast(pl.Int64, strict=False).is_null() & value.is_not_null()},
    ),
    "number": ColumnType(
        pl.Float64(),
        "numbers",
        lambda dtype: dtype.is_numeric(),
        {"{}_not_finite": lambda value: ~value.cast(pl.Float64).is_finite()},
    ),
    "boolean": ColumnType(
        pl.Boolean(),
        "booleans or 0 and 1",
        lambda dtype: dtype.is_integer() or dtype == pl.Boolean,
        {"{}_not_boolean": lambda value: ~value.cast(pl.Float64).is_between(0, 1)},
    ),
    "time": ColumnType(UTC_TIME, "times", lambda dtype: dtype == pl.Datetime),
    "list": ColumnType(pl.String(), "text", lambda dtype: dtype == pl.String),
    "date": ColumnType(pl.Date(), "dates", lambda dtype: dtype == pl.Date),
}
"""The types of raw columns, by their names in settings; a list is JSON text, and a date is one of birth."""


class ExtraColumn(NamedTuple):
    """A declared column that is exported unchanged, or pseudonymised.

    Attributes:
        name: Name in the export and in the raw rows.
        role: An "identifier" is pseudonymised, a "quasi_identifier" is one for k-anonymity; columns of the other roles
            are exported unchanged. Text that people wrote is refused unless the role is "free_text".
        type: Type of the values.
    """

    name: str
    role: Role = "insensitive"
    type: ColumnTypeName = "text"

    @property
    def raw_type(self) -> RawTypeName:
        """The name of the type; identifiers have one of their own for any `type`."""
        return "identifier" if self.role == "identifier" else self.type

    @property
    def column_type(self) -> ColumnType:
        """The type of the values."""
        return COLUMN_TYPES[self.raw_type]


NAME = re.compile("[a-z_][a-z0-9_]*")
"""The form of the names of columns in an export."""
