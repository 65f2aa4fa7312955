"""Options of the steps of a batch, in a module of their own: `batch` imports pandera, which takes a while."""

from dataclasses import dataclass
from datetime import datetime

from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.transform.expressions import KeyLike
from feedback_etl.transform.overrides import Overrides
from feedback_etl.transform.transforms import TimestampPrecision


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Options of the steps; if `key` is None, ids are hashed without a key."""

    now: datetime
    key: KeyLike | None
    min_feedback_fields: int
    hash_recommendation_id: bool
    timestamp_precision: TimestampPrecision
    schema: FeedbackSchema
    overrides: Overrides
    reject_formulas: bool = False
