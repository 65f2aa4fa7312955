"""What is looked at before anything is read: are the tables and columns there, and of what types."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.columns import CONSENT, IMAGE_OPT_IN, IMAGE_URL, RAW_COLUMNS, ExtraColumn
from feedback_etl.database import text_times
from feedback_etl.database.collations import find_id_comparison
from feedback_etl.database.column_types import check_types, type_name
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.consent import ConsentColumnNames, find_consent_columns, find_image_consent_columns
from feedback_etl.database.driver_errors import invalid_query_error, is_row_security_error, query_error, query_reason
from feedback_etl.database.read_only import EVERY_ROW
from feedback_etl.database.reflection import reflect_columns
from feedback_etl.database.relation import (
    SourceRelation,
    default_relation,
    empty_id_select,
    empty_query_select,
    empty_select,
    empty_table_select,
    query_relation,
)
from feedback_etl.errors import SourceError, UsageError

_NAMES_SHOWN = 20

# What the default query reads beside the columns that exports hold.
_USED = {
    "recommendation_feedbacks": {"id", "user_id", "analysis_id", "recommendation_id", "timeframe", "created_at"}
    | {"helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend"},
    "recommendation_records": {"id", "recommendation_id", "conditions_analyzed", "rules_applied"},
    "profiles": {"id", "user_id", "age"},
}
_USED_FOR_IMAGES = {"analyses": {"id", "photo_id"}, "photos": {"id", "s3_key"}}


def inspect_source(
    source: DatabaseConnection,
    *,
    query: str | None = None,
    consent: ConsentColumnNames = ConsentColumnNames(),  # noqa: B008  it cannot be changed
    extra: Sequence[ExtraColumn] | None = (),
) -> tuple[SourceRelation, dict[str, str]]:
    """What an export would read, checked without reading a row.

    Args:
        source: The database.
        query: A user's own SELECT; without it, the default application schema.
        consent: What columns are called that record consent in the default tables.
        extra: What is to be read beside the raw columns; None where it does not matter what else a query yields.

    Returns:
        The relation, and what the type of each column is called (nothing on SQLite).

    Raises:
        SourceError: Tables or columns are missing, unexpected or of a wrong type, or ids are compared by unknown rules;
            the message names them.
        UsageError: The query is not one closed SELECT.
    """
    db_schema, with_images = source.db_schema, extra is not None and IMAGE_URL in extra
    role = fetch_rows(source, "SELECT quote_ident(current_user)")[0][0] if source.dialect == "postgresql" else ""
    try:
        if query is None:
            _check_tables(source, db_schema, _USED | _USED_FOR_IMAGES if with_images else _USED)
            inspector = sa.inspect(source.connection)
            recorded = [
                each._replace(is_partial=hides_rows(source, empty_table_select(each.table, db_schema)))
                for each in find_consent_columns(inspector, db_schema, consent)
            ]
            of_images = find_image_consent_columns(inspector, db_schema) if with_images else []
            relation = default_relation(source.dialect, db_schema, recorded, of_images)
            _, types = _described(source, empty_select(relation))
        else:
            names, types = _described(source, empty_query_select(source.dialect, query), extra)
            relation = query_relation(source.dialect, query, names, types, extra or ())
    except SQLAlchemyError as error:
        raise invalid_query_error(error, role) from None
    if source.dialect == "sqlite":
        relation = replace(relation, has_unreadable_times=_has_unreadable_times(source, relation))
    check_types(source.dialect, types, extra or ())
    return _with_canonical_ids(source, relation, types), types


def _with_canonical_ids(source: DatabaseConnection, relation: SourceRelation, types: dict[str, str]) -> SourceRelation:
    found = {
        name: find_id_comparison(
            source.dialect,
            name,
            types.get(name, ""),
            empty_id_select(relation, name),
            lambda sql: fetch_rows(source, sql),
        )
        for name in relation.ids
    }
    return relation.compared({name: comparison for name, comparison in found.items() if comparison})


def read_query_file(path: Path) -> str:
    """The text of a query file.

    Raises:
        UsageError: It cannot be read as UTF-8 text.
    """
    try:
        if not path.is_file():
            raise UsageError(f"There is no query file {path}.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"The query file {path} cannot be read as UTF-8 text.") from None


def fetch_count(source: DatabaseConnection, sql: str) -> int:
    """The single number that a statement yields; raises as `fetch_rows`."""
    return int(fetch_rows(source, sql)[0][0])


def fetch_rows(source: DatabaseConnection, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a statement that yields few.

    Raises:
        SourceError: The database query_error it.
    """
    try:
        return [tuple(row) for row in _execute(source, sql)]
    except SQLAlchemyError as error:
        raise query_error(query_reason(error)) from None


def _execute(source: DatabaseConnection, sql: str) -> sa.CursorResult[Any]:
    return source.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def hides_rows(source: DatabaseConnection, sql: str) -> bool:
    """Whether row-level security may hide rows from a statement.

    Args:
        source: The database; only where it was opened to allow that, the answer can be yes.
        sql: A statement that yields no row.

    Raises:
        SQLAlchemyError: The database refuses it for another reason.
    """
    if not source.allows_row_security:
        return False
    _execute(source, "SAVEPOINT feedback_etl_probe")
    try:
        _execute(source, EVERY_ROW)
        _execute(source, sql).close()
    except SQLAlchemyError as error:
        if not is_row_security_error(error):
            raise
        return True
    finally:  # released too: within a savepoint, no snapshot can be exported
        _execute(source, "ROLLBACK TO feedback_etl_probe")
        _execute(source, "RELEASE feedback_etl_probe")
    return False


def _check_tables(source: DatabaseConnection, db_schema: str | None, tables: dict[str, set[str]]) -> None:
    inspector = sa.inspect(source.connection)
    if source.dialect == "mysql" and not (db_schema or inspector.default_schema_name):
        raise SourceError("The database URL names no database: mysql://user@host/NAME.")
    schemas = inspector.get_schema_names() if db_schema is not None else []
    if source.dialect == "duckdb":  # which puts the name of the database before
        schemas = [name.rpartition(".")[2] for name in schemas]
    if db_schema is not None and db_schema not in schemas:
        raise SourceError(f"The database has no schema {db_schema} (db_schema). It has: {_some(schemas)}.")
    missing = [name for name in tables if not inspector.has_table(name, schema=db_schema)]
    if missing:
        found = sorted({*inspector.get_table_names(db_schema), *inspector.get_view_names(db_schema)})
        raise SourceError(
            f"The database has no table {', '.join(missing)}. It has: {_some(found)}. Is it the right database? "
            "For tables in another schema set db_schema; for another layout use --query."
        )
    faults = []
    for name, used in tables.items():
        columns = list(reflect_columns(inspector, name, db_schema))
        known = columns if source.dialect == "postgresql" else {column.lower() for column in columns}
        if lacking := sorted(used.difference(known)):
            faults.append(f"{name} has no column {', '.join(lacking)} (it has {_some(columns)})")
    if faults:
        raise SourceError(f"{'; '.join(faults)}. For another layout use --query.")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
    return shown + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")


def _wanted(extra: Sequence[ExtraColumn]) -> list[str]:
    """What a query has to yield."""
    return [*RAW_COLUMNS, *(each.name for each in extra), *([IMAGE_OPT_IN] if IMAGE_URL in extra else [])]


def _check_names(names: list[str], extra: Sequence[ExtraColumn] | None) -> None:
    wanted = _wanted(extra or ())
    missing = [name for name in wanted if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    unexpected = [name for name in names if name not in {*wanted, CONSENT, *twice}] if extra is not None else []
    faults = [
        f"{word} {', '.join(found)}"
        for word, found in (("lacks", missing), ("has the unexpected", unexpected), ("yields twice", twice))
        if found
    ]
    if faults:
        raise SourceError(
            f"The query {' and '.join(faults)}. It has to yield {', '.join(wanted)}, and optionally {CONSENT}."
        )


def _described(
    source: DatabaseConnection, sql: str, extra: Sequence[ExtraColumn] | None = None
) -> tuple[list[str], dict[str, str]]:
    """The columns that a statement yields, and what their types are called (nothing on SQLite)."""
    result = _execute(source, sql)
    described = [(str(column[0]), column[1]) for column in (result.cursor.description if result.cursor else ())]
    result.close()
    # Where a name comes twice, SQLite calls the second one name:1.
    _check_names([name.partition(":")[0] if source.dialect == "sqlite" else name for name, _ in described], extra)
    types = {} if source.dialect == "sqlite" else {name: type_name(source.dialect, code) for name, code in described}
    return [name for name, _ in described], types


def _has_unreadable_times(source: DatabaseConnection, relation: SourceRelation) -> bool:
    """Return whether a text of `created_at` is no ISO time; refuse numbers, which are in no window.

    SQLite sorts numbers before all text and bytes after it. Digits alone are the same, written as text.
    """
    time = relation.columns["created_at"]
    is_number = sa.or_(text_times.is_number(time), text_times.is_epoch(time))
    one: sa.ColumnElement[int] = sa.literal_column("1")
    some = sa.select(one).select_from(relation.feedback_table).where(text_times.is_unreadable(time)).limit(1)
    if not fetch_rows(source, relation.render(some)):
        return False
    count = sa.select(sa.func.count()).select_from(relation.feedback_table).where(is_number)
    if numbers := fetch_count(source, relation.render(count)):
        raise SourceError(
            f"created_at holds numbers in {numbers:,} row{'' if numbers == 1 else 's'}; ISO 8601 text is expected. "
            "Convert them in a --query: seconds since 1970 by datetime(created_at, 'unixepoch'), "
            "milliseconds by strftime('%Y-%m-%d %H:%M:%f', created_at / 1000.0, 'unixepoch')."
        )
    return True
