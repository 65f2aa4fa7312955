"""Results of processing: a batch that is ready to be written, and the counts of a part of a run."""

from typing import NamedTuple

import polars as pl

from feedback_etl.privacy.column_inspector import ColumnCounts


class ProcessedBatch(NamedTuple):
    """A batch that is ready to be validated and written.

    Attributes:
        pairs: The training pairs.
        user_ids: The user of each pair, in the same order.
        rejected: Rejected rows of this batch and of earlier ones: feedback_id, analysis_hash, reasons. Pending rows are
            returned with a later batch, or by `BatchProcessor.flush_rejected`.
    """

    pairs: pl.DataFrame
    user_ids: pl.Series
    rejected: pl.DataFrame


class BatchCounts(NamedTuple):
    """Counts of a part of a run; the only values of rows that it contains are those of the quasi-identifiers.

    Attributes:
        counts: Numbers of rows and values, by the fields of `ExportReport`.
        reasons: Rejected rows by reason.
        classes: Equivalence classes with digests of their people; see `ClassCounter.to_digests`.
        columns: Counts of what must not be published, by column.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    classes: bytes
    columns: dict[str, ColumnCounts] = {}  # noqa: RUF012  it is not changed
