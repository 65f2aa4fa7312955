"""Ids of a row in its own columns: an id that a query renames would undo the pseudonyms."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.privacy.id_traces import (
    MIN_ID_LENGTH,
    compact,
    describe_ids,
    extract_number,
    find_traces,
    split_elements,
)

MIN_DISTINCT_IDS = 3
"""Different ids that make a coincidence of short ones unlikely."""

_MAX_SHORT, MAX_LONG = 0.5, 0.001
"""Shares of the values of a column from which they count as ids: of short ids, and of long ones."""

_DECIMAL, _TIME = r"^[+-]?[\d.]+$", r"^[+-]?\d+[-:]\d\d[-:]\d\d"
"""The text of a number, and the beginning of that of a date or time."""

Columns = Mapping[str, tuple[Sequence[str], bool]]
"""The names of the ids to find, and whether they are also found within a text, by column."""


class IdCounts(NamedTuple):
    """Counts of the values of one column that are the id of their row; they contain no id.

    Attributes:
        all: Number of values by the name of the id.
        long: The same for ids of at least `MIN_ID_LENGTH` characters.
        digests: Keyed digests of up to `MIN_DISTINCT_IDS` different values.
    """

    all: dict[str, int] = {}  # noqa: RUF012  it is not changed
    long: dict[str, int] = {}  # noqa: RUF012  it is not changed
    digests: frozenset[str] = frozenset()

    def merge(self, other: Self) -> "IdCounts":
        """Return the counts of both."""
        return IdCounts(
            dict(Counter(self.all) + Counter(other.all)),
            dict(Counter(self.long) + Counter(other.long)),
            frozenset(sorted(self.digests | other.digests)[:MIN_DISTINCT_IDS]),
        )

    def find_problems(self, values: int) -> list[str]:
        """Return, as clauses, which ids these counts of values show; none if they show none."""
        is_varied = len(self.digests) >= MIN_DISTINCT_IDS
        return [
            f"{count:,} of {values:,} contain the {name} of their row"
            for name, count in self.all.items()
            if self.long.get(name, 0) > MAX_LONG * values or (is_varied and count > _MAX_SHORT * values)
        ]


def count_ids(
    rows: pl.DataFrame,
    columns: Columns,
    values: Mapping[str, pl.Series],
    digest: Callable[[pl.Series], Sequence[str]],
) -> dict[str, IdCounts]:
    """Count the values that are an id of their row, by column; columns without any are left out.

    Args:
        rows: Training pairs with their raw ids.
        columns: The columns to inspect, and the ids to find.
        values: The distinct texts, or elements of lists, by column; those of other columns are not used.
        digest: Return the smallest digests of ids.
    """
    texts = {name: ids for name, ids in columns.items() if isinstance(rows.schema[name], pl.String | pl.List)}
    others = {name: ids for name, ids in columns.items() if name not in texts}
    result: dict[str, IdCounts] = {}
    for column, name, ids in [*_find_in_rows(rows, others), *_find_in_texts(rows, texts, values)]:
        if not ids.is_empty():
            long = int((ids.str.len_chars() >= MIN_ID_LENGTH).sum())
            added = IdCounts({name: ids.len()}, {name: long}, frozenset(digest(ids)))
            result[column] = result.get(column, IdCounts()).merge(added)
    return result


def _find_in_rows(rows: pl.DataFrame, columns: Columns) -> Iterator[tuple[str, str, pl.Series]]:
    """Yield each column, the name of an id, and the ids that the column contains in their row."""
    pairs = [
        (column, name, is_searched)
        for column, (names, is_searched) in columns.items()
        for name in names
        if _are_comparable(rows.schema[column], rows[name])
    ]
    found = rows.select(
        pl.col(name)
        .filter(contains_own_id(column, rows.schema[column], name, rows.schema[name], is_searched=is_searched))
        .cast(pl.String)
        .implode()
        .alias(f"{column} {name}")
        for column, name, is_searched in pairs
    )
    yield from ((column, name, found.item(0, f"{column} {name}")) for column, name, _ in pairs)


def _are_comparable(dtype: pl.DataType, ids: pl.Series) -> bool:
    """Return whether values can equal ids: a number or a time only equals texts that look like one."""
    if ids.dtype != pl.String or not (dtype.is_numeric() or dtype.is_temporal()):
        return True
    return bool(ids.str.contains(_TIME if dtype.is_temporal() else _DECIMAL).any())


def _find_in_texts(
    rows: pl.DataFrame, columns: Columns, values: Mapping[str, pl.Series]
) -> Iterator[tuple[str, str, pl.Series]]:
    """Yield the same as `_find_in_rows` for columns of texts and lists, but compare few rows; see `id_traces`."""
    searched = [
        column for column, (_, is_searched) in columns.items() if is_searched and rows.schema[column] == pl.String
    ]
    texts = {column: values[column] for column in columns}
    names = dict.fromkeys(name for names, _ in columns.values() for name in names)
    traces = {id_type: find_traces(texts, searched, id_type) for id_type in {rows.schema[name] for name in names}}
    for name in names:
        inspected = [column for column, (names, _) in columns.items() if name in names]
        may_be_in, ids = traces[rows.schema[name]].may_be_in, describe_ids(rows[name])
        is_near = ids.select(may_be_in(inspected)).to_series()
        near, ids = rows.filter(is_near), ids.filter(is_near)
        for column in () if near.is_empty() else inspected:
            part = near.filter(ids.select(may_be_in([column])).to_series())
            if not part.is_empty():
                yield from _find_in_rows(part, {column: ((name,), columns[column][1])})


def contains_own_id(column: str, dtype: pl.DataType, name: str, id_type: pl.DataType, *, is_searched: bool) -> pl.Expr:
    """Return whether a value is an id of its row, as a number or a text.

    Within a text, an id is found as the only number (`user-0042`), as an element of a list, and anywhere if it is long.

    Args:
        column: The column of the export.
        dtype: Its dtype.
        name: The id, one of `schema.model.RAW_IDS`.
        id_type: Its dtype.
        is_searched: Whether ids are also found within a text.
    """
    value, own = pl.col(column), pl.col(name)
    text = own.cast(pl.String)
    if isinstance(dtype, pl.List):
        return value.list.contains(text).fill_null(value=False)
    if dtype.is_numeric() and id_type.is_integer():
        value, own = value.abs(), own.abs()
    if dtype.is_float():
        value = pl.when(value == value.floor()).then(value).cast(pl.Int64, strict=False)
    is_id = value.cast(id_type, strict=False) == own if id_type.is_integer() else value.cast(pl.String) == own
    if is_searched and dtype == pl.String:
        is_id |= extract_number(value) == text
        is_id |= split_elements(value).list.contains(text)
        is_long = compact(text).str.len_chars() >= MIN_ID_LENGTH
        is_id |= is_long & compact(value).str.contains(compact(text), literal=True)
    return is_id.fill_null(value=False)
