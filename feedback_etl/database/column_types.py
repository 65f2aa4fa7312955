"""Name the types of columns, and check that an export can use them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from feedback_etl.columns import ExtraColumn
from feedback_etl.database.raw_types import raw_types
from feedback_etl.errors import SourceError

_MYSQL = {
    1: "tinyint",
    2: "smallint",
    9: "mediumint",
    3: "int",
    8: "bigint",
    0: "decimal",
    246: "decimal",
    4: "float",
    5: "double",
    16: "bit",
    15: "varchar",
    253: "varchar",
    254: "varchar",
    **dict.fromkeys((249, 250, 251, 252), "text"),
    245: "json",
    7: "timestamp",
    12: "datetime",
    10: "date",
    11: "time",
    13: "year",
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
}
"""DuckDB's type names that differ from PostgreSQL's."""


_FROM_EPOCH = {"postgresql": "to_timestamp", "mysql": "from_unixtime", "duckdb": "to_timestamp"}


def type_name(dialect: str, code: Any) -> str:
    """Return PostgreSQL's or MySQL's name of a type in a cursor's description; DuckDB's have PostgreSQL's names.

    >>> type_name("mysql", 253), type_name("duckdb", "DECIMAL(3,1)")
    ('varchar', 'numeric')
    """
    if dialect == "mysql":
        return _MYSQL.get(code, "unknown")
    if dialect == "duckdb":
        name = re.sub(r"\(.*\)", "", str(code)).lower()
        return _DUCKDB.get(name, name)
    return _postgresql_type_name(code)


def _postgresql_type_name(code: int) -> str:
    from psycopg import adapters

    type_ = adapters.types.get(code)
    if type_ is None:
        return "unknown"
    return f"{type_.name}[]" if type_.array_oid == code else type_.name


def check_types(dialect: str, types: Mapping[str, str], extra: Sequence[ExtraColumn] = ()) -> None:
    """Refuse columns of a wrong type.

    Raises:
        SourceError: The message names each, with its type and what was expected.
    """
    known = raw_types(extra)
    wrong = {
        name: kind
        for name, kind in types.items()
        if name in known and kind not in (known[name].mysql if dialect == "mysql" else known[name].postgresql)
    }
    if not wrong:
        return
    problems = [
        f"{name} is {'of a user-defined type' if kind == 'unknown' else kind}, expected {known[name].expected}"
        for name, kind in wrong.items()
    ]
    epochs = [name for name, kind in wrong.items() if known[name] == known["created_at"] and _is_number(kind)]
    advice = "".join(
        f" Seconds since 1970 become times by {_FROM_EPOCH[dialect]}({name}), "
        f"milliseconds by {_FROM_EPOCH[dialect]}({name} / 1000.0)."
        for name in epochs
    )
    raise SourceError(f"Columns of a wrong type: {'; '.join(problems)}. Cast them in a --query.{advice}")


def _is_number(kind: str) -> bool:
    return kind.endswith("int") or kind.startswith(("int", "float", "numeric", "decimal", "double"))
