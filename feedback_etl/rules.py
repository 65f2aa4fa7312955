"""What becomes of a row, as the caller wants it: checked before anything is read."""

from dataclasses import dataclass
from datetime import datetime

from feedback_etl.errors import UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.transforms import RecommendationId, enough_ratings, is_hashed


@dataclass(frozen=True)
class Rules:
    """What becomes of a row. Without a key, ids are hashed unkeyed."""

    now: datetime
    key: Key | None
    min_feedback_fields: int
    recommendation_id: RecommendationId
    strict: bool
    max_rejected: float

    def __post_init__(self) -> None:
        enough_ratings(self.min_feedback_fields)
        is_hashed(self.recommendation_id)
        if not 0 <= self.max_rejected <= 1:
            raise UsageError("max_rejected must be a share from 0 to 1, for example 0.05.")
