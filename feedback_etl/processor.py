"""The classic API: `FeedbackProcessor`, a thin face on `pipeline` for callers in FastAPI, APScheduler or Celery.

processor = FeedbackProcessor(db_session=session)
stats = processor.process_and_export(days_back=7)
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import polars as pl

from feedback_etl.arguments import known_keys
from feedback_etl.clock import instant
from feedback_etl.errors import AllRejectedError, UsageError, ValidationError
from feedback_etl.exports.facts import Facts
from feedback_etl.exports.files import ExportFiles
from feedback_etl.expressions import ISO_FORMAT, bucket_age, hash_id, pair_hash
from feedback_etl.forks import require_usable_polars
from feedback_etl.pipeline import export_feedback
from feedback_etl.privacy.keys import Key
from feedback_etl.results import FeedbackProcessingStats
from feedback_etl.schema import TrainingPair, validate
from feedback_etl.settings import key_in_force
from feedback_etl.source.connect import Database

logger = logging.getLogger(__name__)

__all__ = ["FeedbackProcessingStats", "FeedbackProcessor", "FeedbackTrainingPair"]


@dataclass
class FeedbackTrainingPair:
    """One row of a training set, as plain Python values; times are ISO 8601 text in UTC without an offset."""

    analysis_hash: str
    recommendation_id: str
    helpful_rating: int | None
    product_satisfaction: int | None
    routine_completion_pct: int | None
    would_recommend: bool | None
    conditions_detected: str | None
    rules_applied: str | None
    timeframe: str | None
    age_range: str | None
    feedback_timestamp: str
    export_date: str

    def to_dict(self) -> dict[str, Any]:
        """The twelve fields in the order of the export's columns."""
        return asdict(self)


class FeedbackProcessor:
    """Exports an application's feedback as training data.

    Args:
        db_session: A Session, Connection, Engine or URL of SQLAlchemy.
        output_dir: Where exports go.
        key: The pseudonym key; the configured one unless given.
        unkeyed: Use plain SHA-256, as before there were keys; anybody who can list the ids can invert it.
        new_key: Say that it is meant when the folder's exports are of another key.
    """

    def __init__(
        self,
        db_session: Database,
        output_dir: str | Path = "ml/feedback_training",
        *,
        key: Key | str | None = None,
        unkeyed: bool = False,
        new_key: bool = False,
    ) -> None:
        if key is not None and unkeyed:
            raise UsageError("Give a key or unkeyed=True, not both.")
        self.db_session = db_session
        self.output_dir = output_dir
        self._key = Key.of(key) if key is not None else None
        self._unkeyed, self._new_key = unkeyed, new_key

    def process_and_export(self, days_back: int = 1, min_feedback_fields: int = 1) -> FeedbackProcessingStats:
        """Export the last days' feedback; raises the errors of `export_feedback`.

        That all rows are rejected is no error here, as it was none in the classic API: it is logged as a warning, and
        the figures have no file.

        Args:
            days_back: Days of 24 hours before now; -1 for everything.
            min_feedback_fields: Rows with fewer of the four ratings are skipped.

        Returns:
            The figures of this run alone.
        """
        try:
            return export_feedback(
                self.db_session,
                days_back=days_back,
                min_feedback_fields=min_feedback_fields,
                output_dir=self.output_dir,
                key=self._key_or_configured(),
                unkeyed=self._unkeyed,
                new_key=self._new_key,
            )
        except AllRejectedError as error:
            logger.warning("%s", error)
            return cast("FeedbackProcessingStats", error.report)

    def _key_or_configured(self) -> Key | None:
        if self._unkeyed:
            return None
        return self._key or key_in_force()

    def _hash_id(self, id: int | str | UUID) -> str:  # noqa: A002  the classic name
        """Pseudonym of an analysis id, as in an export.

        Raises:
            UsageError: It is none: null, or a float, which is not an exact id.
        """
        if not isinstance(id, Integral | str | UUID):
            raise UsageError(f"An id is an integer, text or a UUID, not {type(id).__name__}.")
        require_usable_polars()
        key = self._key_or_configured()
        digest = hash_id(pl.lit(str(id)), key=key, domain="analysis_id", unkeyed=key is None)
        return str(pl.select(digest).item())

    def _bucket_age(self, age: float | None) -> str | None:
        """Range of an age in years; None for None and NaN. Implausible ages have one here, and none in an export."""
        require_usable_polars()
        found: str | None = pl.select(bucket_age(pl.lit(age, pl.Float64))).item()
        return found

    def _get_pair_hash(self, pair: FeedbackTrainingPair) -> str:
        """What makes two pairs the same feedback: 64 hex characters."""
        require_usable_polars()
        parts = (pair.analysis_hash, pair.recommendation_id, pair.feedback_timestamp)
        return str(pl.select(pair_hash(*map(pl.lit, parts))).item())

    def _export_to_csv(self, pairs: Sequence[FeedbackTrainingPair]) -> str:
        """Write pairs as they are; the path of the file, or "" for an empty list.

        Raises:
            ValidationError: A pair breaks the rules of `schema.TrainingPair`.
            ExportFileError: The folder cannot be used.
        """
        if not pairs:
            return ""
        require_usable_polars()
        frame = validate(_as_frame(pairs))
        key, new_key = self._key_or_configured(), self._new_key
        with ExportFiles(self.output_dir, instant(), key=key, new_key=new_key, known_keys=known_keys) as files:
            files.append(frame)
            return str(files.publish(Facts("classic", statistics={"exported_records": frame.height})).pairs)


def _as_frame(pairs: Sequence[FeedbackTrainingPair]) -> pl.DataFrame:
    """Pairs as a frame of the training set's types; nothing is coerced that does not fit."""
    columns, faults = [], []
    for name, column in TrainingPair.to_schema().columns.items():
        try:
            columns.append(_series(name, [getattr(pair, name) for pair in pairs], column.dtype.type))
        except (TypeError, ValueError, pl.exceptions.PolarsError):
            faults.append(name)
    if faults:  # raised here, where no error whose text holds values is still being handled
        raise ValidationError(
            f"Nothing was written: pairs hold values that cannot be in {', '.join(faults)}. "
            "Ratings are int, times ISO 8601 text without an offset; None stands for no value."
        )
    return pl.DataFrame(columns)


def _series(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    if isinstance(dtype, pl.Datetime):
        text = pl.Series(name, values, dtype=pl.String, strict=True)
        return text.str.to_datetime(ISO_FORMAT, time_unit="us", time_zone="UTC")
    return pl.Series(name, values, dtype=dtype, strict=True)
