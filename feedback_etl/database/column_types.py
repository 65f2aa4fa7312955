"""Reflect the columns of tables, name the types of columns, and check that an export can use them."""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SAWarning

from feedback_etl.database.raw_types import list_raw_types
from feedback_etl.errors import SourceError
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import FeedbackSchema

_MYSQL = {
    1: "tinyint",
    2: "smallint",
    9: "mediumint",
    3: "int",
    8: "bigint",
    **dict.fromkeys((0, 246), "decimal"),
    4: "float",
    5: "double",
    16: "bit",
    **dict.fromkeys((15, 253, 254), "varchar"),
    **dict.fromkeys((249, 250, 251, 252), "text"),
    245: "json",
    7: "timestamp",
    12: "datetime",
    10: "date",
    11: "time",
    13: "year",
    6: "null",
}
"""The type numbers of MySQL's protocol. CHAR, ENUM and BINARY share a number, TEXT and BLOB too."""

_DUCKDB = {
    **dict.fromkeys(("tinyint", "utinyint", "smallint"), "int2"),
    **dict.fromkeys(("usmallint", "integer"), "int4"),
    **dict.fromkeys(("uinteger", "bigint", "ubigint"), "int8"),
    "float": "float4",
    "double": "float8",
    "decimal": "numeric",
    "boolean": "bool",
    "varchar[]": "text[]",
    "timestamp with time zone": "timestamptz",
    **dict.fromkeys(("timestamp_s", "timestamp_ms"), "timestamp"),
    "enum": "unknown",
    '"null"': "null",
    '"null"[]': "text[]",
}
"""DuckDB's type names that differ from PostgreSQL's."""

_NUMBER = re.compile("(tiny|small|medium|big|u?huge)?int[248]?|float[48]?|numeric|decimal|double")
_FROM_EPOCH = {"postgresql": "to_timestamp", "mysql": "from_unixtime", "duckdb": "to_timestamp"}


def get_type_name(dialect: str, code: Any, length: int | None = None) -> str:
    """Return PostgreSQL's or MySQL's name of a type in a cursor's description; DuckDB's have PostgreSQL's names.

    A NULL without a type is "null", which MariaDB describes as text of the length 0.

    >>> get_type_name("mysql", 253), get_type_name("duckdb", "DECIMAL(3,1)")
    ('varchar', 'numeric')
    """
    if dialect == "mysql":
        return "null" if length == 0 else _MYSQL.get(code, "unknown")
    if dialect == "duckdb":
        name = re.sub(r"\(.*\)", "", str(code)).lower()
        return _DUCKDB.get(name, name)
    from psycopg import adapters

    type_ = adapters.types.get(code)
    if type_ is None:
        return "unknown"
    return f"{type_.name}[]" if type_.array_oid == code else type_.name


def reflect_columns(inspector: sa.Inspector, table: str, db_schema: str | None) -> dict[str, Any]:
    """Return the columns of a table or view, with their types of SQLAlchemy."""
    if inspector.dialect.name == "duckdb":
        return _describe_columns(inspector, table, db_schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # about types that SQLAlchemy does not know
        return {str(column["name"]): column["type"] for column in inspector.get_columns(table, schema=db_schema)}


def _describe_columns(inspector: sa.Inspector, table: str, db_schema: str | None) -> dict[str, Any]:
    empty: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(sa.table(table, schema=db_schema)).limit(0)
    connection: Any = inspector.bind
    with connection.execute(empty) as result:
        names = {str(name): get_type_name("duckdb", code) for name, code, *_ in result.cursor.description}
    return {
        column: sa.Boolean() if name == "bool" else sa.Integer() if name.startswith("int") else sa.Text()
        for column, name in names.items()
    }


def check_types(dialect: str, types: Mapping[str, str], schema: FeedbackSchema = CLASSIC_SCHEMA) -> None:
    """Refuse columns of a wrong type.

    Raises:
        SourceError: The message names each column, its type and the expected one.
    """
    expected = list_raw_types(schema)
    wrong = {
        column: name
        for column, name in types.items()
        if column in expected
        and name not in (expected[column].mysql if dialect == "mysql" else expected[column].postgresql)
    }
    if not wrong:
        return
    problems = [
        f"{column} is {'of a user-defined type' if name == 'unknown' else name}, expected {expected[column].expected}"
        for column, name in wrong.items()
    ]
    remedies = "".join(
        f" Seconds since 1970 become times by {_FROM_EPOCH[dialect]}({column}), "
        f"milliseconds by {_FROM_EPOCH[dialect]}({column} / 1000.0)."
        for column, name in wrong.items()
        if expected[column] == expected["created_at"] and _NUMBER.fullmatch(name)
    )
    raise SourceError(
        f"Columns of a wrong type: {'; '.join(problems)}. Cast them in a query (--query, or "
        f"that of [source]).{remedies}"
    )
