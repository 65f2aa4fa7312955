"""Rows of an incremental series with their people: those that are pending, and the members of its classes.

Both are kept for the next export of the series, without ids: rows have the pseudonym of their analysis, by which an
erasure finds them, and a keyed digest of their person.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.privacy.k_anonymity import digest_people
from feedback_etl.privacy.keys import Key

PERSON = "digest of the person"
SINCE = "pending since"
EXPORT = "number of the export"
OCCURRENCE = "number among equal pairs"
"""Columns of these rows. No column of an export has a blank in its name."""


def add_people(pairs: pl.DataFrame, user_ids: pl.Series, key: Key | None) -> pl.DataFrame:
    """Return training pairs with the digest of the user of each; null for rows without one."""
    return pairs.with_columns(user_ids.alias(PERSON)).with_columns(digest_people(pl.col(PERSON), key))


def is_newest(pair_key: Sequence[str]) -> pl.Expr:
    """Return whether a row is the newest version of its pair in a series, as `scan_training` finds it."""
    return pl.col(EXPORT) == pl.col(EXPORT).max().over([*pair_key, OCCURRENCE])


class SeriesMembers(NamedTuple):
    """The people of the equivalence classes that were released with the exports of a series.

    Attributes:
        quasi_identifiers: Columns of the classes.
        cap: Number of people of a class that are remembered.
        rows: Members: pseudonym, person, quasi-identifiers as published, and number of the export. A frame without
            columns if there are none.
        number: Number of this export.
        pair_key: In a series that follows changes, the columns that are equal in all versions of a row. All versions
            are members then, with these columns and `OCCURRENCE`.
    """

    quasi_identifiers: Sequence[str]
    cap: int
    rows: pl.DataFrame
    number: int
    pair_key: Sequence[str] = ()

    def select(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the columns of members, whether their rows are released or not."""
        columns = dict.fromkeys([PSEUDONYM, PERSON, *self.pair_key, *self.quasi_identifiers])
        return rows.select(pl.col(list(columns))).with_columns(pl.col(pl.Enum).cast(pl.String))

    def add(self, released: pl.DataFrame) -> Self:
        """Return them with the people of rows as they are published, once in a class and with their newest export."""
        if released.is_empty():
            return self
        names = list(self.quasi_identifiers)
        members = self.select(released).with_columns(pl.lit(self.number, pl.Int64).alias(EXPORT))
        rows = pl.concat([self.rows, members], how="diagonal_relaxed")
        if self.pair_key:  # numbered as `scan_training` does
            is_new, number = pl.col(EXPORT) == self.number, pl.int_range(pl.len()).over([EXPORT, *self.pair_key])
            earlier = pl.col(OCCURRENCE) if OCCURRENCE in rows.columns else None
            return self._replace(
                rows=rows.with_columns(pl.when(is_new).then(number).otherwise(earlier).alias(OCCURRENCE))
            )
        newest = rows.unique([PERSON, *names], keep="last", maintain_order=True)
        newest = newest.group_by(names, maintain_order=True).tail(self.cap).select(members.columns)
        return self._replace(rows=newest)
