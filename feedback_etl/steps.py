"""What happens to a batch of raw rows, in order.

Too few ratings? skipped -> something wrong? rejected -> seen before? dropped -> pseudonymised -> validated.
`Run._steps` is that order. Nothing here reads the world.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from feedback_etl.columns import IMAGE_URL
from feedback_etl.errors import AllRejectedError, ValidationError
from feedback_etl.exports.seen_rows import Memory
from feedback_etl.exports.tombstones import Tombstones, is_forgotten
from feedback_etl.expressions import harmless, hash_id
from feedback_etl.privacy.anonymity import CAP, People, told
from feedback_etl.rejection import explain, is_valid, tell_apart
from feedback_etl.results import ExportReport
from feedback_etl.rules import Rules
from feedback_etl.schema import validate
from feedback_etl.source.window import Window
from feedback_etl.transforms import RAW_KEY, anonymize, coarsen, deduplicate, enough_ratings

_RAW_KEY_AS_TEXT = (pl.col("analysis_id", "recommendation_id").cast(pl.String), pl.col("created_at"))
"""Comparable between batches, also where a source gives an id as a number in one and as text in the next."""

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


def _compact(rows: pl.DataFrame) -> pl.DataFrame:
    """A copy of few rows that does not keep the texts of the whole batch in memory, as a filter does."""
    return pl.DataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _nulls(frame: pl.DataFrame, name: str) -> int:
    """How many values a column lacks; none where it is not there."""
    return frame[name].null_count() if name in frame.columns else 0


def _missing_ages(rows: pl.DataFrame) -> int:
    """Count the rows without an age: null, or NaN."""
    age = rows["age"]
    return age.null_count() + (int(age.is_nan().sum()) if age.dtype.is_float() else 0)


class Tally(NamedTuple):
    """What a run has counted, small and without a value of anybody's row but those of the quasi-identifiers.

    Attributes:
        counts: Rows, by what became of them.
        reasons: Rejected rows, by reason.
        classes: The classes and digests of their people; see `anonymity.People.digested`.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    classes: bytes


class Run:
    """The steps for one batch after the other, and what has to be carried from one to the next."""

    def __init__(self, rules: Rules, forgotten: Sequence[Tombstones] = (), memory: Memory | None = None) -> None:
        self._rules = rules
        self._forgotten = is_forgotten(forgotten) if forgotten else None
        self._memory = memory
        asked = rules.anonymity
        self._cap = max(CAP, asked.k or 0)
        self._people = People(asked.quasi_identifiers, self._cap)
        self._classes: pl.DataFrame | None = None
        self._enough = enough_ratings(rules.min_feedback_fields)
        self._seen: pl.DataFrame | None = None
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
            raw = self._memory.unread(raw, lambda rows: self._enough & is_valid(rows, rules.extra))
        rated = raw.filter(self._enough)
        valid, rejected = tell_apart(rated, rules.extra)
        unique = self._first_of_pairs(valid)
        if self._memory is not None:
            unique = self._memory.unseen(unique)
        pairs = anonymize(
            unique,
            now=rules.now,
            key=rules.key,
            unkeyed=rules.key is None,
            recommendation_id=rules.recommendation_id,
            extra=rules.extra,
            age_edges=rules.age_edges,
        ).pipe(coarsen, rules.timestamp_precision, also=[each.name for each in rules.extra if each.type == "time"])
        self._people.add(pairs, unique["user_id"])
        self._counts.update(
            total=raw.height,
            skipped=raw.height - rated.height,
            rejected=rejected.height,
            deduplicated=valid.height - unique.height,
            exported=pairs.height,
            implausible_ages=_nulls(pairs, "age_range") - _missing_ages(unique),
            withheld=_nulls(pairs, IMAGE_URL.name) - _nulls(unique, IMAGE_URL.name),
        )
        return Batch(pairs, self._explained(rejected))

    def validated(self, batch: Batch) -> Batch:
        """The batch itself: the gate before anything is written or handed out.

        Raises:
            ValidationError: The pairs are not a training set by `TrainingPair`, or not by the caller's own model.
        """
        rules = self._rules
        validate(batch.pairs, extra=rules.extra, age_edges=rules.age_edges, model=rules.model)
        return batch

    def finish(self) -> pl.DataFrame:
        """The last of the rejected rows."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return _NONE_REJECTED
        explained = explain(pl.concat(waiting), self._rules.extra)
        reasons = explained["reasons"].str.split(",").explode().value_counts()
        self._reasons.update(dict(reasons.iter_rows()))
        return self._without_values(explained)

    def _explained(self, rejected: pl.DataFrame) -> pl.DataFrame:
        """Explaining is dear, however few the rows: those of many batches wait to be explained at once."""
        told = _NONE_REJECTED
        if self._waiting and rejected.schema != self._waiting[-1].schema:  # as a source without types may give them
            told = self.finish()
        if rejected.height or not self._waiting:
            self._waiting.append(_compact(rejected))
        if sum(rows.height for rows in self._waiting) < _EXPLAINED_AT_ONCE:
            return told
        return pl.concat([told, self.finish()], how="vertical_relaxed")

    def _first_of_pairs(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Duplicates have equal times, and rows come ordered by time: only neighbours can be duplicates.

        Of earlier batches, only the rows of the last time have to be remembered.
        """
        if valid.is_empty():
            return valid
        time, last = pl.col("created_at"), valid["created_at"][-1]
        row = pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")
        tied = valid.select(row, *RAW_KEY).filter((time == time.shift(1)) | (time == time.shift(-1)))
        repeats = tied.join(deduplicate(tied, by=RAW_KEY), on="row", how="anti")["row"]
        unique = valid.filter(~row.is_in(repeats.implode())) if len(repeats) else valid
        keys = unique.filter(time == last).select(_RAW_KEY_AS_TEXT)
        if self._seen is not None and valid["created_at"][0] == self._seen["created_at"][0]:
            unique = unique.join(
                self._seen, left_on=_RAW_KEY_AS_TEXT, right_on=RAW_KEY, how="anti", maintain_order="left"
            )
            keys = pl.concat([self._seen.filter(time == last), keys])
        self._seen = _compact(keys)
        return unique

    def _without_values(self, rejected: pl.DataFrame) -> pl.DataFrame:
        key = self._rules.key
        is_text = rejected.schema["feedback_id"] == pl.String
        return rejected.select(
            harmless("feedback_id") if is_text else "feedback_id",
            analysis_hash=hash_id("analysis_id", key=key, unkeyed=key is None),
            reasons="reasons",
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
        if why := asked.objection(rows, everything):
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
        tally = Tally(dict(self._counts), dict(self._reasons), self._people.digested(self._rules.key))
        self._counts, self._reasons, self._people = Counter(), Counter(), self._people.anew()
        return tally

    def add(self, tally: Tally) -> None:
        """Count what another run has counted, of other rows."""
        self._counts.update(tally.counts)
        self._reasons.update(tally.reasons)
        self._people.add_digested(tally.classes)

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
            rejected_reasons=self._reasons_by_frequency(),
            window=window,
            key_id=key.id if key else None,
            risk={} if self._classes is None else told(self._classes, self._rules.anonymity, self._cap),
        )
