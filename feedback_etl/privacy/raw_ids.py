"""Ids of a row in its own columns: an id that a query renames would undo the pseudonyms."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

import polars as pl

MIN_ID_LENGTH = 6
"""Characters; shorter ids occur in columns and texts by chance."""

MIN_DISTINCT_IDS = 3
"""Different ids that make a coincidence of short ones unlikely."""

_MAX_SHORT, _MAX_LONG = 0.5, 0.001
"""Shares of the values of a column from which they count as ids: of short ids, and of long ones."""

_NUMBER = r"^\D*?0*([1-9]\d*)(?:\.0+)?\D*$"
_SEPARATORS = r"[^\p{L}\p{N}]+"


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
        """Return which ids so many values of a column are, as clauses; none if they are not."""
        is_varied = len(self.digests) >= MIN_DISTINCT_IDS
        return [
            f"{count:,} of {values:,} contain the {name} of their row"
            for name, count in self.all.items()
            if self.long.get(name, 0) > _MAX_LONG * values or (is_varied and count > _MAX_SHORT * values)
        ]


def count_ids(
    rows: pl.DataFrame,
    columns: Mapping[str, tuple[Sequence[str], bool]],
    digest: Callable[[pl.Series], Sequence[str]],
) -> dict[str, IdCounts]:
    """Count the values that are an id of their row, by column; columns without any are left out.

    Args:
        rows: Training pairs with their raw ids.
        columns: The names of the ids to find, and whether texts are searched, by column.
        digest: Return the smallest digests of ids.
    """
    matches = {
        (column, name): contains_own_id(column, rows.schema[column], name, rows.schema[name], is_searched=is_searched)
        for column, (names, is_searched) in columns.items()
        for name in names
    }
    if not matches:
        return {}
    counts = rows.select(is_id.sum().alias(f"{column} {name}") for (column, name), is_id in matches.items())
    result: dict[str, IdCounts] = {}
    for ((column, name), is_id), count in zip(matches.items(), counts.row(0), strict=True):
        if count:
            ids = rows.filter(is_id)[name].cast(pl.String)
            long = int((ids.str.len_chars() >= MIN_ID_LENGTH).sum())
            added = IdCounts({name: count}, {name: long}, frozenset(digest(ids)))
            result[column] = result.get(column, IdCounts()).merge(added)
    return result


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
        compact, own_compact = (part.str.to_lowercase().str.replace_all(_SEPARATORS, "") for part in (value, text))
        is_long = own_compact.str.len_chars() >= MIN_ID_LENGTH
        is_id |= value.str.extract(_NUMBER) == text
        is_id |= value.str.split(",").list.contains(text)
        is_id |= is_long & compact.str.contains(own_compact, literal=True)
    return is_id.fill_null(value=False)
