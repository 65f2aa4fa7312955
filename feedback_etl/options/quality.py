"""Options that define valid rows. Importing this module imports no third-party library."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.transform.failure_cases import Model


@dataclass(frozen=True, kw_only=True)
class QualityOptions:
    """Options that define valid rows, and how many rows may be rejected.

    Attributes:
        min_feedback_fields: Skip rows with fewer of the ratings; 0 to their number, 4 in the classic schema.
        strict: Publish nothing if any row is rejected.
        max_rejected: Publish nothing if a larger share of the rows with enough ratings is rejected; 0 to 1.
        row_model: A pandera model that every batch must also satisfy.
    """

    min_feedback_fields: int = 1
    strict: bool = False
    max_rejected: float = 0.5
    row_model: "Model | None" = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejected <= 1:
            raise UsageError("`max_rejected` must be a share from 0 to 1, for example 0.05.")
