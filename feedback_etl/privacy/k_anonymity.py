"""k-anonymity of an export: the number of people in each equivalence class, not of rows."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import polars as pl

from feedback_etl.columns import QUASI_IDENTIFIERS, ExtraColumn, training_columns
from feedback_etl.errors import UsageError
from feedback_etl.privacy.keys import Key, sign_column
from feedback_etl.privacy.risk_measures import summarize_classes

OnSmallClass = Literal["suppress", "fail"]

MAX_COUNTED_PEOPLE = 50
"""People per equivalence class are counted up to this number; then only the count is kept, which bounds memory."""

MAX_K = 1_000

_MAX_PARTS = 64
_DIGEST_LENGTH = 16
"""Hex digits, 64 bits: enough to distinguish the counted people of one class."""

_IS_FULL = "is full"
"""Column of classes that have reached the cap. No column of an export has a blank in its name."""


@dataclass(frozen=True)
class KAnonymityPolicy:
    """Required k-anonymity of an export.

    Attributes:
        k: Least number of different people in every equivalence class; None measures only.
        on_small_class: "suppress" removes the rows of equivalence classes smaller than k, "fail" publishes nothing.
        max_suppressed: Largest share of rows that may be suppressed, 0 to 1; above it nothing is published.
        quasi_identifiers: Columns of the export that an attacker may know of a person.
        extra_columns: Extra columns of the export.

    Raises:
        UsageError: A value is out of range, or a quasi-identifier is no column of the export.
    """

    k: int | None = None
    on_small_class: OnSmallClass = "suppress"
    max_suppressed: float = 1.0
    quasi_identifiers: Sequence[str] = QUASI_IDENTIFIERS
    extra_columns: Sequence[ExtraColumn] = ()

    def __post_init__(self) -> None:
        if self.k is not None and (isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= MAX_K):
            raise UsageError(f"`k` must be an integer from 1 to {MAX_K:,}.")
        if self.on_small_class not in get_args(OnSmallClass):
            raise UsageError('`on_small_class` must be "suppress" or "fail".')
        if not 0 <= self.max_suppressed <= 1:
            raise UsageError("`max_suppressed` must be a number from 0 to 1, such as 0.05.")
        columns = training_columns(self.extra_columns)
        unknown = [name for name in self.quasi_identifiers if name not in columns]
        if unknown or not self.quasi_identifiers:
            raise UsageError(
                f"quasi_identifiers must name columns of an export, not {', '.join(unknown) or 'nothing'}. "
                f"Available columns: {', '.join(columns)}."
            )

    def violation(self, suppressed: int, total: int) -> str:
        """Return why this number of rows may not be suppressed; an empty string if it may."""
        if not suppressed:
            return ""
        if self.on_small_class == "fail":
            return "`on_small_class` is fail"
        if suppressed == total:
            return "no row would be left"
        if suppressed / total > self.max_suppressed:
            return f"`max_suppressed` allows {self.max_suppressed:.10g}"
        return ""


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
        is_full = pl.lit(value=False).alias(_IS_FULL)
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
        classes = pl.concat(parts).group_by(self._columns).agg(people, pl.col("rows").sum(), pl.col(_IS_FULL).any())
        return self._forget_full(classes)

    def _forget_full(self, classes: pl.DataFrame) -> pl.DataFrame:
        """Forget the people of classes that have reached the cap: their number can only grow."""
        is_full = pl.col(_IS_FULL) | (pl.col("people").list.len() >= self._cap)
        people = pl.when(is_full).then(pl.col("people").list.head(0)).otherwise("people").alias("people")
        return classes.with_columns(people, is_full.alias(_IS_FULL))

    def to_digests(self, key: Key | None) -> bytes:
        """Return the classes with keyed digests in place of people, for `merge_digests`.

        The result is an Arrow IPC stream, empty without rows: the quasi-identifiers, `people`, `rows`, and whether a
        class has reached the cap, which then has no digests.
        """
        if not self._parts:
            return b""
        digest = digest_people(pl.element(), key)
        stream = io.BytesIO()
        classes = self._merge().with_columns(pl.col("people").list.eval(digest))
        classes.write_ipc_stream(stream, compression="zstd")
        return stream.getvalue()

    def merge_digests(self, classes: bytes) -> None:
        """Add the classes of other rows, as `to_digests` returns them."""
        if classes:
            self._append(pl.read_ipc_stream(classes))

    def classes(self) -> pl.DataFrame:
        """Return the equivalence classes: the quasi-identifiers, `people` (at most the cap) and `rows`."""
        if not self._parts:
            return pl.DataFrame(schema={**dict.fromkeys(self._columns, pl.Null), "people": pl.Int64, "rows": pl.Int64})
        people = pl.when(_IS_FULL).then(self._cap).otherwise(pl.col("people").list.len()).cast(pl.Int64)
        return self._merge().with_columns(people.alias("people")).drop(_IS_FULL)


def digest_people(people: pl.Expr, key: Key | None) -> pl.Expr:
    """Return keyed digests of user ids that distinguish the people of a class; null for null."""
    return sign_column(people.cast(pl.String), "person of a class", key).str.slice(0, _DIGEST_LENGTH)


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
    several small classes counts in each of them in `people_in_classes_under_5`, as in `Risk.small_people`.
    """
    summary = summarize_classes(classes["people"], classes["rows"])
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
    }
