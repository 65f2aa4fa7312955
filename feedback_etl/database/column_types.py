"""What the databases call the types of columns, and whether an export can be made of them."""

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
"""The numbers of MySQL's protocol; a CHAR, an ENUM and a BINARY have the same, a TEXT and a BLOB too."""

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
"""DuckDB's names that are others than PostgreSQL's."""


_FROM_EPOCH = {"postgresql": "to_timestamp", "mysql": "from_unixtime", "duckdb": "to_timestamp"}


def type_name(dialect: str, code: Any) -> str:
    """What PostgreSQL or MySQL calls the type that a cursor's description tells; DuckDB's are named as PostgreSQL's.

    >>> type_name("mysql", 253), type_name("duckdb", "DECIMAL(3,1)")
    ('varchar', 'numeric')
    """
    if dialect == "mysql":
        return _MYSQL.get(code, "unknown")
    if dialect == "duckdb":
        name = re.sub(r"\(.*\)", "", str(code)).lower()
        return _DUCKDB.get(name, name)
    return _type_of_postgresql(code)


def _type_of_postgresql(code: int) -> str:
    from psycopg import adapters

    found = adapters.types.get(code)
    if found is None:
        return "unknown"
    return f"{found.name}[]" if found.array_oid == code else found.name


def check_types(dialect: str, types: Mapping[str, str], extra: Sequence[ExtraColumn] = ()) -> None:
    """Refuse columns that cannot be meant.

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
    faults = [
        f"{name} is {'of a type of its own' if kind == 'unknown' else kind}, expected {known[name].expected}"
        for name, kind in wrong.items()
    ]
    epochs = [name for name, kind in wrong.items() if known[name] == known["created_at"] and _is_number(kind)]
    advice = "".join(
        f" Seconds since 1970 become times by {_FROM_EPOCH[dialect]}({name}), "
        f"milliseconds by {_FROM_EPOCH[dialect]}({name} / 1000.0)."
        for name in epochs
    )
    raise SourceError(f"Columns of a wrong type: {'; '.join(faults)}. Cast them in a --query.{advice}")


def _is_number(kind: str) -> bool:
    return kind.endswith("int") or kind.startswith(("int", "float", "numeric", "decimal", "double"))
