"""Process a stream of batches and write the results, in two threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import BatchProcessor, ProcessedBatch

Write = Callable[[pl.DataFrame], None]


def process_batches(
    processor: "BatchProcessor", raw_batches: Iterable[pl.DataFrame], *, write: Write, write_rejected: Write
) -> None:
    """Process batches, while a thread validates and writes the one before.

    Args:
        processor: Processes and validates.
        raw_batches: Raw rows, ordered by time.
        write: Writes training pairs.
        write_rejected: Writes rejected rows.

    Raises:
        ValidationError: A batch cannot be processed, or its pairs are invalid.
    """

    def write_batch(batch: "ProcessedBatch") -> None:
        write(processor.validate_batch(batch).pairs)
        write_rejected(batch.rejected)

    with ThreadPoolExecutor(1, "feedback_etl writer") as writer:
        writing = writer.submit(lambda: None)
        for raw in raw_batches:
            batch = processor.process(raw)
            writing.result()
            writing = writer.submit(write_batch, batch)
        writing.result()
    write_rejected(processor.flush_rejected())
