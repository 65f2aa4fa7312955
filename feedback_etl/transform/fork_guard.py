"""Refuse to run Polars in a forked process in which it would wait forever for threads that the fork did not copy."""

import os
import threading

from feedback_etl.errors import UsageError

_ANSWER_SECONDS = 10.0
_usable_in: int | None = None
"""The process in which Polars last worked."""


def require_usable_polars() -> None:
    """Check once per process that Polars can use its threads.

    Raises:
        UsageError: This process was forked from one in which Polars had already run.
    """
    global _usable_in
    if _usable_in == os.getpid():
        return
    if not _polars_answers():
        raise UsageError(
            "This process was forked from one in which Polars had already run, and Polars would wait for ever here. "
            "Let nothing run Polars before the fork (importing it is fine), or start the process with the "
            'multiprocessing method "spawn" or as a thread.'
        )
    _usable_in = os.getpid()


def _polars_answers() -> bool:
    import polars as pl

    numbers = pl.DataFrame({"a": [1, 2], "b": [1, 2]})
    two_at_once = pl.col("a") + 1, pl.col("b") + 1  # one expression would need no threads
    asking = threading.Thread(
        target=numbers.with_columns, args=two_at_once, name="feedback_etl fork check", daemon=True
    )
    asking.start()
    asking.join(_ANSWER_SECONDS)
    return not asking.is_alive()
