"""The required k-anonymity, l-diversity and t-closeness of an export, and what happens to small classes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from feedback_etl.errors import UsageError
from feedback_etl.privacy.hierarchies import Hierarchies, require_hierarchies
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.transform.transforms import TimestampPrecision

OnSmallClass = Literal["suppress", "generalize", "fail"]

MAX_COUNTED_PEOPLE = 50
"""People per equivalence class are counted up to this number; then only the count is kept, which bounds memory."""

ALL_PEOPLE = 2**31 - 1

MAX_K = 1_000


@dataclass(frozen=True)
class KAnonymityPolicy:
    """Required k-anonymity of an export.

    Attributes:
        k: Minimum number of different people in every equivalence class; None measures only.
        on_small_class: What happens to equivalence classes that violate k, l or t: "suppress" removes their rows,
            "generalize" makes values of the quasi-identifiers coarser until the classes are joined to large enough
            ones, and removes what then remains; "fail" publishes nothing.
        max_suppressed: Largest share of rows that may be suppressed, and of values of a column that may be emptied or
            suppressed, 0 to 1; above it nothing is published.
        quasi_identifiers: Columns of the export that an attacker may know of a person, the most important one first.
        schema: Schema of the export.
        l: Minimum number of different values of each sensitive column in every class (distinct l-diversity).
        t: Maximum distance of their distribution in a class from that in the export (t-closeness), 0 to 1.
        hierarchies: Coarser values of text columns, for "generalize".
        timestamp_precision: Precision of the times.
        has_own_ages: Whether the application names the age ranges itself.

    Raises:
        UsageError: A value is out of range, or a quasi-identifier is not a column of the export.
    """

    k: int | None = None
    on_small_class: OnSmallClass = "suppress"
    max_suppressed: float = 1.0
    quasi_identifiers: Sequence[str] = CLASSIC_SCHEMA.quasi_identifiers
    schema: FeedbackSchema = CLASSIC_SCHEMA
    l: int | None = None  # noqa: E741  as the option
    t: float | None = None
    hierarchies: Hierarchies = field(default_factory=dict)
    timestamp_precision: TimestampPrecision = "exact"
    has_own_ages: bool = False

    def __post_init__(self) -> None:
        if self.k is not None and (isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= MAX_K):
            raise UsageError(f"`k` must be an integer from 1 to {MAX_K:,}.")
        if self.on_small_class not in get_args(OnSmallClass):
            raise UsageError('`on_small_class` must be "suppress", "generalize" or "fail".')
        self._require_diversity()
        require_hierarchies(self.hierarchies, self.schema)
        if not 0 <= self.max_suppressed <= 1:
            raise UsageError("`max_suppressed` must be a number from 0 to 1, such as 0.05.")
        columns = self.schema.training_columns
        unknown = [name for name in self.quasi_identifiers if name not in columns]
        if unknown or not self.quasi_identifiers:
            raise UsageError(
                f"`quasi_identifiers` must name columns of an export, not {', '.join(unknown) or 'nothing'}. "
                f"Available columns: {', '.join(columns)}."
            )

    def _require_diversity(self) -> None:
        if self.k is None and (self.l, self.t) != (None, None):
            raise UsageError("`l` and `t` have no effect without `k`: set k as well.")
        if self.l is not None and (isinstance(self.l, bool) or not isinstance(self.l, int) or not 1 <= self.l <= MAX_K):
            raise UsageError(f"`l` must be an integer from 1 to {MAX_K:,}.")
        if self.t is not None and not 0 <= self.t <= 1:
            raise UsageError("`t` must be a number from 0 to 1, such as 0.3.")

    @property
    def generalizes(self) -> bool:
        """Whether values of small classes are generalised."""
        return self.k is not None and self.on_small_class == "generalize"

    @property
    def measured_columns(self) -> tuple[str, ...]:
        """The columns that l and t concern: the ratings, and columns of the role "sensitive"; none without."""
        if self.l is None and self.t is None:
            return ()
        return tuple(name for name in self.schema.sensitive_columns if name not in self.quasi_identifiers)

    @property
    def max_counted_people(self) -> int:
        """The number of people of a class up to which they are counted; l and t concern the answers of all people."""
        return ALL_PEOPLE if self.measured_columns else max(MAX_COUNTED_PEOPLE, self.k or 0)

    def to_settings(self) -> dict[str, Any]:
        """Return the further settings that decide the rows, by name; a t of 0 is one."""
        hierarchies = json.dumps(self.hierarchies, sort_keys=True).encode() if self.hierarchies else b""
        settings = {
            "on_small_class": self.on_small_class if self.generalizes else None,
            "hierarchies_sha256": hashlib.sha256(hierarchies).hexdigest() if self.generalizes and hierarchies else None,
            "l": self.l,
            "t": self.t,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def describe_diversity(self) -> str:
        """Return the requirements beside k as a part of a sentence; an empty string if there are none."""
        limits = {f"fewer than {self.l} different answers": self.l, f"a distance above t = {self.t}": self.t}
        return "".join(f", or with {limit}" for limit, value in limits.items() if value is not None)

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
