"""Who is in the database, and whose analyses are whose: what an erasure and a checklist ask it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.columns import CONSENT, IMAGE_URL
from feedback_etl.database.collations import describe_remedy
from feedback_etl.database.connect import Database, DatabaseConnection, open_connection
from feedback_etl.database.consent import ConsentColumnNames
from feedback_etl.database.driver_errors import query_error, query_reason
from feedback_etl.database.hints import missing_index_statement
from feedback_etl.database.inspection import hides_rows, inspect_source
from feedback_etl.database.relation import SourceRelation, empty_select
from feedback_etl.database.sql import has_consent
from feedback_etl.errors import SourceError

_IDS_AT_ONCE = 1_000


def fetch_user_feedback(
    database: Database,
    user_ids: Sequence[str],
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
) -> dict[str, list[tuple[str | None, str | None]]]:
    """The analyses of users, ids as text; for feedback without an analysis, None and the feedback's id.

    A user has the feedback of every spelling that is the same id to the database. An analysis comes in its canonical
    spelling and as it is stored. A user of whom there is no feedback is left out.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached, is not as expected, or query_error the query.
    """
    found: dict[str, dict[tuple[str | None, str | None], None]] = {}
    with open_connection(
        database,
        query=query,
        db_schema=db_schema,
        connect_timeout=connect_timeout,
        allow_row_security=allow_row_security,
    ) as source:
        relation, _ = inspect_source(source, query=query, consent=consent, extra=None)
        given: dict[str, list[str]] = {}
        for user_id, canonical in _canonical(source, relation, "user_id", user_ids).items():
            given.setdefault(canonical, []).append(user_id)
        (user, *_), (feedback, *_) = _spellings(relation, "user_id"), _spellings(relation, "feedback_id")
        analyses = _spellings(relation, "analysis_id")
        alone = sa.case((analyses[0].is_(None), feedback))
        for some in _parted(list(given)):
            theirs: sa.Select[*tuple[Any, ...]] = sa.select(user, alone, *analyses).select_from(relation.feedback_table)
            theirs = theirs.where(user.in_([sa.literal(each) for each in some])).distinct()
            for user_id, feedback_id, *spellings in _rows(source.connection, relation.render(theirs)):
                for each in given[user_id]:
                    found.setdefault(each, {}).update(dict.fromkeys((spelling, feedback_id) for spelling in spellings))
    return {user_id: list(theirs) for user_id, theirs in found.items()}


def fetch_canonical_ids(
    database: Database,
    ids: Mapping[str, Sequence[str]],
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
) -> dict[str, dict[str, str]]:
    """The canonical spelling of ids, by the column they are of.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached or is not as expected, or the rules for an id are not known.
    """
    with open_connection(
        database,
        query=query,
        db_schema=db_schema,
        connect_timeout=connect_timeout,
        allow_row_security=allow_row_security,
    ) as source:
        relation, _ = inspect_source(source, query=query, consent=consent, extra=None)
        return {name: _canonical(source, relation, name, some) for name, some in ids.items()}


def fetch_analyses(
    database: Database,
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008  it cannot be changed
    connect_timeout: float = 2.0,
) -> list[str]:
    """Every analysis of which there is feedback, with consent where that is recorded; ids as text.

    All of them or an error: row-level security that hides some is never allowed, since who is missing gets erased.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached, is not as expected, or query_error the query.
    """
    with open_connection(database, query=query, db_schema=db_schema, connect_timeout=connect_timeout) as source:
        relation, types = inspect_source(source, query=query, consent=consent, extra=None)
        agree = has_consent(relation, types) if CONSENT in relation.columns else None
        return _distinct(source, relation, "analysis_id", agree)


class ApplicationSummary(NamedTuple):
    """What a checklist wants to know of the database.

    Attributes:
        users: Ids of all users of whom there is feedback, as text.
        analyses: Ids of all analyses of which there is feedback, as text.
        consenting: Those analyses of which there is feedback with consent; all where nothing records it.
        imaged: Those analyses whose users let their images be used; none where nothing records it.
        consent: The columns that record consent; none where nothing does.
        missing_index: The statement that creates the index on created_at; "" where there is one, or for an own query.
        is_partial: Whether row-level security hides some of all that, which was allowed.
    """

    users: list[str]
    analyses: list[str]
    consenting: list[str]
    imaged: list[str]
    consent: tuple[str, ...]
    missing_index: str
    is_partial: bool = False


def summarize_application(
    database: Database,
    *,
    query: str | None = None,
    db_schema: str | None = None,
    consent: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008  it cannot be changed
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
) -> ApplicationSummary:
    """Look into the database, consent or not.

    Raises:
        UsageError: The database's URL or the query cannot be understood.
        SourceError: The database cannot be reached, is not as expected, or query_error the query.
    """
    with open_connection(
        database,
        query=query,
        db_schema=db_schema,
        connect_timeout=connect_timeout,
        allow_row_security=allow_row_security,
    ) as source:
        relation, types = inspect_source(source, query=query, consent=consent, extra=None)
        users, analyses = (_distinct(source, relation, name) for name in ("user_id", "analysis_id"))
        agree = has_consent(relation, types) if CONSENT in relation.columns else None
        consenting = analyses if agree is None else _distinct(source, relation, "analysis_id", agree)
        imaged: list[str] = []
        with suppress(SourceError):  # nothing records it
            images, _ = inspect_source(source, query=query, consent=consent, extra=[IMAGE_URL])
            imaged = _distinct(source, images, "analysis_id", images.columns[IMAGE_URL.name].is_not(None), images.rows)
        index = "" if query else missing_index_statement(source)
        is_partial = hides_rows(source, empty_select(relation))
        return ApplicationSummary(users, analyses, consenting, imaged, relation.consent, index, is_partial)


def _distinct(
    source: DatabaseConnection,
    relation: SourceRelation,
    name: str,
    condition: sa.ColumnElement[bool] | None = None,
    rows: sa.FromClause | None = None,
) -> list[str]:
    """The different ids of a column, as text; each in its canonical spelling and as it is stored."""
    columns = _spellings(relation, name)
    ids: sa.Select[*tuple[Any, ...]] = sa.select(*columns).select_from(
        relation.feedback_table if rows is None else rows
    )
    ids = ids.where(columns[0].is_not(None))
    ids = ids if condition is None else ids.where(condition)
    return list(dict.fromkeys(chain.from_iterable(_rows(source.connection, relation.render(ids.distinct())))))


def _canonical(source: DatabaseConnection, relation: SourceRelation, name: str, ids: Sequence[str]) -> dict[str, str]:
    """Ids, each with its canonical spelling."""
    comparison = relation.comparisons.get(name)
    if comparison is None:
        return dict(zip(ids, ids, strict=True))
    if comparison.ascii_only and any(not (each.isascii() and each.isprintable()) for each in ids):
        raise SourceError(
            f"An id for {name} has characters other than printable ASCII. To the collation {comparison.ascii_only} it "
            "can be the same as others, by rules that are not known here. "
            f"{describe_remedy(name, comparison.ascii_only, relation.dialect)}"
        )
    found: dict[str, str] = {}
    for some in _parted(ids):
        spellings = [_exactly(relation, comparison.canonical(sa.literal(each))) for each in some]
        found |= zip(some, *_rows(source.connection, relation.render(sa.select(*spellings))), strict=True)
    return found


def _parted(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]


def _spellings(relation: SourceRelation, name: str) -> list[sa.ColumnElement[Any]]:
    """An id as text in its canonical spelling, and as it is stored where that can be another."""
    stored = [relation.stored[name]] if name in relation.stored else []
    return [_exactly(relation, column) for column in (relation.columns[name], *stored)]


def _exactly(relation: SourceRelation, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """An id as text that compares by its bytes."""
    text = sa.cast(column, sa.Text)
    if relation.dialect == "sqlite":
        return text.collate("BINARY")
    return sa.cast(text, sa.LargeBinary) if relation.dialect == "mysql" else text


def _rows(connection: sa.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    try:
        for row in connection.exec_driver_sql(sql, execution_options={"no_parameters": True}):
            yield tuple(value.decode() if isinstance(value, bytes) else value for value in row)
    except SQLAlchemyError as error:
        raise query_error(query_reason(error)) from None
