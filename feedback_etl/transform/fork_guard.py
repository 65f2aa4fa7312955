"""Refuse to run Polars in a forked process where it would wait forever for threads that the fork did not copy."""

import os
import threading

from feedback_etl.errors import UsageError

_ANSWER_SECONDS = 10.0
_usable_in: int | None = None
"""The id of the process in which Polars was last found to work."""


def require_usable_polars() -> None:
    """Check once per process that Polars can use its threads.

    Raises:
        UsageError: This process was forked from one in which Polars had already run.
    """
    global _usable_in
    if _usable_in == os.getpid():
        return
    if not _is_polars_responsive():
        raise UsageError(
            "This process was forked from one in which Polars had already run, so Polars would wait forever. Do not "
            "run Polars before the fork (importing it is fine), or start the process with the multiprocessing method "
            '"spawn", or use a thread.'
        )
    _usable_in = os.getpid()


def _is_polars_responsive() -> bool:
    import polars as pl

    numbers = pl.DataFrame({"a": [1, 2], "b": [1, 2]})
    parallel_expressions = pl.col("a") + 1, pl.col("b") + 1  # a single expression would not use the threads
    check = threading.Thread(
        target=numbers.with_columns, args=parallel_expressions, name="feedback_etl fork check", daemon=True
    )
    check.start()
    check.join(_ANSWER_SECONDS)
    return not check.is_alive()
