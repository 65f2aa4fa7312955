"""Who is in the database, and whose analyses are whose: what an erasure and a checklist ask it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.columns import CONSENT
from feedback_etl.source.advice import index_statement
from feedback_etl.source.connect import Database, open_source
from feedback_etl.source.consent import ConsentColumns
from feedback_etl.source.failures import reason_for, stopped
from feedback_etl.source.preflight import look_at
from feedback_etl.source.query import consents
from feedback_etl.source.relation import Relation

_IDS_AT_ONCE = 1_000


def feedback_of(
    database: Database,
    user_ids: Sequence[str],
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumns = ConsentColumns(),  # noqa: B008
    connect_timeout: float = 2.0,
) -> dict[str, list[tuple[str | None, str | None]]]:
    """The analyses of users, ids as text; for feedback without an analysis, None and the feedback's id.

    A user of whom there is no feedback is left out.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached, is not as expected, or stopped the query.
    """
    found: dict[str, list[tuple[str | None, str | None]]] = {}
    with open_source(database, connect_timeout=connect_timeout) as source:
        relation, _ = look_at(source, query=query, db_schema=db_schema, consent=consent, extra=None)
        names = ("user_id", "analysis_id", "feedback_id")
        user, analysis, feedback = (_exactly(relation, name) for name in names)
        for start in range(0, len(user_ids), _IDS_AT_ONCE):
            some = [sa.literal(user_id) for user_id in user_ids[start : start + _IDS_AT_ONCE]]
            alone = sa.case((analysis.is_(None), feedback))
            theirs: sa.Select[*tuple[Any, ...]] = (
                sa.select(user, analysis, alone).select_from(relation.counted).where(user.in_(some)).distinct()
            )
            for user_id, analysis_id, feedback_id in _rows(source.connection, relation.render(theirs)):
                found.setdefault(user_id, []).append((analysis_id, feedback_id))
    return found


def analyses_in(
    database: Database,
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumns = ConsentColumns(),  # noqa: B008  it cannot be changed
    connect_timeout: float = 2.0,
) -> list[str]:
    """Every analysis of which there is feedback, with consent where that is recorded; ids as text.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached, is not as expected, or stopped the query.
    """
    with open_source(database, connect_timeout=connect_timeout) as source:
        relation, types = look_at(source, query=query, db_schema=db_schema, consent=consent, extra=None)
        analysis = _exactly(relation, "analysis_id")
        everything: sa.Select[*tuple[Any, ...]] = (
            sa.select(analysis).select_from(relation.counted).where(analysis.is_not(None)).distinct()
        )
        if CONSENT in relation.columns:
            everything = everything.where(consents(relation, types))
        return [analysis_id for (analysis_id,) in _rows(source.connection, relation.render(everything))]


class Application(NamedTuple):
    """What a checklist wants to know of the database.

    Attributes:
        users: Ids of all users of whom there is feedback, as text.
        analyses: Ids of all analyses of which there is feedback, as text.
        consent: The columns that record consent; none where nothing does.
        missing_index: The statement that creates the index on created_at; "" where there is one, or for an own query.
    """

    users: list[str]
    analyses: list[str]
    consent: tuple[str, ...]
    missing_index: str


def application(
    database: Database,
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumns = ConsentColumns(),  # noqa: B008  it cannot be changed
    connect_timeout: float = 2.0,
) -> Application:
    """Look into the database, consent or not.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached, is not as expected, or stopped the query.
    """
    with open_source(database, connect_timeout=connect_timeout) as source:
        relation, _ = look_at(source, query=query, db_schema=db_schema, consent=consent, extra=None)
        ids = []
        for name in ("user_id", "analysis_id"):
            column = _exactly(relation, name)
            each = sa.select(column).select_from(relation.counted).where(column.is_not(None)).distinct()
            ids.append([text for (text,) in _rows(source.connection, relation.render(each))])
        index = "" if query else index_statement(source, db_schema)
        return Application(ids[0], ids[1], relation.consent, index)


def _exactly(relation: Relation, name: str) -> sa.ColumnElement[Any]:
    """An id as text, or as its bytes on MySQL, where A, ä and a can be equal texts."""
    text = sa.cast(relation.columns[name], sa.Text)
    return sa.cast(text, sa.LargeBinary) if relation.dialect == "mysql" else text


def _rows(connection: sa.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    try:
        for row in connection.exec_driver_sql(sql, execution_options={"no_parameters": True}):
            yield tuple(value.decode() if isinstance(value, bytes) else value for value in row)
    except SQLAlchemyError as error:
        raise stopped(reason_for(error)) from None
