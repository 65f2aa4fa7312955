"""Process a stream of batches and write the results, in two threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor
    from feedback_etl.pipeline.batch_results import ProcessedBatch

Write = Callable[[pl.DataFrame], None]
WriteBatch = Callable[["ProcessedBatch"], None]


def process_batches(
    processor: "BatchProcessor", raw_batches: Iterable[pl.DataFrame], *, write: WriteBatch, write_rejected: Write
) -> None:
    """Process batches, while a thread validates and writes the batches before them.

    Args:
        processor: Processor of the batches and validator of their pairs.
        raw_batches: Batches of raw rows, ordered by time.
        write: Function that writes the training pairs of a batch.
        write_rejected: Function that writes rejected rows.

    Raises:
        ValidationError: A batch cannot be processed, or its pairs are invalid.
    """

    def write_batch(batch: "ProcessedBatch") -> None:
        processor.validate_pairs(batch.pairs)
        write(batch)
        write_rejected(batch.rejected)

    with ThreadPoolExecutor(1, "feedback_etl writer") as writer:
        writing = writer.submit(lambda: None)
        for batch in map(processor.process, raw_batches):
            writing.result()
            writing = writer.submit(write_batch, batch)
            del batch  # so that it is freed once it is written
        writing.result()
    write_rejected(processor.flush_rejected())
