"""Require that frames have the columns of a schema; messages name columns but no values."""

from collections.abc import Iterable, Mapping

import polars as pl

from feedback_etl.errors import ValidationError
from feedback_etl.plurals import pluralize
from feedback_etl.schema.classic import CLASSIC_SCHEMA, is_classic
from feedback_etl.schema.column_types import COLUMN_TYPES, ColumnType
from feedback_etl.schema.model import EXPORT_DATE, IMAGE_URL, PSEUDONYM, RESERVED, SUBJECT_HASH, TIME, FeedbackSchema

_PAIR_TIME = COLUMN_TYPES["time"]._replace(
    expected="times, as `scan_training` returns them; parse text with "
    'pd.to_datetime(..., format="ISO8601", utc=True) or, in Polars, str.to_datetime'
)
_TEXT = ColumnType(pl.String(), "text or categories", lambda dtype: dtype in (pl.String, pl.Categorical, pl.Enum))
_RATING = ColumnType(pl.Int8(), "booleans or numbers", lambda dtype: dtype.is_numeric() or dtype == pl.Boolean)
_LIST = ColumnType(pl.List(pl.String), "lists of texts", lambda dtype: dtype in (pl.List(pl.String), pl.String))

KNOWN = frozenset(
    {*RESERVED, *CLASSIC_SCHEMA.raw_columns, *CLASSIC_SCHEMA.training_columns, IMAGE_URL.name, SUBJECT_HASH.name}
)
"""The column names that this package defines; any other may be personal data and must not appear in messages."""


def summarize_names(names: Iterable[str]) -> str:
    """Summarize column names for a message: list those that this package defines, and count the others.

    The other names must not be shown: those of a file without a header are the values of its first row.

    >>> summarize_names(["age_range", "name", "1993"])
    'age_range and 2 others'
    >>> summarize_names(["name"])
    '1 other'
    """
    names = list(names)
    defined = [name for name in names if name in KNOWN]
    others = len(names) - len(defined)
    count = [pluralize(others, "other")] if others else []
    return " and ".join([*([", ".join(defined)] if defined else []), *count]) or "none"


def require_raw(frame: pl.DataFrame | pl.LazyFrame, schema: FeedbackSchema = CLASSIC_SCHEMA) -> None:
    """Raise if a frame does not have the raw columns with their types; the dtype Null is always accepted.

    Raises:
        ValidationError: Columns are missing or of a wrong type; the message lists them.
    """
    _require_types(frame, {name: COLUMN_TYPES[type_] for name, type_ in schema.raw_types.items()}, "raw")


def require_pairs(
    frame: pl.DataFrame | pl.LazyFrame,
    names: Iterable[str],
    *,
    times: Iterable[str] = (),
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> None:
    """Raise if a frame does not have these columns of training pairs and these columns of times.

    Raises:
        ValidationError: Columns are missing or of a wrong type; the message lists them.
    """
    types = {
        **dict.fromkeys(schema.rating_names, _RATING),
        **{column.name: _TEXT if column.is_joined else _LIST for column in schema.lists},
        **dict.fromkeys((TIME, EXPORT_DATE), _PAIR_TIME),
    }
    required = {name: types.get(name, _TEXT) for name in names} | dict.fromkeys(times, _PAIR_TIME)
    advice = " `anonymize` creates them from raw feedback."
    if is_classic(schema) and PSEUDONYM in frame.collect_schema():
        advice = " If they are of another schema, pass `schema=open_dataset(folder).schema`."
    _require_types(frame, required, "training", advice)


def _require_types(
    frame: pl.DataFrame | pl.LazyFrame, types: Mapping[str, ColumnType], kind: str, advice: str = ""
) -> None:
    columns = frame.collect_schema()
    if missing := [name for name in types if name not in columns]:
        raise ValidationError(f"The frame lacks the {kind} columns {', '.join(missing)}.{advice}")
    wrong = [
        f"{name} is {columns[name]}, expected {column_type.expected}"
        for name, column_type in types.items()
        if columns[name] != pl.Null and not column_type.accepts(columns[name])
    ]
    if wrong:
        raise ValidationError(f"{kind.capitalize()} columns of a wrong type: {'; '.join(wrong)}.")
