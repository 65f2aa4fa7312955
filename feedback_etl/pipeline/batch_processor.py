"""Process the batches of a run in order, and accumulate counts, duplicates and equivalence classes.

The steps of a single batch and their order are in `transform.batch`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import polars as pl

from feedback_etl.data_files.seen_rows import SeenRows
from feedback_etl.database.window import Window
from feedback_etl.errors import AllRejectedError, ValidationError
from feedback_etl.pipeline.batch_results import BatchCounts, ProcessedBatch
from feedback_etl.pipeline.rejected_rows import RejectedRows
from feedback_etl.pipeline.release import validate_pairs
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.column_inspector import ColumnInspector
from feedback_etl.privacy.k_anonymity import ClassCounter
from feedback_etl.privacy.keys import get_key_id
from feedback_etl.privacy.release_plan import ReleasePlan, plan_release
from feedback_etl.records.tombstones import Tombstones, is_erased
from feedback_etl.results import ExportReport
from feedback_etl.transform.batch import process_batch
from feedback_etl.transform.duplicates import CustomDuplicateFilter, DuplicateFilter, RawDuplicateFilter
from feedback_etl.transform.raw_schema import is_valid
from feedback_etl.transform.transforms import has_min_ratings


class _SeriesDuplicateFilter(RawDuplicateFilter):
    """Remove duplicates within the run, and duplicates of rows in earlier exports of an incremental series."""

    def __init__(self, seen_rows: SeenRows, key: Sequence[str]) -> None:
        super().__init__(key)
        self._seen_rows = seen_rows

    def filter_raw(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Drop rows of known pairs first: an unchanged one must not hide a changed row of its pair."""
        unique = super().filter_raw(self._seen_rows.filter_new_pairs(valid))
        self._seen_rows.count_changed(unique)
        return unique


class BatchProcessor:
    """Process batches, and accumulate duplicates, rejected rows, counts and equivalence classes.

    Args:
        options: Options that decide what happens to a row.
        tombstones: Tombstones of erased people, whose rows are removed first.
        seen_rows: Rows of earlier exports of an incremental series, which are removed as well.
    """

    def __init__(
        self, options: TransformOptions, tombstones: Sequence[Tombstones] = (), seen_rows: SeenRows | None = None
    ) -> None:
        self._options = options
        self._is_erased = is_erased(tombstones) if tombstones else None
        self.seen_rows = seen_rows
        self._duplicates = _create_duplicate_filter(options, seen_rows)
        policy = options.k_policy
        self._people = ClassCounter([*policy.quasi_identifiers, *policy.measured_columns], policy.max_counted_people)
        self._plan: ReleasePlan | None = None
        self._inspector = ColumnInspector(
            options.schema,
            options.key,
            options.now.year,
            hashes_item=options.hash_recommendation_id,
            has_own_query=options.has_own_query,
        )
        self._rejected = RejectedRows(options)
        self._counts: Counter[str] = Counter()

    @property
    def rows(self) -> int:
        """The number of rows processed so far."""
        return self._counts["total_feedback_records"]

    def process(self, raw: pl.DataFrame) -> ProcessedBatch:
        """Process a batch of raw rows; batches and their rows must be ordered by time.

        Raises:
            ValidationError: The batch cannot be processed.
        """
        try:
            result = process_batch(self._remove_known(raw), self._options, self._duplicates)
            self._people.add(result.pairs, result.ids["user_id"])
            self._inspector.add(result.pairs, result.ids)
            self._counts.update(result.counts, changed_records=self.seen_rows.take_changed() if self.seen_rows else 0)
            return ProcessedBatch(result.pairs, result.ids["user_id"], self._rejected.add(result.rejected))
        except pl.exceptions.PolarsError as error:
            error_type = type(error).__name__  # its text may contain values
        raise ValidationError(f"A batch could not be processed ({error_type}); nothing was written.")

    def _remove_known(self, raw: pl.DataFrame) -> pl.DataFrame:
        """Remove the rows of erased people, and rows that an earlier export of the series has read."""
        if self._is_erased is not None:
            remaining = raw.filter(~self._is_erased)
            self._counts["erased_records"] += raw.height - remaining.height
            raw = remaining
        if self.seen_rows is not None:
            options, read = self._options, raw.height
            has_ratings = has_min_ratings(options.min_feedback_fields, options.schema)
            raw = self.seen_rows.filter_new_rows(
                raw,
                lambda rows: has_ratings & is_valid(rows, options.schema, reject_formulas=options.reject_formulas),
            )
            self._counts["known_records"] += read - raw.height
        return raw

    def validate_pairs(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Return training pairs if they are valid; see `release.validate_pairs`."""
        return validate_pairs(pairs, self._options)

    def flush_rejected(self) -> pl.DataFrame:
        """Return the rejected rows that are still pending."""
        return self._rejected.flush()

    def check_limits(self, window: Window, excluded: int) -> None:
        """Raise, after the last batch, if a column must not be published or too many rows are rejected.

        Args:
            window: Window of the export, for the report in AllRejectedError.
            excluded: Number of rows without consent, for the same report.

        Raises:
            AllRejectedError: All rows with enough ratings are rejected, although `max_rejected` allows that share.
            ValidationError: More rows are rejected than the options allow, or a column contains what must not be
                published; see `ColumnInspector`.
        """
        self._inspector.require_none()
        options = self._options
        rejected, rated = self._counts["errors"], self.rows - self._counts["skipped_records"]
        if not rejected:
            return
        is_over_limit = options.strict or rejected / rated > options.max_rejected
        if not is_over_limit and rejected < rated:
            return
        reasons = self._rejected.sort_reasons()
        listed = ", ".join(f"{reason} {rows:,}" for reason, rows in reasons.items())
        message = f"Nothing was exported: {rejected:,} of {rated:,} rows ({100 * rejected / rated:.1f} %) are rejected"
        if not is_over_limit:
            message = f"{message}, so no valid row is left. Reasons: {listed}."
            raise AllRejectedError(message, reasons, self.build_report(window, excluded))
        limit, remedy = f"`max_rejected` allows {options.max_rejected:.10g}", "raise `max_rejected`"
        if options.strict:
            limit, remedy = "`strict` allows none", "leave `strict` out"
        raise ValidationError(
            f"{message}, and {limit}. Reasons: {listed}. Correct these rows in the database, or {remedy}.", reasons
        )

    def plan_release(self) -> pl.DataFrame:
        """Return, after the last batch, the classes that are not published as they are; see `ReleasePlan.changes`.

        Raises:
            ValidationError: The policy does not allow small classes or so many suppressed rows, or no row would remain.
        """
        plan = plan_release(self._people, self._options.k_policy)
        self._counts.update(suppressed_records=plan.suppressed, exported_records=-plan.suppressed)
        self._plan = plan
        return plan.changes

    def count_people(self) -> pl.DataFrame:
        """Return the equivalence classes with digests of their people; see `ClassCounter.to_table`."""
        return self._people.to_table(self._options.key)

    def set_plan(self, plan: ReleasePlan, counts: Mapping[str, int]) -> None:
        """Set the plan of a release whose classes were counted over a series, and add to the counts of the report."""
        self._plan = plan
        self._counts.update(counts)

    def take_counts(self) -> BatchCounts:
        """Return the counts since the last call, and reset them."""
        taken = BatchCounts(
            dict(self._counts),
            dict(self._rejected.reasons),
            self._people.to_digests(self._options.key),
            self._inspector.take_counts(),
        )
        self._counts, self._rejected.reasons = Counter(), Counter()
        self._people = self._people.empty_copy()
        return taken

    def merge_counts(self, counts: BatchCounts) -> None:
        """Add the counts of another processor, which processed other rows."""
        self._counts.update(counts.counts)
        self._rejected.reasons.update(counts.reasons)
        self._people.merge_digests(counts.classes)
        self._inspector.merge(counts.columns)

    def build_report(
        self, window: Window, excluded: int, escaped_texts: Mapping[str, int] = MappingProxyType({})
    ) -> ExportReport:
        """Return the report of the rows processed so far."""
        options, counts = self._options, dict[str, Any](self._counts)
        return ExportReport(
            **counts,
            anonymized_records=sum(self._counts[f"{name}_records"] for name in ("exported", "suppressed", "pending")),
            excluded_records=excluded,
            rejected_reasons=self._rejected.sort_reasons(),
            escaped_texts=dict(sorted(escaped_texts.items())),
            window=window,
            key_id=get_key_id(options.key),
            risk={} if self._plan is None else self._plan.summarize(options.k_policy),
        )


def _create_duplicate_filter(options: TransformOptions, seen_rows: SeenRows | None) -> DuplicateFilter:
    if options.overrides.pair_hash is not None:
        return CustomDuplicateFilter(options.overrides.pair_hash)
    return (
        RawDuplicateFilter(options.schema.dedup_key)
        if seen_rows is None
        else _SeriesDuplicateFilter(seen_rows, options.schema.dedup_key)
    )
