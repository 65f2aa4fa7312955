"""Find the columns of users or profiles that record consent, and turn them into a condition.

In an opt-in column only true permits the use of feedback; in an opt-out column anything but false or null prohibits it.
If a user has several rows, or there are several columns, one refusal is sufficient. A user whose row is hidden by
row-level security has not consented.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from feedback_etl.database.column_types import reflect_columns
from feedback_etl.errors import SourceError
from feedback_etl.schema.model import IMAGE_OPT_IN

_USER_ID_COLUMNS = {"users": "id", "profiles": "user_id"}
"""The tables that may record consent, with the column that identifies the user."""


class ConsentColumnNames(NamedTuple):
    """Name the columns that record consent, in either table."""

    opt_in: str = "training_data_opt_in"
    opt_out: str = "training_data_opt_out"


class ConsentColumn(NamedTuple):
    """Describe a column that records consent.

    Attributes:
        table: "users" or "profiles".
        column: Its name.
        type: SQLAlchemy's type.
        is_opt_in: Whether it records who opted in, not who opted out.
        is_partial: Whether row-level security hides rows of the table, which may be of users who opted out.
    """

    table: str
    column: str
    type: Any
    is_opt_in: bool
    is_partial: bool = False

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


def find_consent_columns(
    inspector: sa.Inspector,
    db_schema: str | None,
    names: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008  immutable
) -> list[ConsentColumn]:
    """Return the columns that exist.

    Raises:
        SourceError: A column is neither boolean nor a number, or one with a custom name does not exist.
    """
    columns = _find_columns(inspector, db_schema, names)
    existing = {column.column.lower() for column in columns}
    for name, default in zip(names, ConsentColumnNames(), strict=True):
        if name != default and name.lower() not in existing:
            raise SourceError(f"Neither users nor profiles has the column {name}, which is to record consent.")
    return columns


def find_image_consent_columns(inspector: sa.Inspector, db_schema: str | None) -> list[ConsentColumn]:
    """Return the columns that record consent to the use of images.

    Raises:
        SourceError: There is none, or one is neither boolean nor a number.
    """
    columns = _find_columns(inspector, db_schema, ConsentColumnNames(opt_in=IMAGE_OPT_IN, opt_out=""))
    if not columns:
        raise SourceError(
            f"Neither users nor profiles has the column {IMAGE_OPT_IN}, so no user has consented to the use of images. "
            "Omit --include-image-urls."
        )
    return columns


def _find_columns(inspector: sa.Inspector, db_schema: str | None, names: ConsentColumnNames) -> list[ConsentColumn]:
    columns = [
        ConsentColumn(table, name, type_, name.lower() == names.opt_in.lower())
        for table in _USER_ID_COLUMNS
        if inspector.has_table(table, schema=db_schema)
        for name, type_ in reflect_columns(inspector, table, db_schema).items()
        if name.lower() in (names.opt_in.lower(), names.opt_out.lower())
    ]
    for column in columns:
        if inspector.dialect.name != "sqlite" and not isinstance(column.type, sa.Boolean | sa.Integer | mysql.BIT):
            raise SourceError(f"{column} records consent, and is {column.type}; expected boolean.")
    return columns


def consent_condition(
    feedback: sa.FromClause, columns: Sequence[ConsentColumn], db_schema: str | None
) -> sa.ColumnElement[bool]:
    """Return whether the user of a feedback has consented; never null."""
    conditions = []
    for number, column in enumerate(columns):
        user_id = _USER_ID_COLUMNS[column.table]
        table = sa.table(column.table, sa.column(user_id), sa.column(column.column), schema=db_schema)
        rows = table.alias(f"c{number}")
        has_row = sa.exists().where(rows.c[user_id] == feedback.c.user_id).correlate(feedback)
        value, is_boolean = rows.c[column.column], isinstance(column.type, sa.Boolean)
        true, false = (sa.true(), sa.false()) if is_boolean else (sa.literal_column("1"), sa.literal_column("0"))
        if column.is_opt_in:
            conditions += [has_row, ~has_row.where(sa.or_(value.is_(None), value != true))]
        else:
            conditions += [has_row] if column.is_partial else []
            conditions.append(~has_row.where(sa.func.coalesce(value, false) != false))
    return sa.and_(*conditions)
