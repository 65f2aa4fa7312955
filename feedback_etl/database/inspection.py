"""Inspect the tables and columns of a database before any row is read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database import plain_times, text_times
from feedback_etl.database.collations import build_unknown_rules_error, find_id_comparison
from feedback_etl.database.column_conversions import convert_columns
from feedback_etl.database.column_types import check_types, get_type_name, reflect_columns
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.consent import ConsentColumnNames, find_consent_columns, find_image_consent_columns
from feedback_etl.database.cursor import with_cursor
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.declared import build_declared_relation
from feedback_etl.database.driver_errors import build_invalid_query_error
from feedback_etl.database.empty_selects import empty_id_select, empty_query_select, empty_select, empty_table_select
from feedback_etl.database.files import SELECT_FILES
from feedback_etl.database.query_errors import locate_error
from feedback_etl.database.relation import (
    SourceRelation,
    add_consent,
    build_default_relation,
    build_query_relation,
)
from feedback_etl.database.statements import describe, fetch_count, fetch_rows, hides_rows
from feedback_etl.errors import SourceError
from feedback_etl.plurals import list_some, pluralize
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import NAME
from feedback_etl.schema.model import CONSENT, IMAGE_OPT_IN, IMAGE_URL, RAW_IDS, RESERVED, SUBJECT_HASH, FeedbackSchema
from feedback_etl.schema.source import SourceTable

_MAX_WRONG_NAMES = 5

_REQUIRED_COLUMNS = {
    "recommendation_feedbacks": {"id", "user_id", "analysis_id", "recommendation_id", "created_at"}
    | {*CLASSIC_SCHEMA.rating_names, *(column.name for column in CLASSIC_SCHEMA.columns)},
    "recommendation_records": {"id", "recommendation_id", *(column.raw_name for column in CLASSIC_SCHEMA.lists)},
    "profiles": {"id", "user_id", "age"},
}
_REQUIRED_FOR_IMAGES = {"analyses": {"id", "photo_id"}, "photos": {"id", "s3_key"}}


def inspect_source(
    source: DatabaseConnection,
    *,
    query: str | SourceTable | None = None,
    consent: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008  immutable
    schema: FeedbackSchema | None = CLASSIC_SCHEMA,
    cursor: str = CREATED_AT,
) -> SourceRelation:
    """Return the relation that an export reads, checked without reading a row.

    Args:
        source: The database.
        query: A custom SELECT or a declared source; without it, the default application schema.
        consent: The names of the columns that record consent in the default tables.
        schema: The schema of the rows; None to read ids and times only, where a query may yield any other columns.
        cursor: The column by which an incremental export continues, which is read too.

    Raises:
        SourceError: Tables or columns are missing, unexpected or of a wrong type, or ids are compared by unknown rules;
            the message names them.
        UsageError: The query is not one closed SELECT.
    """
    wanted = None if schema is None else with_cursor(schema, cursor)
    query = SELECT_FILES if query is None and source.has_files else query
    role = fetch_rows(source, "SELECT quote_ident(current_user)")[0][0] if source.dialect == "postgresql" else ""
    try:
        if isinstance(query, SourceTable):
            relation = _inspect_declared(source, query, wanted, cursor)
        elif query is None:
            relation = _inspect_default_tables(source, consent, wanted or CLASSIC_SCHEMA)
        else:
            relation = _inspect_query(source, query, wanted)
    except SQLAlchemyError as error:
        text = query.query if isinstance(query, SourceTable) else query
        raise build_invalid_query_error(error, role, locate_error(source, text, error) if text else "") from None
    check_types(source.dialect, relation.types, wanted or CLASSIC_SCHEMA)
    return _with_canonical_ids(source, _with_text_times(source, replace(relation, cursor=cursor)))


def _inspect_declared(
    source: DatabaseConnection, declaration: SourceTable, schema: FeedbackSchema | None, cursor: str
) -> SourceRelation:
    names = (*RAW_IDS, CREATED_AT) if schema is None else schema.raw_columns
    consent = (CONSENT,) if declaration.find_column(CONSENT) else ()
    identifiers = (column.name for column in schema.all_columns if column.role == "identifier") if schema else ()
    keys = {*RAW_IDS, *identifiers, CREATED_AT, cursor, *consent}
    relation = build_declared_relation(source, declaration, [*names, *consent], keys)
    _, types = _describe_columns(source, empty_select(relation))
    typed = replace(relation, types=types, schema=schema or CLASSIC_SCHEMA)
    return add_consent(convert_columns(source, typed))


def _inspect_default_tables(
    source: DatabaseConnection, consent: ConsentColumnNames, schema: FeedbackSchema
) -> SourceRelation:
    db_schema, with_images = source.db_schema, IMAGE_URL in schema.extra_columns
    cursor = next((column for column in schema.raw_extra_columns if column != IMAGE_URL), None)
    inspector = sa.inspect(source.connection)
    _check_schema(source, inspector)
    required = _REQUIRED_COLUMNS | (_REQUIRED_FOR_IMAGES if with_images else {})
    optional = {column.name for column in (cursor, schema.exported_items) if column is not None}
    required |= {"recommendation_feedbacks": required["recommendation_feedbacks"] | optional}
    _check_tables(source, inspector, required)
    consent_columns = [
        column._replace(is_partial=hides_rows(source, empty_table_select(column.table, db_schema)))
        for column in find_consent_columns(inspector, db_schema, consent)
    ]
    image_columns = find_image_consent_columns(inspector, db_schema) if with_images else []
    relation = build_default_relation(source.dialect, db_schema, consent_columns, image_columns, schema)
    return replace(relation, types=_describe_columns(source, empty_select(relation))[1])


def _inspect_query(source: DatabaseConnection, query: str, schema: FeedbackSchema | None) -> SourceRelation:
    names, types = _describe_columns(source, empty_query_select(source.dialect, query))
    # SQLite renames the second of two columns with the same name to name:1.
    given_names = [name.partition(":")[0] if source.dialect == "sqlite" else name for name in names]
    _check_names(given_names, schema, "The content of the files" if query == SELECT_FILES else "The query")
    relation = build_query_relation(source.dialect, query, names, types, schema or CLASSIC_SCHEMA)
    return add_consent(convert_columns(source, relation))


def _with_canonical_ids(source: DatabaseConnection, relation: SourceRelation) -> SourceRelation:
    comparisons = {}
    for name in relation.ids:
        column, type_ = empty_id_select(relation, name), relation.type_name(name)
        create_error = partial(build_unknown_rules_error, name, source.dialect, relation.query_option)
        if comparison := find_id_comparison(source.dialect, type_, column, partial(fetch_rows, source), create_error):
            comparisons[name] = comparison
    return relation.with_comparisons(comparisons)


def _check_tables(source: DatabaseConnection, inspector: sa.Inspector, tables: Mapping[str, set[str]]) -> None:
    db_schema = source.db_schema
    if missing := [name for name in tables if not inspector.has_table(name, schema=db_schema)]:
        existing = sorted({*inspector.get_table_names(db_schema), *inspector.get_view_names(db_schema)})
        raise SourceError(
            f"The database has no table {', '.join(missing)}. It has: {list_some(existing)}. Is it the right "
            "database? For tables in another schema set db_schema; `feedback-etl init` declares another layout."
        )
    problems, names = [], set()
    for name, required in tables.items():
        columns = list(reflect_columns(inspector, name, db_schema))
        existing_columns = columns if source.dialect == "postgresql" else {column.lower() for column in columns}
        if absent := sorted(required.difference(existing_columns)):
            problems.append(f"{name} has no column {', '.join(absent)} (it has {list_some(columns)})")
            names.update(absent)
    if problems:
        is_default = not names.isdisjoint({"id"}.union(*_REQUIRED_COLUMNS.values(), *_REQUIRED_FOR_IMAGES.values()))
        another = "`feedback-etl init` declares another layout" if is_default else "Correct the option with this name"
        raise SourceError(f"{'; '.join(problems)}. {another}.")


def _check_schema(source: DatabaseConnection, inspector: sa.Inspector) -> None:
    db_schema = source.db_schema
    if source.dialect == "mysql" and not (db_schema or inspector.default_schema_name):
        raise SourceError("The database URL names no database: mysql://user@host/NAME.")
    if db_schema is None:
        return
    schemas = inspector.get_schema_names()
    if source.dialect == "duckdb":  # its schema names begin with the name of the database
        schemas = [name.rpartition(".")[2] for name in schemas]
    if db_schema not in schemas:
        raise SourceError(f"The database has no schema {db_schema} (db_schema). It has: {list_some(schemas)}.")


def _check_names(names: list[str], schema: FeedbackSchema | None, subject: str) -> None:
    image_opt_in = [IMAGE_OPT_IN] if schema and IMAGE_URL in schema.extra_columns else []
    required = [*(schema.raw_columns if schema else (*RAW_IDS, CREATED_AT)), *image_opt_in]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    expected = {*required, CONSENT, *duplicates} if schema is not None else {*names}
    wrong = {
        "lacks": [name for name in required if name not in names],
        "yields the unexpected": [name for name in names if name not in expected],
        "yields twice": duplicates,
    }
    problems = [f"{verb} {list_some(columns, _MAX_WRONG_NAMES)}" for verb, columns in wrong.items() if columns]
    if problems and wrong["lacks"] and subject != "The query":
        raise SourceError(
            f"{subject} {problems[0]}. Declare the columns that it has: `feedback-etl init --from PATTERN` writes a "
            "[source] of them to feedback-etl.toml."
        )
    if problems:
        raise SourceError(
            f"{subject} {' and '.join(problems)}. It has to yield {', '.join(required)}, and optionally {CONSENT}."
            f"{_suggest_declarations(wrong['yields the unexpected'], schema)}"
        )


def _suggest_declarations(names: Sequence[str], schema: FeedbackSchema | None) -> str:
    """Return a sentence that says how to declare extra columns; "" if none of the names can be declared."""
    taken = {*RESERVED, IMAGE_URL.name, SUBJECT_HASH.name, *(schema.training_columns if schema else ())}
    tables = [f"[columns.{name}]" for name in names if NAME.fullmatch(name) and name not in taken]
    if not tables:
        return ""
    declarations = list_some(tables, _MAX_WRONG_NAMES)
    return f" To export another column, declare it with its role and type in feedback-etl.toml: {declarations}."


def _describe_columns(source: DatabaseConnection, sql: str) -> tuple[list[str], dict[str, str]]:
    """Return the names of the columns that a statement yields, and of their types (none on SQLite)."""
    description = describe(source, sql)
    names = [str(name) for name, *_ in description]
    if source.dialect == "sqlite":
        return names, {}
    return names, {str(name): get_type_name(source.dialect, code, length) for name, code, _, length, *_ in description}


def _with_text_times(source: DatabaseConnection, relation: SourceRelation) -> SourceRelation:
    """Return the relation with what its times have in common; only on SQLite they are text."""
    if source.dialect != "sqlite":
        return relation
    times = dict.fromkeys((CREATED_AT, relation.cursor))
    if all(_has_plain_times(source, relation, name) for name in times):
        return replace(relation, has_plain_times=True)
    unreadable = [_has_unreadable_times(source, relation, name) for name in times]
    return replace(relation, has_unreadable_times=any(unreadable))


def _has_plain_times(source: DatabaseConnection, relation: SourceRelation, name: str) -> bool:
    spelling = plain_times.spelling(relation.columns[name]).label("spelling")
    spellings = relation.render(sa.select(spelling).select_from(relation.feedback_table).distinct())
    return plain_times.are_plain({text for (text,) in fetch_rows(source, spellings) if text is not None})


def _has_unreadable_times(source: DatabaseConnection, relation: SourceRelation, name: str) -> bool:
    """Return whether a text of a column is not an ISO time; refuse numbers, which are in no window.

    SQLite sorts numbers before all text and bytes after it. A text of digits only is a number too.
    """
    time, feedback = relation.columns[name], relation.feedback_table
    one: sa.ColumnElement[int] = sa.literal_column("1")
    unreadable = sa.select(one).select_from(feedback).where(text_times.is_unreadable(time)).limit(1)
    if not fetch_rows(source, relation.render(unreadable)):
        return False
    is_number = sa.or_(text_times.is_number(time), text_times.is_epoch(time))
    count = sa.select(sa.func.count()).select_from(feedback).where(is_number)
    if numbers := fetch_count(source, relation.render(count)):
        raise SourceError(
            f"{name} contains numbers in {pluralize(numbers, 'row')}; ISO 8601 text is expected. "
            f"Convert them in a query: seconds since 1970 by datetime({name}, 'unixepoch'), "
            f"milliseconds by strftime('%Y-%m-%d %H:%M:%f', {name} / 1000.0, 'unixepoch')."
        )
    return True
