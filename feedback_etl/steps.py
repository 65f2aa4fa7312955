"""What happens to a batch of raw rows, in order.

Too few ratings? skipped -> something wrong? rejected -> seen before? dropped -> pseudonymised -> validated.
`Run._steps` is that order. Nothing here reads the world.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

import polars as pl

from feedback_etl.errors import UsageError, ValidationError
from feedback_etl.expressions import hash_id
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.schema import split_valid, validate
from feedback_etl.source.window import Window
from feedback_etl.transforms import RAW_KEY, anonymize, deduplicate, enough_ratings

RecommendationId = Literal["keep", "hash"]


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
        if self.recommendation_id not in ("keep", "hash"):
            raise UsageError('recommendation_id must be "keep" or "hash".')
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
        except pl.exceptions.PolarsError as error:  # its text may hold values
            raise ValidationError(
                f"A batch could not be processed ({type(error).__name__}); nothing was written."
            ) from None

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
        self._reasons.update(rejected["reasons"].str.split(",").explode().to_list() if rejected.height else ())
        return Batch(validate(pairs), self._without_values(rejected))

    def _first_of_pairs(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Duplicates have equal times and rows come ordered by time: only the last time has to be remembered."""
        unique = deduplicate(valid, by=RAW_KEY)
        if self._seen is not None:
            unique = unique.join(self._seen, on=RAW_KEY, how="anti", maintain_order="left")
        if valid.height:
            keys = unique.select(RAW_KEY)
            known = keys if self._seen is None else pl.concat([self._seen, keys], how="vertical_relaxed")
            self._seen = known.filter(pl.col("created_at") == valid["created_at"].last())
        return unique

    def _without_values(self, rejected: pl.DataFrame) -> pl.DataFrame:
        key = self._rules.key
        return rejected.select(
            "feedback_id",
            analysis_hash=hash_id("analysis_id", key=key.text if key else None, unkeyed=key is None),
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
        listed = ", ".join(f"{reason} {rows:,}" for reason, rows in self._reasons.most_common())
        raise ValidationError(
            f"Nothing was exported: {rejected:,} of {judged:,} rows are rejected, and {why}. Reasons: {listed}.",
            dict(self._reasons.most_common()),
        )

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
            rejected_reasons=dict(self._reasons.most_common()),
            window=window,
            key_id=key.id if key else None,
        )
