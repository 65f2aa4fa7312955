"""The SQL that is sent: the default query, a user's own query, the window and the order of the rows.

Everything is built with SQLAlchemy Core and rendered to one text without parameters, since ConnectorX takes none. The
only literals are the window's bounds. A user's query becomes a subquery; its text is put into the finished statement
and never interpreted.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from feedback_etl.errors import UsageError
from feedback_etl.schema import LIST_COLUMNS, RAW_COLUMNS
from feedback_etl.source import tables
from feedback_etl.source.window import Window

_QUERY_NAME = "the_own_query_goes_here"
CONSENT = "consent"

# Times of SQLite are text. Whole days on either side take in every form and offset; the reader cuts exactly.
_TEXT_TIME_SLACK = timedelta(days=2)

# What can hide a bracket or a semicolon in SQL: quoted text, quoted names, dollar quotes, comments.
_SQL_TOKEN = re.compile(
    r"""
    (?P<hidden> (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'
              | '(?:[^']|'')*'
              | "(?:[^"]|"")*"
              | `[^`]*`
              | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
              | --[^\n]*
              | /\*(?:(?!/\*).)*?\*/ )
    | (?P<open>\() | (?P<close>\)) | (?P<bad>;|'|"|`|/\*)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Relation:
    """Rows with the canonical raw columns.

    Attributes:
        dialect: "postgresql" or "sqlite".
        columns: The raw columns as SQL expressions, and `consent` where an own query yields it.
        rows: What they are selected from.
        own_query: The user's SQL that stands behind `rows`; None for the default schema.
    """

    dialect: str
    columns: dict[str, sa.ColumnElement[Any]]
    rows: sa.FromClause
    own_query: str | None = None

    def render(self, statement: sa.Select[Any]) -> str:
        """The statement as one text that needs no parameters."""
        compiled = statement.compile(
            dialect=tables.DIALECTS[self.dialect], compile_kwargs={"literal_binds": True}
        ).string
        if self.own_query is None:
            return compiled
        return compiled.replace(_QUERY_NAME, f"({self.own_query}\n) AS feedback", 1)


def default_relation(dialect: str, db_schema: str | None = None) -> Relation:
    """The default application schema, one row for each feedback; the lower profile id gives the age."""
    feedback = _alias(tables.recommendation_feedbacks, "f", db_schema)
    record = _alias(tables.recommendation_records, "r", db_schema)
    profile = _alias(tables.profiles, "p", db_schema)
    earlier = _alias(tables.profiles, "e", db_schema)
    has_earlier = sa.exists().where(earlier.c.user_id == profile.c.user_id, earlier.c.id < profile.c.id)
    rows = feedback.outerjoin(record, record.c.id == feedback.c.recommendation_id).outerjoin(
        profile, sa.and_(profile.c.user_id == feedback.c.user_id, ~has_earlier)
    )
    special: dict[str, sa.ColumnElement[Any]] = {
        "feedback_id": feedback.c.id,
        "recommendation_id": record.c.recommendation_id,
        "age": profile.c.age,
        **{name: record.c[name] for name in LIST_COLUMNS},
    }
    columns = {name: special[name] if name in special else feedback.c[name] for name in RAW_COLUMNS}
    return Relation(dialect, columns, rows)


def _alias(table: sa.Table, name: str, db_schema: str | None) -> sa.FromClause:
    columns = [sa.column(column.name, column.type) for column in table.columns]
    return sa.table(table.name, *columns, schema=db_schema).alias(name)


def own_relation(dialect: str, sql: str, names: list[str]) -> Relation:
    """A user's SELECT as a subquery that has the given columns.

    Raises:
        UsageError: The text could end the subquery it is put into.
    """
    columns: dict[str, sa.ColumnElement[Any]] = {name: sa.column(name) for name in names}
    return Relation(dialect, columns, sa.table(_QUERY_NAME), own_query=contained(sql))


def contained(sql: str) -> str:
    """The query without its closing semicolon, when it stays inside the brackets that are put around it.

    Raises:
        UsageError: It is empty, holds a second statement, or its brackets, quotes or comments are not closed.
    """
    sql = sql.strip().removesuffix(";").rstrip()
    depth = 0
    for token in _SQL_TOKEN.finditer(sql):
        depth += bool(token["open"]) - bool(token["close"])
        if token["bad"] or depth < 0:
            depth = -1
            break
    if depth or not sql:
        raise UsageError("The query must be one SELECT: no semicolon inside, every bracket, quote and comment closed.")
    return sql


def columns_of(sql: str) -> str:
    """A statement that yields all columns of an own query and no rows."""
    return f"SELECT * FROM ({contained(sql)}\n) AS feedback LIMIT 0"  # noqa: S608  the own query, and nothing else


def no_rows(relation: Relation) -> str:
    """A statement that yields the relation's columns and no rows."""
    return relation.render(sa.select(*_labelled(relation.columns)).select_from(relation.rows).limit(0))


def feedback_in(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that reads a window, ordered by (created_at, feedback id), nulls last.

    Args:
        relation: Where the rows are.
        window: Which of them.
        types: What the database calls each column's type (PostgreSQL); empty where it has none (SQLite).
    """
    columns = {name: _readable(relation, name, types) for name in RAW_COLUMNS}
    feedback_id: sa.ColumnElement[Any] = relation.columns["feedback_id"]
    if types.get("feedback_id") in {"text", "varchar", "bpchar"}:
        feedback_id = feedback_id.collate("C")
    statement = (
        sa.select(*_labelled(columns))
        .select_from(relation.rows)
        .where(*_in_window(relation, window, types))
        .order_by(_time_order(relation).nulls_last(), feedback_id)
    )
    if CONSENT in relation.columns:
        statement = statement.where(relation.columns[CONSENT].is_(sa.true()))
    return relation.render(statement)


def excluded_in(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that counts the rows of a window without consent."""
    refused = relation.columns[CONSENT].is_not(sa.true())
    statement = (
        sa.select(sa.func.count()).select_from(relation.rows).where(refused, *_in_window(relation, window, types))
    )
    return relation.render(statement)


def _labelled(columns: dict[str, sa.ColumnElement[Any]]) -> list[sa.Label[Any]]:
    return [column.label(name) for name, column in columns.items()]


def _readable(relation: Relation, name: str, types: dict[str, str]) -> sa.ColumnElement[Any]:
    """A column in a form that every driver reads alike."""
    column = relation.columns[name]
    kind = types.get(name, "")
    if kind.endswith("[]"):
        column = sa.func.array_to_json(column)
    if name in LIST_COLUMNS or (relation.dialect == "sqlite" and name == "created_at"):
        # A null in the first row leaves ConnectorX without a type on SQLite, and on PostgreSQL '' is faster.
        return sa.func.coalesce(sa.cast(column, sa.Text), sa.literal_column("''"))
    if kind in {"uuid", "unknown"}:
        return sa.cast(column, sa.Text)
    return column


def _time_order(relation: Relation) -> sa.ColumnElement[Any]:
    """What sorts rows by time: on SQLite one text form for `T` or space, with or without a fraction."""
    time = relation.columns["created_at"]
    if relation.dialect != "sqlite":
        return time
    text = sa.func.replace(sa.cast(time, sa.Text), sa.literal_column("'T'"), sa.literal_column("' '"))
    digits = sa.func.length(text)
    fraction = sa.func.substr(sa.literal_column("'.000000'"), digits - sa.literal_column("18"))
    return sa.func.substr(text.concat(fraction), sa.literal_column("1"), sa.literal_column("26"))


def _in_window(relation: Relation, window: Window, types: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    time = relation.columns["created_at"]
    if relation.dialect == "sqlite":
        if window.start is None:
            return []
        first, last = window.start - _TEXT_TIME_SLACK, window.end + _TEXT_TIME_SLACK
        return [time >= sa.literal(str(first.date())), time < sa.literal(str(last.date()))]
    zone = "+00:00" if types.get("created_at") == "timestamptz" else ""
    before_end = time < sa.literal(f"{window.end.isoformat(sep=' ')}{zone}")
    if window.start is None:
        return [sa.or_(before_end, time.is_(sa.null()))]
    return [time >= sa.literal(f"{window.start.isoformat(sep=' ')}{zone}"), before_end]
