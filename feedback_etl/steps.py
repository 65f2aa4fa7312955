"""What happens to a batch of raw rows, in order.

Too few ratings? skipped -> something wrong? rejected -> seen before? dropped -> pseudonymised -> validated.
`Run._steps` is that order. Nothing here reads the world.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.expressions import harmless, hash_id
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.schema import split_valid, validate
from feedback_etl.source.window import Window
from feedback_etl.transforms import RAW_KEY, anonymize, deduplicate, enough_ratings, is_hashed
from feedback_etl.transforms import RecommendationId as RecommendationId

_RAW_KEY_AS_TEXT = (pl.col("analysis_id", "recommendation_id").cast(pl.String), pl.col("created_at"))
"""Comparable between batches, also where a source gives an id as a number in one and as text in the next."""


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


class Batch(NamedTuple):
    """What became of a batch of raw rows."""

    pairs: pl.DataFrame
    rejected: pl.DataFrame


class Run:
    """The steps for one batch after the other, and what has to be carried from one to the next."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._enough = enough_ratings(rules.min_feedback_fields)
        self._seen: pl.DataFrame | None = None
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def process(self, raw: pl.DataFrame) -> Batch:
        """Raw rows, in the order of their times, to training pairs and rejected rows.

        Raises:
            ValidationError: What came out is not a training set by `TrainingPair`.
        """
        try:
            return self._steps(raw)
        except pl.exceptions.PolarsError as error:
            kind = type(error).__name__  # and no more: its text may hold values
        raise ValidationError(f"A batch could not be processed ({kind}); nothing was written.")

    def _steps(self, raw: pl.DataFrame) -> Batch:
        rules = self._rules
        rated = raw.filter(self._enough)
        valid, rejected = split_valid(rated)
        unique = self._first_of_pairs(valid)
        pairs = anonymize(
            unique,
            now=rules.now,
            key=rules.key,
            unkeyed=rules.key is None,
            recommendation_id=rules.recommendation_id,
        )
        self._counts.update(
            total=raw.height,
            skipped=raw.height - rated.height,
            rejected=rejected.height,
            deduplicated=valid.height - unique.height,
            exported=pairs.height,
        )
        reasons = rejected["reasons"].str.split(",").explode().value_counts()
        self._reasons.update(dict(reasons.iter_rows()))
        return Batch(validate(pairs), self._without_values(rejected))

    def _first_of_pairs(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Duplicates have equal times and rows come ordered by time: only the last time has to be remembered."""
        unique = deduplicate(valid, by=RAW_KEY)
        if self._seen is not None:
            unique = unique.join(
                self._seen, left_on=_RAW_KEY_AS_TEXT, right_on=RAW_KEY, how="anti", maintain_order="left"
            )
        if valid.height:
            keys = unique.select(_RAW_KEY_AS_TEXT)
            known = keys if self._seen is None else pl.concat([self._seen, keys])
            self._seen = known.filter(pl.col("created_at") == valid["created_at"].last())
        return unique

    def _without_values(self, rejected: pl.DataFrame) -> pl.DataFrame:
        key = self._rules.key
        is_text = rejected.schema["feedback_id"] == pl.String
        return rejected.select(
            harmless("feedback_id") if is_text else "feedback_id",
            analysis_hash=hash_id("analysis_id", key=key, unkeyed=key is None),
            reasons="reasons",
        )

    def judge(self) -> None:
        """Decide, when all rows have been seen, whether there may be an export.

        Raises:
            ValidationError: More rows are rejected than the rules allow.
        """
        rejected, judged = self._counts["rejected"], self._counts["total"] - self._counts["skipped"]
        if not rejected:
            return
        if self._rules.strict:
            why = "no row may be rejected (strict)"
        elif rejected == judged:
            why = "no valid row is left"
        elif rejected / judged > self._rules.max_rejected:
            why = f"more than {self._rules.max_rejected:.3%} may not be rejected (max_rejected)"
        else:
            return
        reasons = self._reasons_by_frequency()
        listed = ", ".join(f"{reason} {rows:,}" for reason, rows in reasons.items())
        raise ValidationError(
            f"Nothing was exported: {rejected:,} of {judged:,} rows are rejected, and {why}. Reasons: {listed}.",
            reasons,
        )

    def _reasons_by_frequency(self) -> dict[str, int]:
        return dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0])))

    def report(self, window: Window, excluded: int) -> ExportReport:
        """The figures so far."""
        counts, key = self._counts, self._rules.key
        return ExportReport(
            total_feedback_records=counts["total"],
            exported_records=counts["exported"],
            anonymized_records=counts["exported"],
            deduplicated_records=counts["deduplicated"],
            skipped_records=counts["skipped"],
            errors=counts["rejected"],
            excluded_records=excluded,
            rejected_reasons=self._reasons_by_frequency(),
            window=window,
            key_id=key.id if key else None,
        )
