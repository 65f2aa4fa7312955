"""Types and roles of columns, and the declaration of a single column."""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import polars as pl

Role = Literal["identifier", "quasi_identifier", "sensitive", "insensitive", "free_text"]
ColumnTypeName = Literal["text", "integer", "number", "boolean", "time"]


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
IDENTIFIER = ColumnType(
    pl.String(),
    "integers or text (floats are not exact; pandas: the dtype Int64)",
    lambda dtype: dtype.is_integer() or dtype == pl.String,
)
COLUMN_TYPES = {
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
}
"""The types of declared columns, by their names in settings."""

DATE = ColumnType(pl.Date(), "dates", lambda dtype: dtype == pl.Date)
"""The type of a date of birth, which no export contains."""


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
    def column_type(self) -> ColumnType:
        """The type of the values; identifiers have one of their own, whatever `type` is."""
        return IDENTIFIER if self.role == "identifier" else COLUMN_TYPES[self.type]


NAME = re.compile("[a-z_][a-z0-9_]*")
"""The form of the names of columns in an export."""
