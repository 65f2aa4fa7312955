"""Columns of raw feedback and of training sets: names, order and types."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.plurals import pluralize

RATINGS = {
    "helpful_rating": (1, 5),
    "product_satisfaction": (1, 5),
    "routine_completion_pct": (0, 100),
}
"""The numeric ratings with their smallest and largest valid value."""

RATING_FIELDS = (*RATINGS, "would_recommend")
LIST_COLUMNS = {"conditions_analyzed": "conditions_not_a_list", "rules_applied": "rules_not_a_list"}
"""The columns that contain a JSON array of strings, each with the reason for rejecting other values."""


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


_UTC_TIME = pl.Datetime("us", "UTC")
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
    "time": ColumnType(_UTC_TIME, "times", lambda dtype: dtype == pl.Datetime),
}
"""The types of extra columns, by their names in settings."""

_PAIR_TIME = COLUMN_TYPES["time"]._replace(
    expected="times, as `scan_training` returns them; parse text with "
    'pd.to_datetime(..., format="ISO8601", utc=True) or, in Polars, str.to_datetime'
)
_LABEL = ColumnType(pl.String(), "text or categories", lambda dtype: dtype in (pl.String, pl.Categorical, pl.Enum))
_ANSWER = ColumnType(pl.Int8(), "booleans or numbers", lambda dtype: dtype.is_numeric() or dtype == pl.Boolean)

_RAW_TYPES = {
    **dict.fromkeys(("feedback_id", "user_id", "analysis_id", "recommendation_id"), IDENTIFIER),
    **dict.fromkeys(RATINGS, COLUMN_TYPES["number"]),
    "would_recommend": COLUMN_TYPES["boolean"],
    **dict.fromkeys((*LIST_COLUMNS, "timeframe"), COLUMN_TYPES["text"]),
    "age": COLUMN_TYPES["number"],
    "created_at": COLUMN_TYPES["time"],
}
_PAIR_TYPES = dict.fromkeys(RATING_FIELDS, _ANSWER) | dict.fromkeys(("feedback_timestamp", "export_date"), _PAIR_TIME)

RAW_COLUMNS = tuple(_RAW_TYPES)
"""The canonical raw columns: a `--query` must return them, and `split_valid` and `anonymize` expect them."""

TRAINING_COLUMNS = (
    "analysis_hash",
    "recommendation_id",
    *RATING_FIELDS,
    "conditions_detected",
    "rules_applied",
    "timeframe",
    "age_range",
    "feedback_timestamp",
    "export_date",
)
"""The columns of an export in their order; `training_schema.TrainingPair` describes their values."""

CONSENT, IMAGE_OPT_IN = "consent", "image_opt_in"
"""Optional raw columns that record consent; no export contains them."""

Role = Literal["identifier", "quasi_identifier", "sensitive", "insensitive", "free_text"]
ColumnTypeName = Literal["text", "integer", "number", "boolean", "time"]


class ExtraColumn(NamedTuple):
    """A requested column, which follows the twelve training columns.

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


IMAGE_URL = ExtraColumn("image_url")
"""The value of photos.s3_key, if the user has opted in and it contains no id of the row."""

SUBJECT_HASH = ExtraColumn("subject_hash", "identifier")
"""The pseudonym of the user; its domain is not that of analyses, so the pseudonyms of equal ids differ."""


def raw_extra_columns(extra_columns: Sequence[ExtraColumn]) -> tuple[ExtraColumn, ...]:
    """Return the extra columns that raw rows must have; the pseudonym of the user is derived from `user_id`."""
    return tuple(column for column in extra_columns if column != SUBJECT_HASH)


def add_cursor(extra_columns: Sequence[ExtraColumn], cursor: str) -> tuple[ExtraColumn, ...]:
    """Return extra columns and the cursor of an incremental series, unless that is one of them or `created_at`."""
    is_read = cursor in {*RAW_COLUMNS, *(column.name for column in extra_columns)}
    return tuple(extra_columns) if is_read else (*extra_columns, ExtraColumn(cursor, type="time"))


def all_quasi_identifiers(names: Sequence[str], extra_columns: Sequence[ExtraColumn]) -> tuple[str, ...]:
    """Return these quasi-identifiers and the extra columns that are declared as quasi-identifiers."""
    declared = (column.name for column in extra_columns if column.role == "quasi_identifier")
    return tuple(dict.fromkeys((*names, *declared)))


_RESERVED = {*RAW_COLUMNS, *TRAINING_COLUMNS, CONSENT, IMAGE_OPT_IN}
KNOWN = frozenset({*_RESERVED, IMAGE_URL.name, SUBJECT_HASH.name})
"""The column names that this package defines; any other may be personal data and must not appear in messages."""

_NAME = re.compile("[a-z_][a-z0-9_]*")


def require_declarations(extra_columns: Sequence[ExtraColumn]) -> None:
    """Raise if the declarations of extra columns are invalid.

    Raises:
        UsageError: A name is reserved, appears twice, or does not consist of lower-case letters, digits and
            underscores; or a column of the role "free_text" has another type than text.
    """
    if wrong := [column.name for column in extra_columns if column.role == "free_text" and column.type != "text"]:
        raise UsageError(f'The role "free_text" is for columns of the type "text", not for {", ".join(wrong)}.')
    names = [column.name for column in extra_columns]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError("Names of extra columns consist of lower-case letters, digits and underscores.")
        if name in _RESERVED or names.count(name) > 1:
            raise UsageError(f"An extra column cannot be called {name}: that name is reserved or used twice.")


def training_columns(extra_columns: Sequence[ExtraColumn] = ()) -> list[str]:
    """Return the columns of an export in their order."""
    return [*TRAINING_COLUMNS, *(column.name for column in extra_columns)]


def summarize_names(names: Iterable[str]) -> str:
    """Summarize column names for a message: list those that this package defines, and count the others.

    The other names must not be shown: those of a file without a header are the values of its first row.

    >>> summarize_names(["age_range", "name", "1993"])
    'age_range and 2 others'
    >>> summarize_names(["name"])
    '1 other'
    """
    names = list(names)
    known = [name for name in names if name in KNOWN]
    others = len(names) - len(known)
    count = [pluralize(others, "other")] if others else []
    return " and ".join([*([", ".join(known)] if known else []), *count]) or "none"


AGE_EDGES = (18, 25, 35, 50)
"""The default ages at which a new age range begins."""

QUASI_IDENTIFIERS = ("age_range", "conditions_detected", "timeframe")
"""The default quasi-identifiers: columns that an attacker may know about a person."""


def require_raw(frame: pl.DataFrame | pl.LazyFrame, extra_columns: Sequence[ExtraColumn] = ()) -> None:
    """Raise if a frame does not have the raw columns with their types; the dtype Null is always accepted.

    Raises:
        ValidationError: Columns are missing or of a wrong type; the message lists them.
    """
    _require_types(
        frame, _RAW_TYPES | {column.name: column.column_type for column in raw_extra_columns(extra_columns)}, "raw"
    )


def require_pairs(frame: pl.DataFrame | pl.LazyFrame, names: Iterable[str], *, times: Iterable[str] = ()) -> None:
    """Raise if a frame does not have these columns of training pairs and these columns of times.

    Raises:
        ValidationError: Columns are missing or of a wrong type; the message lists them.
    """
    types = {name: _PAIR_TYPES.get(name, _LABEL) for name in names}
    _require_types(
        frame, types | dict.fromkeys(times, _PAIR_TIME), "training", " `anonymize` creates them from raw feedback."
    )


def _require_types(
    frame: pl.DataFrame | pl.LazyFrame, types: Mapping[str, ColumnType], kind: str, advice: str = ""
) -> None:
    schema = frame.collect_schema()
    if missing := [name for name in types if name not in schema]:
        raise ValidationError(f"The frame lacks the {kind} columns {', '.join(missing)}.{advice}")
    wrong = [
        f"{name} is {schema[name]}, expected {column_type.expected}"
        for name, column_type in types.items()
        if schema[name] != pl.Null and not column_type.accepts(schema[name])
    ]
    if wrong:
        raise ValidationError(f"{kind.capitalize()} columns of a wrong type: {'; '.join(wrong)}.")
