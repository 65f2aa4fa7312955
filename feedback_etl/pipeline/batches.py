"""Raw batches through a run into files, with both processors at work."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from feedback_etl.pipeline.batch_processor import Batch, Run

Write = Callable[[pl.DataFrame], None]


def process_into(append: Write, reject: Write, run: "Run", raw_batches: Iterable[pl.DataFrame]) -> None:
    """Process batches and write them. While one is validated and written, in a thread, the next is processed.

    Args:
        append: Takes training pairs.
        reject: Takes rejected rows.
        run: The steps.
        raw_batches: Raw rows, in the order of their times.

    Raises:
        ValidationError: Pairs are not a training set.
    """

    def write(batch: "Batch") -> None:
        append(run.validated(batch).pairs)
        reject(batch.rejected)

    with ThreadPoolExecutor(1, "feedback_etl writer") as writer:
        writing = writer.submit(lambda: None)
        for raw in raw_batches:
            batch = run.process(raw)
            writing.result()
            writing = writer.submit(write, batch)
        writing.result()
    reject(run.finish())
