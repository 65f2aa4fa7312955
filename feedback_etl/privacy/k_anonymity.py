"""k-anonymity of an export, counted per person: how many people share each combination of quasi-identifiers."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import polars as pl

from feedback_etl.columns import QUASI_IDENTIFIERS, ExtraColumn, training_columns
from feedback_etl.errors import UsageError
from feedback_etl.privacy.keys import Key, sign_column
from feedback_etl.privacy.risk import summarize_classes

OnSmallClass = Literal["suppress", "fail"]

MAX_COUNTED_PEOPLE = 50
"""People of a class are counted up to here: more make no difference, and a class that has so many is only a count."""

MAX_K = 1_000
_PARTS_AT_ONCE = 64
_DIGEST_LENGTH = 16
"""64 bits: they only have to tell the counted people of one class apart."""

_FULL = "is full"
"""Whether a class has reached the cap; no column of an export has a name with a blank."""


@dataclass(frozen=True)
class KAnonymityPolicy:
    """What is asked of an export.

    Attributes:
        k: Every class has to have at least so many different people; None measures only.
        on_small_class: "suppress" leaves the rows of smaller classes out, "fail" publishes nothing.
        max_suppressed: Nothing is published either if a greater share of the rows would be left out; 0 to 1.
        quasi_identifiers: Columns of the export that somebody may know of a person.
        extra: The columns that the export has beside the twelve.
    """

    k: int | None = None
    on_small_class: OnSmallClass = "suppress"
    max_suppressed: float = 1.0
    quasi_identifiers: Sequence[str] = QUASI_IDENTIFIERS
    extra: Sequence[ExtraColumn] = ()

    def __post_init__(self) -> None:
        if self.k is not None and (isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= MAX_K):
            raise UsageError(f"k must be a whole number from 1 to {MAX_K:,}.")
        if self.on_small_class not in get_args(OnSmallClass):
            raise UsageError('on_small_class must be "suppress" or "fail".')
        if not 0 <= self.max_suppressed <= 1:
            raise UsageError("max_suppressed must be a share from 0 to 1, for example 0.05.")
        columns = training_columns(self.extra)
        unknown = [name for name in self.quasi_identifiers if name not in columns]
        if unknown or not self.quasi_identifiers:
            raise UsageError(
                f"quasi_identifiers must name columns of an export, not {', '.join(unknown) or 'nothing'}. "
                f"There are: {', '.join(columns)}."
            )

    def violation(self, rows: int, everything: int) -> str:
        """Why so many rows of all may not be left out; "" if they may."""
        if not rows:
            return ""
        if self.on_small_class == "fail":
            return "no class may be so small (on_small_class)"
        if rows == everything:
            return "no row would be left"
        if rows / everything > self.max_suppressed:
            return f"more than {self.max_suppressed:.3%} may not be left out (max_suppressed)"
        return ""


class ClassCounter:
    """How many people each class has, counted while rows pass by.

    >>> people = ClassCounter(["age_range"], cap=10)
    >>> people.add(pl.DataFrame({"age_range": ["18-25", "18-25", None]}), pl.Series([1, 1, None]))
    >>> people.classes().sort("rows", descending=True).rows()
    [('18-25', 1, 2), (None, 1, 1)]
    """

    def __init__(self, quasi_identifiers: Sequence[str], cap: int = MAX_COUNTED_PEOPLE) -> None:
        self._keys, self._cap = list(dict.fromkeys(quasi_identifiers)), cap
        self._parts: list[pl.DataFrame] = []

    def empty_copy(self) -> Self:
        """The same of rows to come."""
        return type(self)(self._keys, self._cap)

    def add(self, pairs: pl.DataFrame, users: pl.Series) -> None:
        """Count rows; all rows without a user are of one person."""
        known = users.cast(pl.Int64 if users.dtype.is_integer() and users.dtype != pl.UInt64 else pl.String)
        rows = pairs.select(self._keys).with_columns(known.alias("people"))
        people = pl.col("people").unique().head(self._cap)
        is_full = pl.lit(value=False).alias(_FULL)
        classes = rows.group_by(self._keys).agg(people, pl.len().cast(pl.Int64).alias("rows"), is_full)
        self._parts.append(self._without_the_many(classes))
        if len(self._parts) > _PARTS_AT_ONCE:
            self._parts = [self._merged()]

    def _merged(self) -> pl.DataFrame:
        parts = self._parts
        if len({part.schema["people"] for part in parts}) > 1:  # ids as numbers in one batch, as text in another
            parts = [part.with_columns(pl.col("people").cast(pl.List(pl.String))) for part in parts]
        people = pl.col("people").list.explode(keep_nulls=True, empty_as_null=False).unique().head(self._cap)
        classes = pl.concat(parts).group_by(self._keys).agg(people, pl.col("rows").sum(), pl.col(_FULL).any())
        return self._without_the_many(classes)

    def _without_the_many(self, classes: pl.DataFrame) -> pl.DataFrame:
        """Classes that have reached the cap need no people any more: nobody can make them smaller."""
        is_full = pl.col(_FULL) | (pl.col("people").list.len() >= self._cap)
        people = pl.when(is_full).then(pl.col("people").list.head(0)).otherwise("people").alias("people")
        return classes.with_columns(people, is_full.alias(_FULL))

    def to_digests(self, key: Key | None) -> bytes:
        """The classes, with keyed digests in place of people, for `merge_digests`: an Arrow stream, or nothing.

        It has the quasi-identifiers, `people`, `rows`, and whether a class has reached the cap: then it has no digests.
        """
        if not self._parts:
            return b""
        digest = sign_column(pl.element().cast(pl.String), "person of a class", key).str.slice(0, _DIGEST_LENGTH)
        written = io.BytesIO()
        classes = self._merged().with_columns(pl.col("people").list.eval(digest))
        classes.write_ipc_stream(written, compression="zstd")
        return written.getvalue()

    def merge_digests(self, classes: bytes) -> None:
        """Count what `to_digests` gave for other rows."""
        if classes:
            self._parts.append(pl.read_ipc_stream(classes))
        if len(self._parts) > _PARTS_AT_ONCE:
            self._parts = [self._merged()]

    def classes(self) -> pl.DataFrame:
        """The classes: their quasi-identifiers, `people` (at most the cap) and `rows`."""
        if not self._parts:
            return pl.DataFrame(schema={**dict.fromkeys(self._keys, pl.Null), "people": pl.Int64, "rows": pl.Int64})
        people = pl.when(_FULL).then(self._cap).otherwise(pl.col("people").list.len()).cast(pl.Int64)
        return self._merged().with_columns(people.alias("people")).drop(_FULL)


def drop_small_classes(pairs: pl.DataFrame, small: pl.DataFrame, quasi_identifiers: Sequence[str]) -> pl.DataFrame:
    """Rows that are in none of these classes."""
    keys = list(dict.fromkeys(quasi_identifiers))
    if small.is_empty():
        return pairs
    classes = small.select(pl.col(name).cast(pairs.schema[name]) for name in keys)
    return pairs.join(classes, on=keys, how="anti", nulls_equal=True, maintain_order="left")


def summarize(classes: pl.DataFrame, asked: KAnonymityPolicy, cap: int) -> dict[str, Any]:
    """What a report and a manifest say of the classes of an export.

    Risks are upper bounds where classes have more people than are counted; `k` is then "at least". In
    `people_in_classes_under_5` somebody with rows in several such classes counts in each, as in `Risk.small_people`.
    """
    figures = summarize_classes(classes["people"], classes["rows"])
    return {
        "k": figures.k,
        "at_least": figures.k >= cap,
        "required_k": asked.k,
        "quasi_identifiers": list(asked.quasi_identifiers),
        "classes": figures.classes,
        "rows_in_classes_under_5": figures.small_rows,
        "people_in_classes_under_5": figures.small_people,
        "share_unique": figures.share_unique,
        "average_risk": figures.average_risk,
        "highest_risk": figures.highest_risk,
        "stale": False,
    }
