"""Look up the people in a database and their analyses, for erasures and for the checklist.

Of `ReadOptions`, those that select a window have no effect here. Each function raises UsageError if the database URL or
the query is not valid, and SourceError if the database cannot be reached, is not as expected or stopped the query.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import sqlalchemy as sa

from feedback_etl.database.collations import describe_remedy
from feedback_etl.database.connect import Database, DatabaseConnection, open_connection
from feedback_etl.database.empty_selects import empty_select
from feedback_etl.database.hints import build_index_statement, count_edited
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import has_consent
from feedback_etl.database.statements import hides_rows, iterate_rows
from feedback_etl.errors import SourceError
from feedback_etl.options.read import ReadOptions
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import IMAGE_URL

_MAX_IDS_PER_QUERY = 1_000


@contextmanager
def _open(database: Database, options: ReadOptions) -> Iterator[tuple[DatabaseConnection, SourceRelation]]:
    with open_connection(database, options) as source:
        query = options.source or options.query
        yield source, inspect_source(source, query=query, consent=options.consent, schema=None)


def fetch_user_feedback(
    database: Database, options: ReadOptions, user_ids: Sequence[str]
) -> dict[str, list[tuple[str | None, str | None]]]:
    """Return the analyses of users, ids as text; for feedback without an analysis, None and the id of the feedback.

    The feedback of every spelling that the database considers the same user is included. An analysis is listed in its
    canonical spelling and as it is stored. A user without feedback is missing from the result.
    """
    feedback: dict[str, dict[tuple[str | None, str | None], None]] = {}
    with _open(database, options) as (source, relation):
        given_ids: dict[str, list[str]] = {}
        for user_id, canonical in _canonicalize(source, relation, "user_id", user_ids).items():
            given_ids.setdefault(canonical, []).append(user_id)
        user, feedback_id = (_spellings(relation, name)[0] for name in ("user_id", "feedback_id"))
        analyses = _spellings(relation, "analysis_id")
        feedback_without_analysis = sa.case((analyses[0].is_(None), feedback_id))
        columns: sa.Select[*tuple[Any, ...]] = sa.select(user, feedback_without_analysis, *analyses)
        for ids in _chunk(list(given_ids)):
            is_listed = user.in_([sa.literal(user_id) for user_id in ids])
            rows = columns.select_from(relation.feedback_table).where(is_listed).distinct()
            for user_id, single, *spellings in _fetch_decoded(source, relation.render(rows)):
                for given in given_ids[user_id]:
                    feedback.setdefault(given, {}).update(dict.fromkeys((spelling, single) for spelling in spellings))
    return {user_id: list(pairs) for user_id, pairs in feedback.items()}


def fetch_canonical_ids(
    database: Database, options: ReadOptions, ids: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Return the canonical spelling of ids, by their column."""
    with _open(database, options) as (source, relation):
        return {name: _canonicalize(source, relation, name, given) for name, given in ids.items()}


def fetch_analyses(database: Database, options: ReadOptions) -> list[str]:
    """Return the ids of all analyses that have feedback, with consent if it is recorded, as text.

    Row-level security is not allowed, since an erasure would erase the analyses that it hides.
    """
    with _open(database, replace(options, allow_row_security=False)) as (source, relation):
        return _fetch_distinct(source, relation, "analysis_id", has_consent(relation))


def fetch_owners(
    database: Database, options: ReadOptions, *, is_consenting: bool = False
) -> list[tuple[str, str | None]]:
    """Return every analysis that has feedback, with its user, as text or None; an analysis in all its spellings.

    An empty text is no user, as in an export. With `is_consenting`, only feedback with consent counts, if consent is
    recorded.
    """
    with _open(database, options) as (source, relation):
        user, analyses = _spellings(relation, "user_id")[0], _spellings(relation, "analysis_id")
        columns: sa.Select[*tuple[Any, ...]] = sa.select(user, *analyses)
        condition = has_consent(relation) if is_consenting else sa.true()
        rows = columns.select_from(relation.feedback_table).where(analyses[0].is_not(None), condition)
        pairs = _fetch_decoded(source, relation.render(rows.distinct()))
        return list(dict.fromkeys((spelling, owner or None) for owner, *spellings in pairs for spelling in spellings))


class ApplicationSummary(NamedTuple):
    """Summarize a database for the checklist.

    Attributes:
        users: The ids of all users with feedback, as text.
        analyses: The ids of all analyses with feedback, as text.
        consenting: The analyses that have feedback with consent; all if consent is not recorded.
        imaged: The analyses whose users consent to the use of images; none if that is not recorded.
        consent: The columns that record consent; empty if none does.
        missing_index: The statement that creates the index on created_at; "" if there is one, None if that is not
            known, as for a custom query.
        is_partial: Whether row-level security, if allowed, hides some of the rows.
        edited: The number of rows that were changed after they were created, by updated_at; None if that is not known,
            as for a custom query.
    """

    users: list[str]
    analyses: list[str]
    consenting: list[str]
    imaged: list[str]
    consent: tuple[str, ...]
    missing_index: str | None
    is_partial: bool = False
    edited: int | None = None


def summarize_application(database: Database, options: ReadOptions) -> ApplicationSummary:
    """Return the people in a database, with and without consent."""
    with _open(database, options) as (source, relation):
        users, analyses = (_fetch_distinct(source, relation, name) for name in ("user_id", "analysis_id"))
        consenting = analyses
        if relation.records_consent:
            consenting = _fetch_distinct(source, relation, "analysis_id", has_consent(relation))
        return ApplicationSummary(
            users,
            analyses,
            consenting,
            imaged=_fetch_imaged(source, options),
            consent=relation.consent,
            missing_index=build_index_statement(source, relation),
            is_partial=hides_rows(source, empty_select(relation)),
            edited=count_edited(source, relation),  # last: if it fails, so do later statements
        )


def _fetch_imaged(source: DatabaseConnection, options: ReadOptions) -> list[str]:
    """Return the analyses whose users consent to the use of images; none if that is not recorded."""
    schema = CLASSIC_SCHEMA.with_extra_columns([IMAGE_URL])
    with suppress(SourceError):
        query = options.source or options.query
        relation = inspect_source(source, query=query, consent=options.consent, schema=schema)
        has_image = relation.columns[IMAGE_URL.name].is_not(None)
        return _fetch_distinct(source, relation, "analysis_id", has_image, relation.rows)
    return []


def _fetch_distinct(
    source: DatabaseConnection,
    relation: SourceRelation,
    name: str,
    condition: sa.ColumnElement[bool] = sa.true(),  # noqa: B008  immutable
    rows: sa.FromClause | None = None,
) -> list[str]:
    """Return the distinct ids of a column as text, in their canonical spelling and as they are stored."""
    columns = _spellings(relation, name)
    ids: sa.Select[*tuple[Any, ...]] = sa.select(*columns)
    ids = ids.select_from(relation.feedback_table if rows is None else rows).where(columns[0].is_not(None), condition)
    return list(dict.fromkeys(chain.from_iterable(_fetch_decoded(source, relation.render(ids.distinct())))))


def _canonicalize(
    source: DatabaseConnection, relation: SourceRelation, name: str, ids: Sequence[str]
) -> dict[str, str]:
    """Return the canonical spelling of each id of a column."""
    comparison = relation.comparisons.get(name)
    if comparison is None:
        return dict(zip(ids, ids, strict=True))
    if comparison.ascii_only and any(not (id_.isascii() and id_.isprintable()) for id_ in ids):
        raise SourceError(
            f"An id for {name} has characters other than printable ASCII. In the collation {comparison.ascii_only} it "
            "can equal other ids by rules that are not known here. "
            f"{describe_remedy(name, comparison.ascii_only, relation.dialect, relation.query_option)}"
        )
    canonical: dict[str, str] = {}
    for chunk in _chunk(ids):
        spellings = [_binary_text(relation, comparison.canonical(sa.literal(id_))) for id_ in chunk]
        canonical |= zip(chunk, *_fetch_decoded(source, relation.render(sa.select(*spellings))), strict=True)
    return canonical


def _chunk(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _MAX_IDS_PER_QUERY] for start in range(0, len(ids), _MAX_IDS_PER_QUERY)]


def _spellings(relation: SourceRelation, name: str) -> list[sa.ColumnElement[Any]]:
    """Return an id as text in its canonical spelling, and as it is stored if that may differ."""
    stored = [relation.stored_ids[name]] if name in relation.stored_ids else []
    return [_binary_text(relation, column) for column in (relation.columns[name], *stored)]


def _binary_text(relation: SourceRelation, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return an id as text that is compared by its bytes."""
    text = sa.cast(column, sa.Text)
    if relation.dialect == "sqlite":
        return text.collate("BINARY")
    return sa.cast(text, sa.LargeBinary) if relation.dialect == "mysql" else text


def _fetch_decoded(source: DatabaseConnection, sql: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a statement, with bytes decoded."""
    for row in iterate_rows(source, sql):
        yield tuple(value.decode() if isinstance(value, bytes) else value for value in row)
