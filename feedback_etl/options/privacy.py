"""Options that select columns and protect people. Importing this module imports no third-party library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
    from feedback_etl.schema.column_types import ExtraColumn
    from feedback_etl.schema.model import FeedbackSchema

MIN_RANGE_YEARS = 5
"""Width in years below which an age range nearly reveals the age."""


def _get_classic_schema() -> "FeedbackSchema":
    from feedback_etl.schema.classic import CLASSIC_SCHEMA

    return CLASSIC_SCHEMA


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions:
    """Options that select the columns of an export and protect the people in it.

    Attributes:
        hash_recommendation_id: Pseudonymise the recommendation as well.
        pseudonym_length: Number of hex characters of a pseudonym; 32 for 100 million analyses or more.
        timestamp_precision: "exact", or the period to whose start feedback_timestamp is truncated (UTC); weeks begin on
            Monday.
        k: Minimum number of people in each equivalence class (rows with equal quasi-identifiers); None only measures.
        on_small_class: What happens to smaller classes: "suppress" their rows; "generalize" their quasi-identifiers,
            the last one first, until they join large enough classes, and suppress what remains; or "fail" and publish
            nothing.
        max_suppressed: Publish nothing if a larger share of the rows would be suppressed, or of the values of a column
            emptied by `generalize`; 0 to 1.
        l: With k, minimum number of different answers in each class, for each rating and each extra column of the role
            "sensitive" (distinct l-diversity; people with several answers in a class do not count).
        t: With k, maximum distance of their distribution in a class from that in the export (t-closeness; 0 to 1).
        hierarchies: For "generalize", coarser values by column and value, from the finest to the coarsest; of text
            columns.
        quasi_identifiers: Columns of the export that an attacker may know about a person, the most important one first;
            those of the schema by default.
        include_image_urls: Add the column image_url, filled where the user's `image_opt_in` is true.
        include_subject_hash: Add the column subject_hash, the pseudonym of the user, to split data by person.
        schema: The ratings, lists and other columns of the feedback.
        extra_columns: Columns that the query returns besides those of the schema; they follow those in the export.
        age_edges: The ages at which a new age range begins, for the default schema; another declares its own.
        min_age_range: Least width of an age range in years; a smaller one allows ranges that nearly reveal the age.
    """

    hash_recommendation_id: bool = False
    pseudonym_length: Literal[16, 32] = 16
    timestamp_precision: Literal["exact", "minute", "hour", "day", "week", "month", "quarter"] = "exact"
    k: int | None = None
    on_small_class: Literal["suppress", "generalize", "fail"] = "suppress"
    max_suppressed: float = 1.0
    l: int | None = None  # noqa: E741  as the option
    t: float | None = None
    hierarchies: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    quasi_identifiers: Sequence[str] | None = None
    include_image_urls: bool = False
    include_subject_hash: bool = False
    schema: "FeedbackSchema" = field(default_factory=_get_classic_schema)
    extra_columns: "Sequence[ExtraColumn]" = ()
    age_edges: Sequence[int] | None = None
    min_age_range: int = MIN_RANGE_YEARS

    def __post_init__(self) -> None:
        from feedback_etl.schema.classic import is_classic
        from feedback_etl.schema.feedback_columns import find_narrow_ranges
        from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH
        from feedback_etl.transform.transforms import is_coarse

        if self.age_edges is not None and not is_classic(self.schema):
            raise UsageError("`age_edges` is for the default schema: set `bucket` of [columns.age_range] instead.")
        if taken := {column.name for column in self.extra_columns} & {IMAGE_URL.name, SUBJECT_HASH.name}:
            raise UsageError(f"An extra column cannot be called {taken.pop()}: that name is reserved.")
        is_coarse(self.timestamp_precision)
        if narrow := find_narrow_ranges(self.full_schema.age_edges, self.min_age_range):
            raise UsageError(
                f"Age ranges of fewer than {self.min_age_range} years nearly reveal the age: {', '.join(narrow)}. "
                "Remove ages (`age_edges`, or `bucket` of [columns.age_range]), or set `min_age_range` to allow "
                "these ranges; `check` reports them all the same."
            )
        self.k_anonymity  # noqa: B018  it validates

    @property
    def full_schema(self) -> "FeedbackSchema":
        """The schema with all extra columns and the chosen age ranges."""
        from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH

        images = (IMAGE_URL,) if self.include_image_urls else ()
        people = (SUBJECT_HASH,) if self.include_subject_hash else ()
        return self.schema.with_options((*self.extra_columns, *images, *people), self.age_edges)

    @property
    def effective_quasi_identifiers(self) -> tuple[str, ...]:
        """The quasi-identifiers: the given ones, or those of the schema."""
        return self.schema.quasi_identifiers if self.quasi_identifiers is None else tuple(self.quasi_identifiers)

    @property
    def k_anonymity(self) -> "KAnonymityPolicy":
        """The k-anonymity policy; extra columns of role "quasi_identifier" are among its quasi-identifiers."""
        from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy

        schema = self.full_schema
        extra = (column.name for column in schema.extra_columns if column.role == "quasi_identifier")
        return KAnonymityPolicy(
            k=self.k,
            on_small_class=self.on_small_class,
            max_suppressed=self.max_suppressed,
            quasi_identifiers=tuple(dict.fromkeys((*self.effective_quasi_identifiers, *extra))),
            schema=schema,
            l=self.l,
            t=self.t,
            hierarchies=self.hierarchies,
            timestamp_precision=self.timestamp_precision,
        )
