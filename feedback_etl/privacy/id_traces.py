"""Traces of ids in distinct texts: what an id must be if one of these texts contains it.

The texts of a column repeat, and few ids occur in them. So few rows have an id that may be in the text of a column, and
no other row has to be compared with its own id (`raw_ids.contains_own_id`).
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import polars as pl

MIN_ID_LENGTH = 6
"""Characters; shorter ids occur in columns and texts by chance."""

_MAX_SEARCHED, _MAX_LENGTH = 1_000_000, 200
"""Characters of all distinct texts of a column and of one of them, up to which the ends of ids are listed."""

_NUMBER = r"^\D*?0*([1-9]\d*)(?:\.0+)?\D*$"
_SEPARATORS = r"[^\p{L}\p{N}]+"


class IdTraces(NamedTuple):
    """Texts that an id is or ends with if a text of a column contains it.

    Attributes:
        ids: By `column`, each `text` that is read as an id.
        ends: By `column`, each `text` of `MIN_ID_LENGTH` characters that may be the end of a long id.
        unlisted: The columns that have too many ends to list.
    """

    ids: pl.DataFrame
    ends: pl.DataFrame
    unlisted: frozenset[str]

    def may_be_in(self, columns: Collection[str]) -> pl.Expr:
        """Return whether a text of these columns may contain an id of `describe_ids`."""
        if not self.unlisted.isdisjoint(columns):
            return pl.col("text").is_not_null()
        ids, ends = (traces.filter(pl.col("column").is_in(columns))["text"] for traces in (self.ids, self.ends))
        return pl.col("text").is_in(ids.implode()) | pl.col("end").is_in(ends.implode())


def describe_ids(ids: pl.Series) -> pl.DataFrame:
    """Return the `text` of each id, and its `end`: the last of its letters and digits, in lower case."""
    texts = ids.cast(pl.String).alias("text")
    ends = texts.str.tail(MIN_ID_LENGTH)
    if not ends.str.contains("^[0-9a-z]*$").all():  # the check costs a tenth of `compact`, and most ids pass it
        ends = texts.to_frame().select(compact(pl.col("text")).str.tail(MIN_ID_LENGTH)).to_series()
    return pl.DataFrame({"text": texts, "end": ends})


def find_traces(values: Mapping[str, pl.Series], searched: Collection[str], id_type: pl.DataType) -> IdTraces:
    """Return the traces of ids in the distinct texts of columns.

    Args:
        values: The distinct texts, or elements of lists, by column.
        searched: The columns in which ids are also found within a text.
        id_type: The dtype of the ids.
    """
    rows = pl.concat(texts.to_frame("text").with_columns(column=pl.lit(name)) for name, texts in values.items())
    text, inner = pl.col("text"), rows.filter(pl.col("column").is_in(searched))
    ids = [
        rows.with_columns(text.cast(id_type, strict=False).cast(pl.String)),
        inner.with_columns(extract_number(text)),
        inner.with_columns(split_elements(text)).explode("text"),
    ]
    return IdTraces(pl.concat(ids).drop_nulls().unique(), *_find_ends(inner))


def _find_ends(rows: pl.DataFrame) -> tuple[pl.DataFrame, frozenset[str]]:
    """Return the possible ends of long ids in the texts of columns, and the columns that have too many."""
    length = pl.col("text").str.len_chars().cast(pl.Int64)
    rows = rows.with_columns(compact(pl.col("text"))).unique().filter(length >= MIN_ID_LENGTH)
    is_listed = (length.sum() <= _MAX_SEARCHED) & (length.max() <= _MAX_LENGTH)
    rows = rows.with_columns(is_listed=is_listed.over("column"))
    starts = rows.filter("is_listed").with_columns(start=pl.int_ranges(0, length - MIN_ID_LENGTH + 1)).explode("start")
    ends = starts.select("column", pl.col("text").str.slice(pl.col("start"), MIN_ID_LENGTH)).unique()
    return ends, frozenset(rows.filter(~pl.col("is_listed"))["column"])


def extract_number(text: pl.Expr) -> pl.Expr:
    """Return the only number of a text, without leading zeros; null if there is none or more than one."""
    return text.str.extract(_NUMBER)


def split_elements(text: pl.Expr) -> pl.Expr:
    """Return the elements of a list that is joined by commas."""
    return text.str.split(",")


def compact(text: pl.Expr) -> pl.Expr:
    """Return the letters and digits of a text, in lower case."""
    return text.str.to_lowercase().str.replace_all(_SEPARATORS, "")
