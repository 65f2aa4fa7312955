"""What happens to a batch of raw rows, in order.

Too few ratings? skipped -> something wrong? rejected -> seen before? dropped -> pseudonymised -> validated.
`Run._steps` is that order. Nothing here reads the world.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.columns import IMAGE_URL, ExtraColumn
from feedback_etl.database.window import Window
from feedback_etl.errors import AllRejectedError, ValidationError
from feedback_etl.exports.seen_rows import SeenRows
from feedback_etl.exports.tombstones import Tombstones, is_erased
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import MAX_COUNTED_PEOPLE, ClassCounter, summarize
from feedback_etl.results import ExportReport
from feedback_etl.transform.dataframes import compact, nan_to_null
from feedback_etl.transform.duplicates import FirstOfOwnPairs, FirstOfPairs
from feedback_etl.transform.expressions import MAX_AGE, escape_formula, hash_id
from feedback_etl.transform.raw_schema import add_reasons, is_valid, partition_valid
from feedback_etl.transform.training_schema import validate
from feedback_etl.transform.transforms import anonymize, coarsen, has_min_ratings

_EXPLAINED_AT_ONCE = 5_000
_NONE_REJECTED = pl.DataFrame(schema={"feedback_id": pl.Null, "analysis_hash": pl.String, "reasons": pl.String})


class Batch(NamedTuple):
    """What became of a batch of raw rows.

    Attributes:
        pairs: The training pairs made of it.
        rejected: Rejected rows of this and of earlier batches: feedback_id, analysis_hash, reasons. Those that wait to
            be explained come with a later batch, or from `Run.finish`.
    """

    pairs: pl.DataFrame
    rejected: pl.DataFrame


def _nulls(frame: pl.DataFrame, name: str) -> int:
    """How many values a column lacks; none where it is not there."""
    return frame[name].null_count() if name in frame.columns else 0


def _times(extra_columns: Sequence[ExtraColumn]) -> list[ExtraColumn]:
    """Return the declared columns that contain times."""
    return [each for each in extra_columns if each.type == "time" and each.role != "identifier"]


def _implausible_ages(pairs: pl.DataFrame, rows: pl.DataFrame) -> int:
    """Count the rows whose age_range is empty since their age is nobody's."""
    ages: Any = rows["age"]
    least, greatest = ages.min(), ages.max()
    if least is None or (least >= 0 and greatest <= MAX_AGE):  # as in nearly every batch, and ten times as fast
        return 0
    is_outside = ~nan_to_null(ages).is_between(0, MAX_AGE)
    return int((is_outside & pairs["age_range"].is_null()).sum())


class Tally(NamedTuple):
    """What a run has counted, small and without a value of anybody's row but those of the quasi-identifiers.

    Attributes:
        counts: Rows, by what became of them.
        reasons: Rejected rows, by reason.
        classes: The classes and digests of their people; see `ClassCounter.to_digests`.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    classes: bytes


class Run:
    """The steps for one batch after the other, and what has to be carried from one to the next."""

    def __init__(
        self, rules: TransformOptions, forgotten: Sequence[Tombstones] = (), memory: SeenRows | None = None
    ) -> None:
        self._rules = rules
        self._forgotten = is_erased(forgotten) if forgotten else None
        self._memory = memory
        asked = rules.anonymity
        self._cap = max(MAX_COUNTED_PEOPLE, asked.k or 0)
        self._people = ClassCounter(asked.quasi_identifiers, self._cap)
        self._classes: pl.DataFrame | None = None
        self._overridden = frozenset(rules.overrides.names())
        own_hash = rules.overrides.pair_hash
        self._first_of_pairs = FirstOfPairs()
        self._first_of_own_pairs = None if own_hash is None else FirstOfOwnPairs(own_hash)
        self._enough = has_min_ratings(rules.min_feedback_fields)
        self._waiting: list[pl.DataFrame] = []
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def process(self, raw: pl.DataFrame) -> Batch:
        """Raw rows, in the order of their times, to training pairs and rejected rows.

        Raises:
            ValidationError: They could not be processed.
        """
        try:
            return self._steps(raw)
        except pl.exceptions.PolarsError as error:
            kind = type(error).__name__  # and no more: its text may hold values
        raise ValidationError(f"A batch could not be processed ({kind}); nothing was written.")

    def _steps(self, raw: pl.DataFrame) -> Batch:
        rules = self._rules
        if self._forgotten is not None:
            everybody, raw = raw.height, raw.filter(~self._forgotten)
            self._counts["forgotten"] += everybody - raw.height
        if self._memory is not None:
            raw = self._memory.filter_new_rows(raw, lambda rows: self._enough & is_valid(rows, rules.extra_columns))
        rated = raw.filter(self._enough)
        valid, rejected = partition_valid(rated, rules.extra_columns)
        if self._first_of_own_pairs is None:
            unique = self._first_of_pairs.filter(valid)
            if self._memory is not None:
                unique = self._memory.filter_new_pairs(unique)
            pairs = self._anonymized(unique)
        else:
            pairs = self._anonymized(valid)
            first = self._first_of_own_pairs.mask(pairs)
            unique, pairs = valid.filter(first), pairs.filter(first)
        pairs = coarsen(pairs, rules.timestamp_precision, also=[each.name for each in _times(rules.extra_columns)])
        self._people.add(pairs, unique["user_id"])
        self._counts.update(
            total=raw.height,
            skipped=raw.height - rated.height,
            rejected=rejected.height,
            deduplicated=valid.height - unique.height,
            exported=pairs.height,
            implausible_ages=_implausible_ages(pairs, unique),
            withheld=_nulls(pairs, IMAGE_URL.name) - _nulls(unique, IMAGE_URL.name),
            unreadable=sum(
                _nulls(pairs, each.name) - _nulls(unique, each.name) for each in _times(rules.extra_columns)
            ),
        )
        return Batch(pairs, self._explained(rejected))

    def _anonymized(self, valid: pl.DataFrame) -> pl.DataFrame:
        rules = self._rules
        pairs = anonymize(
            valid,
            now=rules.now,
            key=rules.key,
            unkeyed=rules.key is None,
            hash_recommendation_id=rules.hash_recommendation_id,
            extra_columns=rules.extra_columns,
            age_edges=rules.age_edges,
        )
        return rules.overrides.apply(pairs, valid) if self._overridden else pairs

    def validated(self, batch: Batch) -> Batch:
        """The batch itself: the gate before anything is written or handed out.

        Raises:
            ValidationError: The pairs are not a training set by `TrainingPair`, or not by the caller's own model.
        """
        rules = self._rules
        validate(
            batch.pairs,
            extra_columns=rules.extra_columns,
            age_edges=rules.age_edges,
            row_model=rules.row_model,
            overridden=self._overridden,
        )
        return batch

    def finish(self) -> pl.DataFrame:
        """The last of the rejected rows."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return _NONE_REJECTED
        explained = add_reasons(pl.concat(waiting), self._rules.extra_columns)
        reasons = explained["reasons"].str.split(",").explode().value_counts()
        self._reasons.update(dict(reasons.iter_rows()))
        return self._without_values(explained)

    def _explained(self, rejected: pl.DataFrame) -> pl.DataFrame:
        """Explaining is dear, however few the rows: those of many batches wait to be explained at once."""
        told = _NONE_REJECTED
        if self._waiting and rejected.schema != self._waiting[-1].schema:  # as a source without types may give them
            told = self.finish()
        if rejected.height or not self._waiting:
            self._waiting.append(compact(rejected))
        if sum(rows.height for rows in self._waiting) < _EXPLAINED_AT_ONCE:
            return told
        return pl.concat([told, self.finish()], how="vertical_relaxed")

    def _without_values(self, rejected: pl.DataFrame) -> pl.DataFrame:
        key, overrides = self._rules.key, self._rules.overrides
        is_text = rejected.schema["feedback_id"] == pl.String
        pseudonyms: pl.Expr | pl.Series = hash_id("analysis_id", key=key, unkeyed=key is None)
        if overrides.hash_id is not None:
            pseudonyms = overrides.pseudonyms(rejected["analysis_id"])
        return rejected.select(
            escape_formula("feedback_id") if is_text else "feedback_id", analysis_hash=pseudonyms, reasons="reasons"
        )

    def judge(self, window: Window, excluded: int) -> None:
        """Decide, when all rows have been seen, whether there may be an export.

        Args:
            window: For the report of an export of which all rows are rejected, as of `report`.
            excluded: The same.

        Raises:
            AllRejectedError: All rows are rejected, and the rules allow that as far as they say how many.
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
        message = f"Nothing was exported: {rejected:,} of {judged:,} rows are rejected, and {why}. Reasons: {listed}."
        if self._rules.strict or rejected / judged > self._rules.max_rejected:
            raise ValidationError(message, reasons)
        raise AllRejectedError(message, reasons, self.report(window, excluded))

    def small_classes(self) -> pl.DataFrame:
        """The classes whose rows are left out, when all rows have been seen; those rows count as suppressed.

        Raises:
            ValidationError: There may be none, or not so many rows, or no other row is left.
        """
        asked, classes = self._rules.anonymity, self._people.classes()
        small = classes.filter(pl.col("people") < (asked.k or 0))
        rows, everything = int(small["rows"].sum()), int(classes["rows"].sum())
        if why := asked.violation(rows, everything):
            raise ValidationError(
                f"Nothing was exported: {rows:,} of {everything:,} rows are of fewer than {asked.k} people who share "
                f"{', '.join(asked.quasi_identifiers)}, and {why}. Fewer quasi-identifiers make classes larger."
            )
        self._classes = classes.filter(pl.col("people") >= (asked.k or 0))
        self._counts.update(suppressed=rows, exported=-rows)
        return small

    @property
    def rows(self) -> int:
        """How many were read so far."""
        return self._counts["total"]

    def tally(self) -> Tally:
        """What was counted since the last tally, for a run that puts several together."""
        tally = Tally(dict(self._counts), dict(self._reasons), self._people.to_digests(self._rules.key))
        self._counts, self._reasons, self._people = Counter(), Counter(), self._people.empty_copy()
        return tally

    def add(self, tally: Tally) -> None:
        """Count what another run has counted, of other rows."""
        self._counts.update(tally.counts)
        self._reasons.update(tally.reasons)
        self._people.merge_digests(tally.classes)

    def _reasons_by_frequency(self) -> dict[str, int]:
        return dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0])))

    def report(self, window: Window, excluded: int) -> ExportReport:
        """The figures so far."""
        counts, key = self._counts, self._rules.key
        return ExportReport(
            total_feedback_records=counts["total"],
            exported_records=counts["exported"],
            anonymized_records=counts["exported"] + counts["suppressed"],
            suppressed_records=counts["suppressed"],
            deduplicated_records=counts["deduplicated"],
            skipped_records=counts["skipped"],
            errors=counts["rejected"],
            excluded_records=excluded + counts["forgotten"],
            implausible_ages=counts["implausible_ages"],
            withheld_image_urls=counts["withheld"],
            unreadable_times=counts["unreadable"],
            rejected_reasons=self._reasons_by_frequency(),
            window=window,
            key_id=key.id if key else None,
            risk={} if self._classes is None else summarize(self._classes, self._rules.anonymity, self._cap),
        )
