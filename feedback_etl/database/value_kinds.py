"""Infer what columns of text and JSON contain from a sample of their values, which is not kept."""

import json
import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.naming import ID_WORDS, ITEM_WORDS, USER_WORDS, split_words
from feedback_etl.database.reflection import MAX_WORD_LENGTH, ColumnKind, ReflectedTable, Scale
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.tables import DIALECTS

_SAMPLE_ROWS = 1_000
_PATTERNS: dict[ColumnKind, re.Pattern[str]] = {
    "integer": re.compile(r"0|[+-]?[1-9][0-9]{0,17}"),  # 007 is an id
    "number": re.compile(r"[+-]?((0|[1-9][0-9]*)\.[0-9]+|0|[1-9][0-9]{0,17})"),  # longer whole numbers are ids
    "boolean": re.compile(r"true|false", re.IGNORECASE),
    "time": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}.*)?"),
    "word": re.compile(rf"\S{{1,{MAX_WORD_LENGTH}}}"),
}
_MIN_JSON_SHARE = 0.99
"""Share of values that are JSON in a column of lists or maps; an export rejects the others, with a reason."""
_JSON: tuple[ColumnKind, ...] = ("list", "map")
_MAX_RATING = 1e9
"""Numbers from here on, and infinity, are not ratings."""
_UNTYPED = (*_JSON, "word")
"""Kinds of which columns of text can be in SQLite and DuckDB, whose types have no length."""


def with_value_kinds(source: DatabaseConnection, table: ReflectedTable) -> ReflectedTable:
    """Return a table whose columns of text and JSON have the kind of their values, as far as the source is read so.

    Text of raw files is converted to any type, and a table of them gets a key; a database has lists and maps in text.
    A column of JSON is a list if it has no values.
    """
    names = [column.name for column in table.columns]
    json_names = [column.name for column in table.columns if column.kind == "json"]
    texts = [column.name for column in table.columns if column.kind in ("text", "json")]
    if not names:
        return table
    rows = sa.table(table.name, *map(sa.column, names if source.has_files else texts), schema=table.db_schema)
    if not rows.columns:
        return table
    statement = sa.select(*rows.columns).limit(sa.literal_column(str(_SAMPLE_ROWS)))
    dialect = DIALECTS["postgresql" if source.dialect == "duckdb" else source.dialect]
    sample = fetch_rows(source, statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}).string)
    values = {column.name: [row[number] for row in sample] for number, column in enumerate(rows.columns)}
    values |= {name: [*map(_to_json, values[name])] for name in json_names}
    usable = (*_PATTERNS, *_JSON) if source.has_files else _UNTYPED if source.dialect in ("sqlite", "duckdb") else _JSON
    kinds: dict[str, ColumnKind] = {name: "other" if any(values[name]) else "list" for name in json_names}
    inferred = {name: infer_kind(values[name]) for name in texts}
    kinds |= {name: kind for name, kind in inferred.items() if kind in (_JSON if name in json_names else usable)}
    scales = {name: measure_maps(values[name]) for name, kind in kinds.items() if kind == "map"}
    columns = tuple(
        column._replace(kind=kinds.get(column.name, column.kind), scale=scales.get(column.name))
        for column in table.columns
    )
    return table._replace(columns=columns, key=_find_file_key(values) if source.has_files else table.key)


def infer_kind(values: Sequence[Any]) -> ColumnKind:
    """Return what texts contain; nulls and blanks have no meaning, and without others they are text.

    >>> infer_kind(["5", None]), infer_kind(["4.5", "3"]), infer_kind(['["a"]', "[]"])
    ('integer', 'number', 'list')
    >>> infer_kind(["007"]), infer_kind(["1234567890123456789"])
    ('word', 'word')
    >>> infer_kind(['{"a": 5}', "{}"]), infer_kind([*['["a"]'] * 99, "-"]), infer_kind([*['["a"]'] * 98, "no tag"])
    ('map', 'list', 'text')
    >>> infer_kind(['{"a": 1' + "0" * 400 + "}"]), infer_kind(["[" * 100_000]), infer_kind(['{"a": true}'])
    ('text', 'text', 'text')
    """
    texts = [value for value in values if value is not None and str(value).strip()]
    if not texts or not all(isinstance(value, str) for value in texts):
        return "text"
    parsed = [_parse_json(text) for text in texts]
    if sum(map(_is_list, parsed)) >= _MIN_JSON_SHARE * len(texts):
        return "list"
    if any(parsed) and sum(map(_is_map, parsed)) >= _MIN_JSON_SHARE * len(texts):
        return "map"
    return next((kind for kind, pattern in _PATTERNS.items() if all(map(pattern.fullmatch, texts))), "text")


def measure_maps(values: Sequence[Any]) -> Scale:
    """Return the scale of the numbers in JSON maps.

    >>> measure_maps(['{"a": 5, "b": 1.5}', None, "none"])
    Scale(min=1.5, max=5, step=0.5)
    """
    maps = [value for value in map(_parse_json, values) if _is_map(value)]
    numbers = [number for value in maps for number in value.values() if number is not None]
    step = next((step for step in (1, 0.5) if all(number % step == 0 for number in numbers)), None)
    return Scale(min(numbers, default=None), max(numbers, default=None), step)


def _to_json(value: Any) -> str | None:
    """Return the text of a value of JSON, which some drivers parse; None for null."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _parse_json(text: Any) -> Any:
    """Return the list or the map of a text; None for other values."""
    try:
        return json.loads(text) if str(text).lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(element, str) for element in value)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(
        number is None or (type(number) in (int, float) and abs(number) < _MAX_RATING) for number in value.values()
    )


def _find_file_key(values: dict[str, list[Any]]) -> tuple[str, ...]:
    """Return the first column of distinct ids that do not identify a person or what was rated."""
    others = USER_WORDS | {*ITEM_WORDS}
    for name, cells in values.items():
        words = split_words(name)
        if words & ID_WORDS and not words & others and None not in cells and len({*cells}) == len(cells):
            return (name,)
    return ()
