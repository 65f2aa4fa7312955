"""Process a batch of raw rows. `process_batch` shows the order of the steps; all functions are pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.schema.feedback_columns import MAX_AGE
from feedback_etl.schema.model import AGE_RANGE_NAME, IMAGE_URL, RAW_IDS, FeedbackSchema
from feedback_etl.transform.ages import age_at_feedback
from feedback_etl.transform.dataframes import replace_nan
from feedback_etl.transform.duplicates import DuplicateFilter
from feedback_etl.transform.items import add_items
from feedback_etl.transform.raw_schema import partition_valid
from feedback_etl.transform.step_options import StepOptions
from feedback_etl.transform.transforms import anonymize, coarsen, has_min_ratings


class BatchResult(NamedTuple):
    """The result of a batch.

    Attributes:
        pairs: Training pairs, not yet checked by `validate`, with the items that they carry (`transform.items`).
        ids: The raw ids of each pair, in the same order.
        rejected: Invalid raw rows, without reasons; `add_reasons` adds them.
        counts: Numbers of rows and values, by the fields of `ExportReport`.
    """

    pairs: pl.DataFrame
    ids: pl.DataFrame
    rejected: pl.DataFrame
    counts: dict[str, int]


def process_batch(raw: pl.DataFrame, options: StepOptions, duplicates: DuplicateFilter) -> BatchResult:
    """Turn raw rows into training pairs.

    Args:
        raw: The canonical raw columns, ordered by time.
        options: The options of the steps.
        duplicates: Filter that removes duplicates of rows in this batch and in earlier batches.

    Raises:
        ValidationError: Columns are missing or of a wrong type, or an overridden function of the application failed.
    """
    # One name for the rows of all steps, so that those before a step are freed.
    remaining = raw.filter(has_min_ratings(options.min_feedback_fields, options.schema))
    rated = remaining.height
    remaining, rejected = partition_valid(remaining, options.schema, reject_formulas=options.reject_formulas)
    remaining = duplicates.filter_raw(remaining)
    pairs = _pseudonymize(remaining, options)
    remaining, pairs = duplicates.filter_pairs(remaining, pairs)
    time_columns = options.schema.time_columns[1:]
    pairs = coarsen(pairs, options.timestamp_precision, also=time_columns)
    counts = {
        "total_feedback_records": raw.height,
        "skipped_records": raw.height - rated,
        "errors": rejected.height,
        "deduplicated_records": rated - rejected.height - remaining.height,
        "exported_records": pairs.height,
        "implausible_ages": _count_implausible_ages(pairs, remaining, options.schema),
        "withheld_image_urls": _count_new_nulls(pairs, remaining, [IMAGE_URL.name]),
        "unreadable_times": _count_new_nulls(pairs, remaining, time_columns),
    }
    pairs = add_items(pairs, remaining, options.schema.exported_items)
    return BatchResult(pairs, remaining.select(RAW_IDS), rejected, counts)


def _pseudonymize(valid: pl.DataFrame, options: StepOptions) -> pl.DataFrame:
    pairs = anonymize(
        valid,
        now=options.now,
        key=options.key,
        unkeyed=options.key is None,
        hash_recommendation_id=options.hash_recommendation_id,
        schema=options.schema,
    )
    return options.overrides.apply(pairs, valid)


def _count_new_nulls(pairs: pl.DataFrame, raw: pl.DataFrame, names: Sequence[str]) -> int:
    """Count the values of existing columns that became null."""
    return sum(pairs[name].null_count() - raw[name].null_count() for name in names if name in pairs.columns)


def _count_implausible_ages(pairs: pl.DataFrame, raw: pl.DataFrame, schema: FeedbackSchema) -> int:
    """Count the rows without an age_range because their age is implausible."""
    if schema.age is None:
        return 0
    ages: Any = raw.select(age_at_feedback(schema.age)).to_series()
    lowest, highest = ages.min(), ages.max()
    if lowest is None or (lowest >= 0 and highest <= MAX_AGE):  # the usual case: this check is ten times as fast
        return 0
    is_implausible = ~replace_nan(ages).is_between(0, MAX_AGE)
    return int((is_implausible & pairs[AGE_RANGE_NAME].is_null()).sum())
