"""Inspect the columns of an export for what must not be published: free text, contact details, raw ids, dates of birth.

Counts contain no value. What is inspected in which column is said in docs/privacy.md.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.errors import ValidationError
from feedback_etl.privacy.birth_dates import AgeCounts, find_ages
from feedback_etl.privacy.contact_details import find_contact_details
from feedback_etl.privacy.keys import Key, sign_column
from feedback_etl.privacy.raw_ids import MIN_DISTINCT_IDS, IdCounts, count_ids
from feedback_etl.schema.classic import list_declared_columns
from feedback_etl.schema.model import IMAGE_URL, RAW_IDS, FeedbackSchema
from feedback_etl.transform.items import RATED_ITEMS

MIN_VALUES = 100
"""Fewer values than these are never counted as mostly distinct, since samples of few rows repeat little."""

MAX_DISTINCT = 0.5
"""Share of distinct values from which a column counts as free text."""

PERSONAL_ITEMS = ("e-mail addresses", "IBANs")
"""The details that no item contains; codes of articles look like telephone numbers, and an article can be a URL."""

_MIN_WIDE_SCALE = 100
"""Width of the scale of a rating from which its values can be ids."""

_MAX_DIGESTS = 4_096
"""Digests that are kept by column: the smallest ones, from which the number of distinct values is estimated within 5 %
(k minimum values; standard error 1 / sqrt(k) = 1.6 %)."""

_DIGEST_LENGTH = 15
_DIGESTS = float(16**_DIGEST_LENGTH)
_MAX_KNOWN = 100_000
"""Texts by column that are not searched again for contact details."""


class ColumnCounts(NamedTuple):
    """Counts of the values of one column; they contain no value.

    Attributes:
        values: Number of values that are not null.
        contacts: Number of texts with contact or account details, by kind.
        digests: The smallest keyed digests of distinct texts, ascending.
        ids: Counts of raw ids.
        ages: Counts of ages and dates of birth.
    """

    values: int = 0
    contacts: dict[str, int] = {}  # noqa: RUF012  it is not changed
    digests: Sequence[str] = ()
    ids: IdCounts = IdCounts()
    ages: AgeCounts = AgeCounts()

    def merge(self, other: Self) -> "ColumnCounts":
        """Return the counts of both."""
        return ColumnCounts(
            self.values + other.values,
            dict(Counter(self.contacts) + Counter(other.contacts)),
            sorted({*self.digests, *other.digests})[:_MAX_DIGESTS],
            self.ids.merge(other.ids),
            AgeCounts(*map(sum, zip(self.ages, other.ages, strict=True))),
        )

    @property
    def distinct(self) -> int:
        """The number of distinct texts: exact below 4,096, estimated from there on."""
        if len(self.digests) < _MAX_DIGESTS:
            return len(self.digests)
        return min(self.values, round((_MAX_DIGESTS - 1) * _DIGESTS / int(self.digests[-1], 16)))

    def find_free_text(self) -> list[str]:
        """Return why the texts count as free text, as clauses; none if they do not."""
        problems = [f"{kind} are in {texts:,}" for kind, texts in sorted(self.contacts.items()) if texts]
        if self.values >= MIN_VALUES and self.distinct > self.values * MAX_DISTINCT:
            about = "about " if len(self.digests) == _MAX_DIGESTS else ""
            problems.insert(0, f"{about}{self.distinct:,} of {self.values:,} are distinct")
        return problems


class ColumnInspector:
    """Count what must not be published, batch by batch, in bounded memory.

    Args:
        schema: The columns of an export.
        key: The key of the digests of texts.
        year: The year of the export.
        hashes_item: Whether the item is pseudonymised.
        has_own_query: Whether the rows are those of a query or a declared source. The columns of the default tables are
            fixed, and are not inspected.
    """

    def __init__(
        self, schema: FeedbackSchema, key: Key | None, year: int, *, hashes_item: bool, has_own_query: bool
    ) -> None:
        declared = [
            column for column in list_declared_columns(schema) if column.role != "identifier" and column != IMAGE_URL
        ]
        self._texts = [column.name for column in declared if column.type == "text" and column.role != "free_text"]
        own = [column.name for column in schema.columns if column.type == "text" and column not in declared]
        self._labels = dict.fromkeys([*self._texts, *own, *schema.list_names]) | dict.fromkeys(
            () if hashes_item else schema.item_columns, PERSONAL_ITEMS
        )
        wide = [rating.name for rating in schema.ratings if rating.max - rating.min > _MIN_WIDE_SCALE]
        self._dated = [column.name for column in declared if column.type != "boolean"]
        self._searched = {*self._texts, *schema.list_names}
        self._with_ids = dict.fromkeys([*self._dated, *own, *schema.list_names, *wide], RAW_IDS) | dict.fromkeys(
            () if hashes_item else schema.item_columns, ("user_id",)
        )
        if schema.exported_items:
            self._labels[RATED_ITEMS], self._with_ids[RATED_ITEMS] = PERSONAL_ITEMS, RAW_IDS
        self._key, self._year = key, year
        if not has_own_query:
            self._texts, self._dated, self._labels, self._with_ids = [], [], {}, {}
        self._known: dict[str, pl.Series] = {}
        self._counts = self._create_counts()

    def _create_counts(self) -> dict[str, ColumnCounts]:
        return dict.fromkeys([*self._labels, *self._with_ids], ColumnCounts())

    def add(self, pairs: pl.DataFrame, ids: pl.DataFrame) -> None:
        """Count the values of training pairs; `ids` are the raw ids of each pair."""
        if not self._counts:
            return
        rows = pairs.select(*self._counts).hstack(ids)
        values = {name: _count_values(rows[name]) for name in self._counts}
        ids_by_column = self._count_ids(rows, values)
        for name, distinct in values.items():
            counts = ColumnCounts(
                rows.height - rows[name].null_count(),
                self._count_contacts(name, distinct) if name in self._labels else {},
                self._digest(distinct["value"]) if name in self._texts else (),
                ids_by_column.get(name, IdCounts()),
                self._count_ages(distinct) if name in self._dated else AgeCounts(),
            )
            self._counts[name] = self._counts[name].merge(counts)

    def take_counts(self) -> dict[str, ColumnCounts]:
        """Return the counts since the last call by column, and reset them."""
        taken, self._counts = self._counts, self._create_counts()
        return taken

    def merge(self, counts: dict[str, ColumnCounts]) -> None:
        """Add counts of other rows."""
        for name, added in counts.items():
            self._counts[name] = self._counts[name].merge(added)

    def require_none(self) -> None:
        """Raise if a column contains what must not be published; the message contains no value.

        Raises:
            ValidationError: There are raw ids, ages or dates of birth, free text, or contact or account details.
        """
        if sentences := list(self._find_problems()):
            raise ValidationError(f"Nothing was exported: {' '.join(sentences)}")

    def _find_problems(self) -> Iterator[str]:
        """Yield a sentence for each kind of problem."""
        counts = self._counts.items()
        ids = {name: column.ids.find_problems(column.values) for name, column in counts}
        ages = {name: column.ages.find_problems(name, column.values) for name, column in counts}
        texts = {name: column.find_free_text() for name, column in counts}
        if listed := _join(ids):
            yield (
                f"raw ids would undo the pseudonyms (of the values in {listed}). Declare the column with "
                'role = "identifier" to pseudonymise them (an item: --hash-recommendation-id), or leave it out '
                "(rated items: export without --items)."
            )
        if listed := _join(ages):
            yield (
                f"a declared column contains ages or dates of birth (of the values in {listed}). Export a range: with "
                "a declared schema by `bucket` of [columns.age_range], else as `age` of the query; or leave it out."
            )
        if listed := _join({name: texts[name] for name in self._texts}):
            yield (
                f"a column that is not declared as free text contains free text (of the texts in {listed}). Declare it "
                'with role = "free_text" if these texts may be exported as they are, with role = "identifier" to '
                "pseudonymise them, or leave the column out."
            )
        if listed := _join({name: problems for name, problems in texts.items() if name not in self._texts}):
            yield (
                f"a column contains contact or account details (of the texts in {listed}). Correct these texts in the "
                "database, pseudonymise an item with --hash-recommendation-id, or leave the column out (rated items: "
                "export without --items)."
            )

    def _count_contacts(self, name: str, distinct: pl.DataFrame) -> dict[str, int]:
        """Count contact details; texts that are known to have none are not searched again."""
        known, kinds = self._known.get(name), self._labels[name]
        new = distinct if known is None else distinct.filter(~pl.col("value").is_in(known.implode()))
        if new.is_empty():
            return {}
        details = {
            kind: has_detail
            for kind, has_detail in find_contact_details("value").items()
            if kinds is None or kind in kinds
        }
        inspected = new.with_columns(**details)
        clean = inspected.filter(~pl.any_horizontal(*details))["value"]
        self._known[name] = (clean if known is None else pl.concat([known, clean])).head(_MAX_KNOWN)
        return _count_rows(inspected, {kind: pl.col(kind) for kind in details}) if clean.len() < new.height else {}

    def _digest(self, texts: pl.Series) -> list[str]:
        digest = sign_column(pl.col(texts.name), "free text", self._key).str.slice(0, _DIGEST_LENGTH)
        distinct = texts.drop_nulls().unique().to_frame()
        digests: list[str] = distinct.select(digest.unique().sort().head(_MAX_DIGESTS)).to_series().to_list()
        return digests

    def _count_ids(self, rows: pl.DataFrame, values: Mapping[str, pl.DataFrame]) -> dict[str, IdCounts]:
        columns = {name: (ids, name in self._searched) for name, ids in self._with_ids.items()}
        distinct = {name: values[name]["value"] for name in columns}
        return count_ids(rows, columns, distinct, lambda ids: self._digest(ids)[:MIN_DISTINCT_IDS])

    def _count_ages(self, distinct: pl.DataFrame) -> AgeCounts:
        kinds = find_ages("value", distinct.schema["value"], self._year)
        return AgeCounts(**_count_rows(distinct, kinds))


def _count_values(column: pl.Series) -> pl.DataFrame:
    """Return the distinct values (of a list: elements) and the number of `rows` of each; nulls are left out."""
    values = column.explode() if isinstance(column.dtype, pl.List) else column
    return values.alias("value").drop_nulls().value_counts(name="rows")


def _count_rows(distinct: pl.DataFrame, kinds: Mapping[str, pl.Expr]) -> dict[str, int]:
    """Return the number of rows of distinct values of some kinds."""
    counts = distinct.select(pl.col("rows").filter(is_kind).sum().alias(kind) for kind, is_kind in kinds.items())
    return counts.row(0, named=True)


def _join(problems: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{name}, {', '.join(clauses)}" for name, clauses in problems.items() if clauses)
