"""Free text in declared columns: texts that are mostly distinct, or contain contact or account details.

Only declared text columns are inspected; an export without any does no work here.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.errors import ValidationError
from feedback_etl.privacy.contact_details import find_contact_details
from feedback_etl.privacy.keys import Key, sign_column
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import IMAGE_URL

MIN_VALUES = 100
"""Fewer values than these are never counted as mostly distinct, since samples of few rows repeat little."""

MAX_DISTINCT = 0.5
"""Share of distinct values from which a column counts as free text."""

_MAX_DIGESTS = 4_096
"""Digests that are kept by column: the smallest ones, from which the number of distinct values is estimated within 5 %
(k minimum values; standard error 1 / sqrt(k) = 1.6 %)."""

_DIGEST_LENGTH = 15
_DIGESTS = float(16**_DIGEST_LENGTH)


class TextCounts(NamedTuple):
    """Counts of the texts of one column; they contain no value.

    Attributes:
        values: Number of texts.
        contacts: Number of texts with contact or account details, by kind.
        digests: The smallest keyed digests of distinct texts, ascending.
    """

    values: int = 0
    contacts: dict[str, int] = {}  # noqa: RUF012  it is not changed
    digests: Sequence[str] = ()

    def merge(self, other: Self) -> "TextCounts":
        """Return the counts of both."""
        digests = sorted({*self.digests, *other.digests})[:_MAX_DIGESTS]
        return TextCounts(self.values + other.values, dict(Counter(self.contacts) + Counter(other.contacts)), digests)

    @property
    def distinct(self) -> int:
        """The number of distinct texts: exact below 4,096, estimated from there on."""
        if len(self.digests) < _MAX_DIGESTS:
            return len(self.digests)
        return min(self.values, round((_MAX_DIGESTS - 1) * _DIGESTS / int(self.digests[-1], 16)))

    def find_problems(self) -> list[str]:
        """Return why the texts count as free text, as clauses; none if they do not."""
        problems = [f"{kind} are in {texts:,}" for kind, texts in sorted(self.contacts.items()) if texts]
        if self.values >= MIN_VALUES and self.distinct > self.values * MAX_DISTINCT:
            about = "about " if len(self.digests) == _MAX_DIGESTS else ""
            problems.insert(0, f"{about}{self.distinct:,} of {self.values:,} are distinct")
        return problems


class FreeTextCounter:
    """Count the texts of declared columns, batch by batch, in bounded memory.

    Args:
        columns: The declared columns of an export; only text columns that are exported as they are and are not
            declared as free text are counted.
        key: The key of the digests of texts.
    """

    def __init__(self, columns: Sequence[ExtraColumn], key: Key | None) -> None:
        self._columns = [
            column.name
            for column in columns
            if column.type == "text" and column.role not in ("identifier", "free_text") and column != IMAGE_URL
        ]
        self._key = key
        self._counts = dict.fromkeys(self._columns, TextCounts())

    def add(self, pairs: pl.DataFrame) -> None:
        """Count the texts of training pairs."""
        for name in self._columns:
            self.merge({name: self._count(pairs[name].drop_nulls())})

    def take_counts(self) -> dict[str, TextCounts]:
        """Return the counts since the last call by column, and reset them."""
        taken, self._counts = self._counts, dict.fromkeys(self._columns, TextCounts())
        return taken

    def merge(self, counts: dict[str, TextCounts]) -> None:
        """Add counts of other rows."""
        for name, added in counts.items():
            self._counts[name] = self._counts[name].merge(added)

    def require_none(self) -> None:
        """Raise if a column contains free text; the message contains no value.

        Raises:
            ValidationError: Texts are mostly distinct, or contain contact or account details.
        """
        problems = {name: counts.find_problems() for name, counts in self._counts.items()}
        if not any(problems.values()):
            return
        listed = "; ".join(
            f"of the texts in {name}, {', '.join(clauses)}" for name, clauses in problems.items() if clauses
        )
        raise ValidationError(
            f"Nothing was exported: a column that is not declared as free text contains free text ({listed}). Declare "
            'it with role = "free_text" if these texts may be exported as they are, with role = "identifier" to '
            "pseudonymise them, or leave the column out."
        )

    def _count(self, texts: pl.Series) -> TextCounts:
        frame = texts.alias("text").to_frame()
        details = find_contact_details("text")
        contacts = frame.select(has_detail.sum().alias(kind) for kind, has_detail in details.items())
        digest = sign_column(pl.col("text"), "free text", self._key).str.slice(0, _DIGEST_LENGTH)
        digests = frame.unique().select(digest.unique().sort().head(_MAX_DIGESTS)).to_series().to_list()
        return TextCounts(texts.len(), dict(zip(contacts.columns, contacts.row(0), strict=True)), digests)
