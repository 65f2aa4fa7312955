"""What becomes of a row, as the caller wants it: checked before anything is read."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feedback_etl.columns import ExtraColumn, require_names
from feedback_etl.errors import UsageError
from feedback_etl.privacy.k_anonymity import KAnonymityPolicy
from feedback_etl.privacy.keys import Key
from feedback_etl.transform.expressions import AGE_EDGES, age_ranges
from feedback_etl.transform.overrides import Overrides
from feedback_etl.transform.transforms import RecommendationId, TimestampPrecision, enough_ratings, is_coarse, is_hashed


@dataclass(frozen=True)
class Rules:
    """What becomes of a row. Without a key, ids are hashed unkeyed."""

    now: datetime
    key: Key | None
    min_feedback_fields: int
    recommendation_id: RecommendationId
    strict: bool
    max_rejected: float
    timestamp_precision: TimestampPrecision = "exact"
    anonymity: KAnonymityPolicy = field(default_factory=KAnonymityPolicy)
    extra: tuple[ExtraColumn, ...] = ()
    age_edges: tuple[int, ...] = AGE_EDGES
    model: Any = None
    overrides: Overrides = field(default_factory=Overrides)

    def __post_init__(self) -> None:
        enough_ratings(self.min_feedback_fields)
        is_hashed(self.recommendation_id)
        is_coarse(self.timestamp_precision)
        require_names(self.extra)
        age_ranges(self.age_edges)
        if not 0 <= self.max_rejected <= 1:
            raise UsageError("max_rejected must be a share from 0 to 1, for example 0.05.")
