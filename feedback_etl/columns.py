"""The columns of raw feedback and of a training set: their names, their order, and what a raw one may hold."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import polars as pl

from feedback_etl.errors import UsageError, ValidationError

RATINGS = {
    "helpful_rating": (1, 5),
    "product_satisfaction": (1, 5),
    "routine_completion_pct": (0, 100),
}
"""The numeric ratings with the least and the greatest value allowed."""

RATING_FIELDS = (*RATINGS, "would_recommend")
LIST_COLUMNS = {"conditions_analyzed": "conditions_not_a_list", "rules_applied": "rules_not_a_list"}
"""The columns that hold a JSON array of strings, with the reason given where one does not."""


class Kind(NamedTuple):
    """What a column may be: in words, and whether a dtype is such."""

    expected: str
    fits: Callable[[pl.DataType], bool]


_ID = Kind(
    "integers or text (floats are not exact; pandas: the dtype Int64)",
    lambda dtype: dtype.is_integer() or dtype == pl.String,
)
_NUMBER = Kind("numbers", lambda dtype: dtype.is_numeric())
_TRUTH = Kind("booleans or 0 and 1", lambda dtype: dtype.is_integer() or dtype == pl.Boolean)
_TEXT = Kind("text", lambda dtype: dtype == pl.String)
_TIME = Kind("times", lambda dtype: dtype == pl.Datetime)
_PAIR_TIME = _TIME._replace(
    expected="times, as `scan_training` gives them; "
    'of texts pd.to_datetime(..., format="ISO8601", utc=True) or, in Polars, str.to_datetime makes some'
)
_LABEL = Kind("text or categories", lambda dtype: dtype in (pl.String, pl.Categorical, pl.Enum))
_ANSWER = Kind("booleans or numbers", lambda dtype: dtype.is_numeric() or dtype == pl.Boolean)

_RAW_KINDS = {
    **dict.fromkeys(("feedback_id", "user_id", "analysis_id", "recommendation_id"), _ID),
    **dict.fromkeys(RATINGS, _NUMBER),
    "would_recommend": _TRUTH,
    **dict.fromkeys((*LIST_COLUMNS, "timeframe"), _TEXT),
    "age": _NUMBER,
    "created_at": _TIME,
}
_PAIR_KINDS = dict.fromkeys(RATING_FIELDS, _ANSWER) | dict.fromkeys(("feedback_timestamp", "export_date"), _PAIR_TIME)

RAW_COLUMNS = tuple(_RAW_KINDS)
"""The canonical raw columns: what a `--query` has to yield, and what `split_valid` and `anonymize` take."""


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
"""The columns of an export in their order; `schema.TrainingPair` says what they hold."""

CONSENT, IMAGE_OPT_IN = "consent", "image_opt_in"
"""Raw columns that tell what users agreed to, where a query or a table has them; they are in no export."""

Role = Literal["identifier", "quasi_identifier", "sensitive", "insensitive"]
ColumnType = Literal["text", "integer", "number", "boolean", "time"]


class ExtraColumn(NamedTuple):
    """A column that follows the twelve, since somebody asked for it.

    Attributes:
        name: In the export, and in the raw rows.
        role: "identifier" is pseudonymised, "quasi_identifier" counts for k; the others are exported as they are.
        type: What it holds.
    """

    name: str
    role: Role = "insensitive"
    type: ColumnType = "text"


IMAGE_URL = ExtraColumn("image_url")
"""photos.s3_key, where the user has opted in, and where it holds no id of the row."""

SUBJECT_HASH = ExtraColumn("subject_hash", "identifier")
"""The pseudonym of the user, under a domain of its own: it equals no pseudonym of an analysis."""


def raw_extra_columns(extra_columns: Sequence[ExtraColumn]) -> tuple[ExtraColumn, ...]:
    """The further columns that raw rows have to have; the pseudonym of the user is made of `user_id`."""
    return tuple(column for column in extra_columns if column != SUBJECT_HASH)


def all_quasi_identifiers(names: Sequence[str], extra_columns: Sequence[ExtraColumn]) -> tuple[str, ...]:
    """Return the named quasi-identifiers, and the extra_columns columns that are declared as such."""
    declared = (column.name for column in extra_columns if column.role == "quasi_identifier")
    return tuple(dict.fromkeys((*names, *declared)))


_RESERVED = {*RAW_COLUMNS, *TRAINING_COLUMNS, CONSENT, IMAGE_OPT_IN}
KNOWN = frozenset({*_RESERVED, IMAGE_URL.name, SUBJECT_HASH.name})
"""The names of columns that this package knows; any other can be somebody's value, and must not appear in messages."""

_NAME = re.compile("[a-z_][a-z0-9_]*")


def require_names(extra_columns: Sequence[ExtraColumn]) -> None:
    """Refuse names of further columns that cannot be.

    Raises:
        UsageError: One is taken, comes twice, or is not of lower-case letters, digits and underscores.
    """
    names = [each.name for each in extra_columns]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError("A further column is named with lower-case letters, digits and underscores.")
        if name in _RESERVED or names.count(name) > 1:
            raise UsageError(f"A further column cannot be called {name}: that name is taken.")


def training_columns(extra_columns: Sequence[ExtraColumn] = ()) -> list[str]:
    """The columns of an export in their order."""
    return [*TRAINING_COLUMNS, *(column.name for column in extra_columns)]


def summarize_names(names: Iterable[str]) -> str:
    """Names of columns as a message may tell them: those that this package knows, and the number of the others.

    What a frame or a file of somebody else has for names can be a row of a file without a header, or a key.

    >>> summarize_names(["age_range", "somebody", "1993"])
    'age_range and 2 others'
    >>> summarize_names(["somebody"])
    '1 other'
    """
    names = list(names)
    known = [name for name in names if name in KNOWN]
    others = len(names) - len(known)
    told_others = [f"{others:,} other{'' if others == 1 else 's'}"] if others else []
    return " and ".join([*([", ".join(known)] if known else []), *told_others]) or "none"


AGE_EDGES = (18, 25, 35, 50)
"""The ages at which a new age range begins, unless others are given."""

QUASI_IDENTIFIERS = ("age_range", "conditions_detected", "timeframe")
"""What somebody who knows a person may know of them too, unless the settings name other columns."""


_EXTRA_KINDS: dict[ColumnType, Kind] = {
    "text": _TEXT,
    "integer": Kind("integers", lambda dtype: dtype.is_integer()),
    "number": _NUMBER,
    "boolean": _TRUTH,
    "time": _TIME,
}


def require_raw(frame: pl.DataFrame | pl.LazyFrame, extra_columns: Sequence[ExtraColumn] = ()) -> None:
    """Refuse a frame that cannot hold raw feedback; a column without a type, since all of it is null, fits anywhere.

    Raises:
        ValidationError: Columns are missing or of a wrong type; the message names each.
    """
    further = {
        each.name: _ID if each.role == "identifier" else _EXTRA_KINDS[each.type]
        for each in raw_extra_columns(extra_columns)
    }
    _require(frame, _RAW_KINDS | further, "raw")


def require_pairs(frame: pl.DataFrame | pl.LazyFrame, names: Iterable[str], *, times: Iterable[str] = ()) -> None:
    """Refuse a frame that cannot hold these columns of training pairs, and these further ones of times.

    Raises:
        ValidationError: Columns are missing or of a wrong type; the message names each.
    """
    kinds = {name: _PAIR_KINDS.get(name, _LABEL) for name in names}
    _require(frame, kinds | dict.fromkeys(times, _PAIR_TIME), "training", " `anonymize` makes them of raw feedback.")


def _require(frame: pl.DataFrame | pl.LazyFrame, kinds: Mapping[str, Kind], what: str, advice: str = "") -> None:
    schema = frame.collect_schema()
    if missing := [name for name in kinds if name not in schema]:
        raise ValidationError(f"The frame lacks the {what} columns {', '.join(missing)}.{advice}")
    wrong = [
        f"{name} is {schema[name]}, expected {kind.expected}"
        for name, kind in kinds.items()
        if schema[name] != pl.Null and not kind.fits(schema[name])
    ]
    if wrong:
        raise ValidationError(f"{what.capitalize()} columns of a wrong type: {'; '.join(wrong)}.")
