"""Consent, as the default tables record it: columns of users or profiles that let feedback in, or keep it out.

Of an opt-in column only true lets in; of an opt-out column anything but false or null keeps out. Where a user has
several rows, or several columns tell, one that refuses is enough. A user whose row is hidden by row-level security has
not consented.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from feedback_etl.columns import IMAGE_OPT_IN
from feedback_etl.database.reflection import reflect_columns
from feedback_etl.errors import SourceError

OPT_IN = "training_data_opt_in"
OPT_OUT = "training_data_opt_out"

_USER_OF = {"users": "id", "profiles": "user_id"}
"""The tables that may record it, with the column that tells whose a row is."""


class ConsentColumnNames(NamedTuple):
    """What the columns are called, on either table."""

    opt_in: str = OPT_IN
    opt_out: str = OPT_OUT


class ConsentColumn(NamedTuple):
    """A column that records consent.

    Attributes:
        table: "users" or "profiles".
        column: Its name.
        type: SQLAlchemy's.
        is_opt_in: Whether it records who opted in, not who opted out.
        is_partial: Whether row-level security hides rows of the table, perhaps of those who opted out.
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
    names: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008
) -> list[ConsentColumn]:
    """The columns that are there.

    Raises:
        SourceError: One is neither boolean nor a number, or one that is not called as usual is nowhere.
    """
    found = _found(inspector, db_schema, names)
    there = {each.column.lower() for each in found}
    for name, usual in zip(names, ConsentColumnNames(), strict=True):
        if name != usual and name.lower() not in there:
            raise SourceError(f"Neither users nor profiles has the column {name}, which is to record consent.")
    return found


def find_image_consent_columns(inspector: sa.Inspector, db_schema: str | None) -> list[ConsentColumn]:
    """The columns that tell whose images may be used.

    Raises:
        SourceError: There is none, or one is neither boolean nor a number.
    """
    found = _found(inspector, db_schema, ConsentColumnNames(opt_in=IMAGE_OPT_IN, opt_out=""))
    if not found:
        raise SourceError(
            f"Neither users nor profiles has the column {IMAGE_OPT_IN}, so that nobody has agreed to their use. "
            "Leave --include-image-urls out."
        )
    return found


def _found(inspector: sa.Inspector, db_schema: str | None, names: ConsentColumnNames) -> list[ConsentColumn]:
    found = [
        ConsentColumn(table, name, type_, name.lower() == names.opt_in.lower())
        for table in _USER_OF
        if inspector.has_table(table, schema=db_schema)
        for name, type_ in reflect_columns(inspector, table, db_schema).items()
        if name.lower() in (names.opt_in.lower(), names.opt_out.lower())
    ]
    for each in found:
        if inspector.dialect.name != "sqlite" and not isinstance(each.type, sa.Boolean | sa.Integer | mysql.BIT):
            raise SourceError(f"{each} records consent, and is {each.type}; expected boolean.")
    return found


def consent_condition(
    feedback: sa.FromClause, recorded: list[ConsentColumn], db_schema: str | None
) -> sa.ColumnElement[bool]:
    """Whether the user of a feedback lets it in; never null."""
    conditions = []
    for number, each in enumerate(recorded):
        user = _USER_OF[each.table]
        rows = sa.table(each.table, sa.column(user), sa.column(each.column), schema=db_schema).alias(f"c{number}")
        theirs = sa.exists().where(rows.c[user] == feedback.c.user_id).correlate(feedback)
        value, is_boolean = rows.c[each.column], isinstance(each.type, sa.Boolean)
        one, nothing = (sa.true(), sa.false()) if is_boolean else (sa.literal_column("1"), sa.literal_column("0"))
        if each.is_opt_in:
            refuses = sa.or_(value.is_(None), value != one)
            conditions += [theirs, ~theirs.where(refuses)]
        else:
            conditions += [theirs] if each.is_partial else []
            conditions.append(~theirs.where(sa.func.coalesce(value, nothing) != nothing))
    return sa.and_(*conditions)
