"""k-anonymity of an export: the number of people in each equivalence class, not of rows."""

import io
from collections.abc import Sequence
from typing import Any, Self

import polars as pl

from feedback_etl.privacy.anonymity_policy import MAX_COUNTED_PEOPLE, KAnonymityPolicy
from feedback_etl.privacy.keys import Key, sign_column
from feedback_etl.privacy.risk_measures import summarize_classes

_MAX_PARTS = 64
_DIGEST_LENGTH = 16
"""Hex digits, 64 bits: enough to distinguish the counted people of one class."""

IS_FULL = "is full"
"""Column of classes that have reached the cap. No column of an export has a blank in its name."""


class ClassCounter:
    """Count the people of each equivalence class, batch by batch.

    >>> people = ClassCounter(["age_range"], cap=10)
    >>> people.add(pl.DataFrame({"age_range": ["18-25", "18-25", None]}), pl.Series([1, 1, None]))
    >>> people.classes().sort("rows", descending=True).rows()
    [('18-25', 1, 2), (None, 1, 1)]
    """

    def __init__(self, quasi_identifiers: Sequence[str], cap: int = MAX_COUNTED_PEOPLE) -> None:
        self._columns, self._cap = list(dict.fromkeys(quasi_identifiers)), cap
        self._parts: list[pl.DataFrame] = []
        self._has_digests = False

    def empty_copy(self) -> Self:
        """Return a counter of the same classes without rows."""
        return type(self)(self._columns, self._cap)

    def add(self, pairs: pl.DataFrame, users: pl.Series) -> None:
        """Count rows; all rows without a user count as one person.

        Args:
            pairs: Rows with the quasi-identifiers.
            users: User id of each row.
        """
        people_ids = users.cast(pl.Int64 if users.dtype.is_integer() and users.dtype != pl.UInt64 else pl.String)
        rows = pairs.select(self._columns).with_columns(people_ids.alias("people"))
        people = pl.col("people").unique().head(self._cap)
        is_full = pl.lit(value=False).alias(IS_FULL)
        classes = rows.group_by(self._columns).agg(people, pl.len().cast(pl.Int64).alias("rows"), is_full)
        self._append(self._forget_full(classes))

    def _append(self, classes: pl.DataFrame) -> None:
        self._parts.append(classes)
        if len(self._parts) > _MAX_PARTS:
            self._parts = [self._merge()]

    def _merge(self) -> pl.DataFrame:
        parts = self._parts
        if len({part.schema["people"] for part in parts}) > 1:  # ids as numbers in one batch, as text in another
            parts = [part.with_columns(pl.col("people").cast(pl.List(pl.String))) for part in parts]
        people = pl.col("people").list.explode(keep_nulls=True, empty_as_null=False).unique().head(self._cap)
        classes = pl.concat(parts).group_by(self._columns).agg(people, pl.col("rows").sum(), pl.col(IS_FULL).any())
        return self._forget_full(classes)

    def _forget_full(self, classes: pl.DataFrame) -> pl.DataFrame:
        """Forget the people of classes that have reached the cap: their number can only grow."""
        is_full = pl.col(IS_FULL) | (pl.col("people").list.len() >= self._cap)
        people = pl.when(is_full).then(pl.col("people").list.head(0)).otherwise("people").alias("people")
        return classes.with_columns(people, is_full.alias(IS_FULL))

    def to_table(self, key: Key | None) -> pl.DataFrame:
        """Return the classes with keyed digests in place of people; without rows, a frame without columns.

        The columns are the quasi-identifiers, `people`, `rows`, and whether a class has reached the cap, which then has
        no digests. Digests that were merged stay as they are.
        """
        if not self._parts:
            return pl.DataFrame()
        digest = pl.element() if self._has_digests else digest_people(pl.element(), key)
        return self._merge().with_columns(pl.col("people").list.eval(digest))

    def merge_table(self, classes: pl.DataFrame) -> None:
        """Add the classes of other rows, as `to_table` returns them."""
        if classes.height:
            self._has_digests = True
            self._append(classes)

    def to_digests(self, key: Key | None) -> bytes:
        """Return `to_table` as an Arrow IPC stream, for `merge_digests`; empty without rows."""
        stream = io.BytesIO()
        if self._parts:
            self.to_table(key).write_ipc_stream(stream, compression="zstd")
        return stream.getvalue()

    def merge_digests(self, classes: bytes) -> None:
        """Add the classes of other rows, as `to_digests` returns them."""
        if classes:
            self.merge_table(pl.read_ipc_stream(classes))

    @property
    def has_rows(self) -> bool:
        """Whether rows were counted."""
        return bool(self._parts)

    @property
    def cap(self) -> int:
        """The number of people up to which a class is counted; a larger class counts as this number."""
        return self._cap

    def table(self) -> pl.DataFrame:
        """Return the classes: the columns, `people` (lists), `rows` and `IS_FULL` (the list is then empty)."""
        return self._merge()

    def classes(self) -> pl.DataFrame:
        """Return the equivalence classes: the quasi-identifiers, `people` (at most the cap) and `rows`."""
        if not self._parts:
            return pl.DataFrame(schema={**dict.fromkeys(self._columns, pl.Null), "people": pl.Int64, "rows": pl.Int64})
        people = pl.when(IS_FULL).then(self._cap).otherwise(pl.col("people").list.len()).cast(pl.Int64)
        return self._merge().with_columns(people.alias("people")).drop(IS_FULL)


def digest_people(people: pl.Expr, key: Key | None) -> pl.Expr:
    """Return keyed digests of user ids that distinguish the people of a class; null for null."""
    return sign_column(people.cast(pl.String), "person of a class", key).str.slice(0, _DIGEST_LENGTH)


def select_classes(rows: pl.DataFrame, classes: pl.DataFrame, quasi_identifiers: Sequence[str]) -> pl.DataFrame:
    """Return the rows that are in one of these equivalence classes, in their order; null equals null."""
    if rows.is_empty() or classes.is_empty():
        return rows.clear()
    names = list(dict.fromkeys(quasi_identifiers))
    wanted = classes.select(pl.col(name).cast(rows.schema[name]) for name in names)
    return rows.join(wanted, on=names, how="semi", nulls_equal=True, maintain_order="left")


def drop_small_classes(pairs: pl.DataFrame, small: pl.DataFrame, quasi_identifiers: Sequence[str]) -> pl.DataFrame:
    """Return the rows that are in none of these equivalence classes, in their order; null equals null."""
    names = list(dict.fromkeys(quasi_identifiers))
    if small.is_empty():
        return pairs
    classes = small.select(pl.col(name).cast(pairs.schema[name]) for name in names)
    return pairs.join(classes, on=names, how="anti", nulls_equal=True, maintain_order="left")


def summarize(classes: pl.DataFrame, policy: KAnonymityPolicy, cap: int) -> dict[str, Any]:
    """Summarize the equivalence classes of an export for its report and manifest.

    Where all classes reach the cap, `k` is a lower bound (`at_least`) and risks are upper bounds. A person with rows in
    several small classes counts in each of them in `people_in_classes_under_5`, as in `Risk.small_people`. Where no row
    is published, `k` and the risks are None.
    """
    summary = summarize_classes(classes["people"], classes["rows"])
    nothing = dict.fromkeys(() if summary.rows else ("k", "share_unique", "average_risk", "highest_risk"))
    return {
        "k": summary.k,
        "at_least": summary.k >= cap,
        "required_k": policy.k,
        "quasi_identifiers": list(policy.quasi_identifiers),
        "classes": summary.classes,
        "rows_in_classes_under_5": summary.small_rows,
        "people_in_classes_under_5": summary.small_people,
        "share_unique": summary.share_unique,
        "average_risk": summary.average_risk,
        "highest_risk": summary.highest_risk,
        "stale": False,
    } | nothing
