"""Rows of an incremental series with their people: those that wait for k people, and the members of its classes.

Both are kept for the next export of the series, without ids: rows have the pseudonym of their analysis, by which an
erasure finds them, and a keyed digest of their person.
"""

from collections.abc import Sequence

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


def version(pair_key: Sequence[str], number: int) -> list[pl.Expr]:
    """Return what distinguishes versions: the number of their export, and that of a row among those of its pair."""
    return [pl.lit(number, pl.Int64).alias(EXPORT), pl.int_range(pl.len()).over(pair_key).alias(OCCURRENCE)]


def is_newest(pair_key: Sequence[str]) -> pl.Expr:
    """Return whether a row is the newest version of its pair in a series, as `scan_training` finds it."""
    return pl.col(EXPORT) == pl.col(EXPORT).max().over([*pair_key, OCCURRENCE])


class SeriesMembers:
    """The people of the equivalence classes that have left with the exports of a series.

    Args:
        quasi_identifiers: Columns of the classes.
        cap: Number of people of a class that are remembered.
        stored: Members that earlier exports have stored: pseudonym, person, quasi-identifiers as published, and number
            of the export. A frame without columns if there are none.
        number: Number of this export.
        pair_key: In a series that follows changes, columns that are equal in all versions of a row: all versions are
            remembered then, with these columns.
    """

    def __init__(
        self,
        quasi_identifiers: Sequence[str],
        cap: int,
        stored: pl.DataFrame,
        number: int,
        *,
        pair_key: Sequence[str] = (),
    ) -> None:
        self._names, self._cap, self.number = list(dict.fromkeys(quasi_identifiers)), cap, number
        self._pair_key, self._stored, self._versions = pair_key, stored, list[pl.DataFrame]()

    def select(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return what is remembered of rows, whether they leave or not."""
        columns = dict.fromkeys([PSEUDONYM, PERSON, *self._pair_key, *self._names])
        return rows.select(pl.col(list(columns))).with_columns(pl.col(pl.Enum).cast(pl.String))

    def add(self, leaving: pl.DataFrame) -> None:
        """Add the people of rows as they are published, once in a class and with their newest export."""
        if leaving.is_empty():
            return
        if self._pair_key:
            self._versions.append(self.select(leaving))
            return
        members = self.select(leaving).with_columns(pl.lit(self.number, pl.Int64).alias(EXPORT))
        newest = self._concat(members).unique([PERSON, *self._names], keep="last", maintain_order=True)
        self._stored = newest.group_by(self._names, maintain_order=True).tail(self._cap).select(members.columns)

    @property
    def rows(self) -> pl.DataFrame:
        """The members to store for the next export."""
        if not self._versions:
            return self._stored
        members = pl.concat(self._versions).with_columns(version(self._pair_key, self.number))
        columns = [*self._pair_key, OCCURRENCE, *self._names]
        return self._concat(members).unique(list(dict.fromkeys(columns)), keep="last", maintain_order=True)

    def _concat(self, members: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([self._stored, members], how="vertical_relaxed" if self._stored.width else "diagonal")
