"""The SQL that is sent: the default query, a user's own query, the window and the order of the rows.

Everything is built with SQLAlchemy Core and rendered to one text without parameters, since ConnectorX takes none. The
only literals are the window's bounds. A user's query becomes a subquery; its text is put into the finished statement
and never interpreted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from feedback_etl.columns import LIST_COLUMNS, RAW_COLUMNS
from feedback_etl.source import tables
from feedback_etl.source.own_query import contained
from feedback_etl.source.raw import NO_ANSWER
from feedback_etl.source.window import Window

_QUERY_NAME = "the_own_query_goes_here"
CONSENT = "consent"

# Times of SQLite are text. Whole days on either side take in every form and offset; the reader cuts exactly.
_TEXT_TIME_SLACK = timedelta(days=2)

_FIRST_TIME = "'0001-01-01 00:00:00'"
"""What lies before the year 1, such as -infinity, no driver can read."""

Column = sa.ColumnElement[Any]


@dataclass(frozen=True)
class Relation:
    """Rows with the canonical raw columns.

    Attributes:
        dialect: "postgresql" or "sqlite".
        columns: The raw columns as SQL expressions, and `consent` where an own query yields it.
        rows: What they are selected from.
        counted: What is enough to count them.
        own_query: The user's SQL that stands behind `rows`; None for the default schema.
    """

    dialect: str
    columns: dict[str, Column]
    rows: sa.FromClause
    counted: sa.FromClause
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
    special: dict[str, Column] = {
        "feedback_id": feedback.c.id,
        "recommendation_id": record.c.recommendation_id,
        "age": profile.c.age,
        **{name: record.c[name] for name in LIST_COLUMNS},
    }
    columns = {name: special[name] if name in special else feedback.c[name] for name in RAW_COLUMNS}
    return Relation(dialect, columns, rows, counted=feedback)


def _alias(table: sa.Table, name: str, db_schema: str | None) -> sa.FromClause:
    columns = [sa.column(column.name, column.type) for column in table.columns]
    return sa.table(table.name, *columns, schema=db_schema).alias(name)


def own_relation(dialect: str, sql: str, names: list[str]) -> Relation:
    """A user's SELECT as a subquery that has the given columns.

    Raises:
        UsageError: The text could end the subquery it is put into.
    """
    columns: dict[str, Column] = {name: sa.column(name) for name in names}
    query = sa.table(_QUERY_NAME)
    return Relation(dialect, columns, query, counted=query, own_query=contained(dialect, sql))


def columns_of(dialect: str, sql: str) -> str:
    """A statement that yields all columns of an own query and no rows."""
    return f"SELECT * FROM ({contained(dialect, sql)}\n) AS feedback LIMIT 0"  # noqa: S608  it is contained


def no_rows(relation: Relation) -> str:
    """A statement that yields the relation's columns and no rows."""
    return relation.render(sa.select(*_labelled(relation.columns)).select_from(relation.rows).limit(0))


def feedback_in(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that reads a window, ordered by (created_at, feedback id), nulls last.

    On SQLite it reads some rows from around the window too, which `raw.cut_exactly` leaves out.

    Args:
        relation: Where the rows are.
        window: Which of them.
        types: What the database calls each column's type (PostgreSQL); empty where it has none (SQLite).
    """
    time = relation.columns["created_at"]
    statement = (
        sa.select(*_labelled({name: _readable(relation, name, types) for name in RAW_COLUMNS}))
        .select_from(relation.rows)
        .where(*_in_window(relation, window, types))
        .order_by(
            (_utc_text(time) if relation.dialect == "sqlite" else time).nulls_last(),
            _binary(relation.columns["feedback_id"], relation.dialect, types.get("feedback_id", "")),
        )
    )
    if CONSENT in relation.columns:
        statement = statement.where(_consents(relation, types))
    return relation.render(statement)


def excluded_in(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that counts the rows of a window without consent."""
    conditions = [_consents(relation, types).is_not(sa.true()), *_in_window(relation, window, types)]
    if relation.dialect == "sqlite":
        conditions.append(_between(_utc_text(relation.columns["created_at"]), window, _shortest))
    return relation.render(sa.select(sa.func.count()).select_from(relation.rows).where(*conditions))


def estimate_of(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that asks PostgreSQL's planner how many rows a window has, which takes no time."""
    rows = sa.select(_sql("1")).select_from(relation.counted).where(*_in_window(relation, window, types))
    return f"EXPLAIN (FORMAT JSON) {relation.render(rows)}"


def count_in(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that counts the rows of a window."""
    rows = sa.select(sa.func.count()).select_from(relation.counted).where(*_in_window(relation, window, types))
    if CONSENT in relation.columns:
        rows = rows.where(_consents(relation, types))
    return relation.render(rows)


def extent_of(relation: Relation, window: Window, types: dict[str, str]) -> str:
    """The statement that yields the first and the last time of a window (PostgreSQL)."""
    time = relation.columns["created_at"]
    ends = sa.select(sa.func.min(time), sa.func.max(time)).select_from(relation.counted)
    return relation.render(ends.where(*_in_window(relation, window, types), time >= _sql(_FIRST_TIME)))


def bins_of(
    relation: Relation, window: Window, types: dict[str, str], *, extent: tuple[datetime, datetime], bins: int
) -> str:
    """The statement that yields the first time and the number of rows of each of so many equal spans (PostgreSQL)."""
    time = relation.columns["created_at"]
    least, greatest = (sa.literal(end.replace(tzinfo=UTC).timestamp()) for end in extent)
    span = sa.func.width_bucket(sa.extract("epoch", time), least, greatest, _sql(str(bins)))
    counts = sa.select(sa.func.min(time), sa.func.count()).select_from(relation.counted)
    within = (*_in_window(relation, window, types), time >= _sql(_FIRST_TIME))
    return relation.render(counts.where(*within).group_by(span).order_by(_sql("1")))


def _labelled(columns: dict[str, Column]) -> list[sa.Label[Any]]:
    return [column.label(name) for name, column in columns.items()]


def _sql(constant: str) -> Column:
    return sa.literal_column(constant)


def _readable(relation: Relation, name: str, types: dict[str, str]) -> Column:
    """A column in a form that every driver reads alike."""
    column = relation.columns[name]
    kind = types.get(name, "")
    if kind.endswith("[]"):
        column = sa.func.array_to_json(column)
    if name in LIST_COLUMNS or (relation.dialect == "sqlite" and name == "created_at"):
        # A null in the first row leaves ConnectorX without a type on SQLite, and on PostgreSQL '' is faster.
        return sa.func.coalesce(sa.cast(column, sa.Text), _sql("''"))
    if relation.dialect == "sqlite" and name == "would_recommend":
        # A column declared BOOLEAN can hold a 7, which ConnectorX would take for true.
        return sa.func.coalesce(column, _sql(str(NO_ANSWER)))
    if kind in {"uuid", "unknown", "bpchar"}:  # CHAR(n) as it is would be padded with blanks
        return sa.cast(column, sa.Text)
    if kind == "numeric":  # NaN and long ones are more than drivers can take
        return sa.cast(column, sa.Double)
    if name == "created_at":  # what lies before the year 1, such as -infinity, no driver can read
        return sa.case((column >= _sql(_FIRST_TIME), column))
    return column


def _consents(relation: Relation, types: dict[str, str]) -> sa.ColumnElement[bool]:
    """Whether a row's consent is true: not null, no other number than 1."""
    consent = relation.columns[CONSENT]
    if relation.dialect == "postgresql" and types[CONSENT] != "bool":
        consent = consent == _sql("1")
    return consent.is_(sa.true())


def _binary(column: Column, dialect: str, kind: str) -> Column:
    """A column that sorts by its bytes, whatever its collation."""
    if dialect == "sqlite":
        return sa.type_coerce(column, sa.Text).collate("BINARY")
    return column if kind.startswith("int") or kind == "uuid" else sa.cast(column, sa.Text).collate("C")


def _utc_text(time: Column) -> Column:
    """The forms that a time takes on SQLite as one, in UTC, that sorts and compares: 2025-10-25 10:00:00.5."""
    text = sa.cast(time, sa.Text)
    tail = sa.func.substr(text, _sql("20"))  # fraction and offset
    offset = sa.func.ltrim(tail, _sql("'.0123456789'"))
    fraction = sa.func.rtrim(sa.func.replace(tail, offset, _sql("''")), _sql("'.0'"))
    second = sa.func.datetime(sa.func.substr(text, _sql("1"), _sql("19")).concat(offset))
    return sa.func.coalesce(second, text).concat(fraction)


def _in_window(relation: Relation, window: Window, types: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    time = relation.columns["created_at"]
    if relation.dialect == "sqlite":
        if window.start is None:
            return []
        first = max(window.start, datetime.min + _TEXT_TIME_SLACK) - _TEXT_TIME_SLACK
        last = min(window.end, datetime.max - _TEXT_TIME_SLACK) + _TEXT_TIME_SLACK
        return [time >= sa.literal(str(first.date())), time < sa.literal(str(last.date()))]
    zone = "+00:00" if types.get("created_at") == "timestamptz" else ""
    return [_between(time, window, lambda bound: f"{_shortest(bound)}{zone}")]


def _between(time: Column, window: Window, written: Callable[[datetime], str]) -> sa.ColumnElement[bool]:
    before_end = time < sa.literal(written(window.end))
    if window.start is None:
        return sa.or_(before_end, time.is_(sa.null()))
    return sa.and_(time >= sa.literal(written(window.start)), before_end)


def _shortest(time: datetime) -> str:
    text = time.isoformat(sep=" ")
    return text.rstrip("0") if time.microsecond else text
