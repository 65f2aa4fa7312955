"""Columns of raw feedback and of training sets: names, order and types."""

from collections.abc import Sequence

from feedback_etl.errors import UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import COLUMN_TYPES as COLUMN_TYPES
from feedback_etl.schema.column_types import IDENTIFIER as IDENTIFIER
from feedback_etl.schema.column_types import NAME
from feedback_etl.schema.column_types import ColumnTypeName as ColumnTypeName
from feedback_etl.schema.column_types import ExtraColumn as ExtraColumn
from feedback_etl.schema.column_types import Role as Role
from feedback_etl.schema.feedback_columns import AGE_EDGES as AGE_EDGES
from feedback_etl.schema.model import CONSENT as CONSENT
from feedback_etl.schema.model import IMAGE_OPT_IN as IMAGE_OPT_IN
from feedback_etl.schema.model import IMAGE_URL as IMAGE_URL
from feedback_etl.schema.model import RESERVED
from feedback_etl.schema.model import SUBJECT_HASH as SUBJECT_HASH
from feedback_etl.schema.requirements import KNOWN as KNOWN
from feedback_etl.schema.requirements import require_pairs as require_pairs
from feedback_etl.schema.requirements import require_raw as require_raw
from feedback_etl.schema.requirements import summarize_names as summarize_names

RATINGS = {rating.name: (rating.min, rating.max) for rating in CLASSIC_SCHEMA.ratings if rating.type == "number"}
"""The numeric ratings with their smallest and largest valid value."""

RATING_FIELDS = CLASSIC_SCHEMA.rating_names
LIST_COLUMNS = {column.raw_name: column.reason for column in CLASSIC_SCHEMA.lists}
"""The columns that contain a JSON array of strings, each with the reason for rejecting other values."""

RAW_COLUMNS = CLASSIC_SCHEMA.raw_columns
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


_RESERVED = {*RESERVED, *RAW_COLUMNS, *TRAINING_COLUMNS}


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


QUASI_IDENTIFIERS = CLASSIC_SCHEMA.quasi_identifiers
"""The default quasi-identifiers: columns that an attacker may know about a person."""
