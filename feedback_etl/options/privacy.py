"""Options that select columns and protect people. Importing this module imports no third-party library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.columns import ExtraColumn
    from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy


def _quasi_identifiers() -> tuple[str, ...]:
    from feedback_etl.columns import QUASI_IDENTIFIERS

    return QUASI_IDENTIFIERS


def _age_edges() -> tuple[int, ...]:
    from feedback_etl.columns import AGE_EDGES

    return AGE_EDGES


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions:
    """Options that select the columns of an export and protect the people in it.

    Attributes:
        hash_recommendation_id: Pseudonymise the recommendation as well.
        pseudonym_length: Number of hex characters of a pseudonym; 32 for 100 million analyses or more.
        timestamp_precision: "exact", or the period to whose start feedback_timestamp is truncated (UTC); weeks begin on
            Monday.
        k: Least number of people in each equivalence class (rows with equal quasi-identifiers); None only measures.
        on_small_class: What happens to smaller classes: "suppress" their rows; "generalize" their quasi-identifiers,
            the last one first, until they join large enough classes, and suppress what remains; or "fail" and publish
            nothing.
        max_suppressed: Publish nothing if a larger share of the rows would be suppressed; 0 to 1.
        l: With k, least number of different answers in each class, for each rating and each extra column of the role
            "sensitive" (distinct l-diversity; people with several answers in a class do not count).
        t: With k, greatest distance of their distribution in a class from that in the export (t-closeness; 0 to 1).
        hierarchies: For "generalize", coarser values by column and value, from the finest to the coarsest; of text
            columns.
        quasi_identifiers: Columns of the export that an attacker may know about a person, the most important one first.
        include_image_urls: Add the column image_url, filled where the user's `image_opt_in` is true.
        include_subject_hash: Add the column subject_hash, the pseudonym of the user, to split data by person.
        extra_columns: Columns that the query returns besides the canonical ones; they follow the twelve columns.
        age_edges: The ages at which a new age range begins.
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
    quasi_identifiers: Sequence[str] = field(default_factory=_quasi_identifiers)
    include_image_urls: bool = False
    include_subject_hash: bool = False
    extra_columns: "Sequence[ExtraColumn]" = ()
    age_edges: Sequence[int] = field(default_factory=_age_edges)

    def __post_init__(self) -> None:
        from feedback_etl.columns import IMAGE_URL, SUBJECT_HASH, require_declarations
        from feedback_etl.transform.expressions import age_ranges
        from feedback_etl.transform.transforms import is_coarse

        if taken := {column.name for column in self.extra_columns} & {IMAGE_URL.name, SUBJECT_HASH.name}:
            raise UsageError(f"An extra column cannot be called {taken.pop()}: that name is reserved.")
        require_declarations(self.all_extra_columns)
        is_coarse(self.timestamp_precision)
        age_ranges(self.age_edges)
        self.k_anonymity  # noqa: B018  it validates

    @property
    def all_extra_columns(self) -> "tuple[ExtraColumn, ...]":
        """The columns of an export after the twelve."""
        from feedback_etl.columns import IMAGE_URL, SUBJECT_HASH

        images = (IMAGE_URL,) if self.include_image_urls else ()
        return (*self.extra_columns, *images, *((SUBJECT_HASH,) if self.include_subject_hash else ()))

    @property
    def k_anonymity(self) -> "KAnonymityPolicy":
        """The k-anonymity policy; extra columns of role "quasi_identifier" are among its quasi-identifiers."""
        from feedback_etl.columns import all_quasi_identifiers
        from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy

        names = all_quasi_identifiers(self.quasi_identifiers, self.all_extra_columns)
        return KAnonymityPolicy(
            k=self.k,
            on_small_class=self.on_small_class,
            max_suppressed=self.max_suppressed,
            quasi_identifiers=names,
            extra_columns=self.all_extra_columns,
            l=self.l,
            t=self.t,
            hierarchies=self.hierarchies,
            age_edges=self.age_edges,
            timestamp_precision=self.timestamp_precision,
        )
