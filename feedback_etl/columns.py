"""Columns of raw feedback and of training sets: names, order and types."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.plurals import pluralize
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import COLUMN_TYPES as COLUMN_TYPES
from feedback_etl.schema.column_types import IDENTIFIER as IDENTIFIER
from feedback_etl.schema.column_types import NAME, ColumnType
from feedback_etl.schema.column_types import ColumnTypeName as ColumnTypeName
from feedback_etl.schema.column_types import ExtraColumn as ExtraColumn
from feedback_etl.schema.column_types import Role as Role
from feedback_etl.schema.feedback_columns import AGE_EDGES as AGE_EDGES
from feedback_etl.schema.model import CONSENT as CONSENT
from feedback_etl.schema.model import IMAGE_OPT_IN as IMAGE_OPT_IN
from feedback_etl.schema.model import IMAGE_URL as IMAGE_URL
from feedback_etl.schema.model import SUBJECT_HASH as SUBJECT_HASH

RATINGS = {rating.name: (rating.min, rating.max) for rating in CLASSIC_SCHEMA.ratings if rating.type == "number"}
"""The numeric ratings with their smallest and largest valid value."""

RATING_FIELDS = CLASSIC_SCHEMA.rating_names
LIST_COLUMNS = {column.raw_name: column.reason for column in CLASSIC_SCHEMA.lists}
"""The columns that contain a JSON array of strings, each with the reason for rejecting other values."""

_PAIR_TIME = COLUMN_TYPES["time"]._replace(
    expected="times, as `scan_training` returns them; parse text with "
    'pd.to_datetime(..., format="ISO8601", utc=True) or, in Polars, str.to_datetime'
)
_LABEL = ColumnType(pl.String(), "text or categories", lambda dtype: dtype in (pl.String, pl.Categorical, pl.Enum))
_ANSWER = ColumnType(pl.Int8(), "booleans or numbers", lambda dtype: dtype.is_numeric() or dtype == pl.Boolean)

_RAW_TYPES = CLASSIC_SCHEMA.raw_types
_PAIR_TYPES = dict.fromkeys(RATING_FIELDS, _ANSWER) | dict.fromkeys(("feedback_timestamp", "export_date"), _PAIR_TIME)

RAW_COLUMNS = tuple(_RAW_TYPES)
"""The canonical raw columns: a `--query` must return them, and `split_valid` and `anonymize` expect them."""

TRAINING_COLUMNS = CLASSIC_SCHEMA.training_columns
"""The columns of an export in their order; `training_schema.TrainingPair` describes their values."""


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
        if not NAME.fullmatch(name):
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


QUASI_IDENTIFIERS = CLASSIC_SCHEMA.quasi_identifiers
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
