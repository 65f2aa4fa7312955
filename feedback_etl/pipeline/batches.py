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

BATCHES_PER_CHECK = 2
"""Batches that are validated together: a call of pandera takes 19 ms, however few the rows."""


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

    def write_batches(batches: list["ProcessedBatch"]) -> None:
        processor.validate_pairs(pl.concat([batch.pairs for batch in batches]))
        for batch in batches:
            write(batch)
            write_rejected(batch.rejected)

    with ThreadPoolExecutor(1, "feedback_etl writer") as writer:
        writing, batches = writer.submit(lambda: None), list["ProcessedBatch"]()
        for raw in raw_batches:
            batches.append(processor.process(raw))
            if len(batches) == BATCHES_PER_CHECK:
                writing.result()
                writing, batches = writer.submit(write_batches, batches), []
        writing.result()
        if batches:
            write_batches(batches)
    write_rejected(processor.flush_rejected())
