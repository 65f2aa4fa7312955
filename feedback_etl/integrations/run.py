"""One export, as every place that calls us makes it: with the settings in force, and errors that are safe to show."""

import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from feedback_etl.errors import FeedbackError, FolderLocked, SourceError, UsageError

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport
    from feedback_etl.settings import Settings

logger = logging.getLogger(__name__)

TRANSIENT = (SourceError, FolderLocked)
"""What may be gone when the same is tried again later."""

_FORK_SECONDS = 10.0
_polars_was_loaded_before_fork = False


def run_export(settings: "Settings | None" = None, **options: Any) -> "ExportReport":
    """Export what the settings say, but for what the options of `export_feedback` say instead.

    Args:
        settings: Those in force (environment, settings file) unless given.
        options: Of `export_feedback`.

    Raises:
        FeedbackError: As `export_feedback` does.
        RuntimeError: Something unexpected happened. Its place is in the log; its text, which may hold values, nowhere.
    """
    _require_that_polars_works()
    from feedback_etl.configured import database_of, export_of
    from feedback_etl.pipeline import export_feedback
    from feedback_etl.settings import key_in_force, load_settings

    try:
        settings = settings or load_settings()
        return export_feedback(database_of(settings), key=key_in_force(settings), **export_of(settings) | options)
    except (FeedbackError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        unexpected = type(error).__name__
        logger.error("unexpected %s in an export:\n%s", unexpected, "".join(traceback.format_tb(error.__traceback__)))
    raise RuntimeError(f"unexpected {unexpected} in an export; its place is in the log of {__name__}")


def _require_that_polars_works() -> None:
    """Make sure that this process can use Polars, whose threads do not survive a fork.

    Raises:
        UsageError: It was forked from one that had used Polars; an export would hang for ever.
    """
    if _polars_was_loaded_before_fork and not _polars_answers():
        raise UsageError(
            "This process was forked from one in which Polars had already run, so that an export would hang. Let "
            "nothing run Polars before the fork (importing it is fine), or use workers that are threads."
        )


def _polars_answers() -> bool:
    import polars as pl

    numbers = pl.DataFrame({"a": [1, 2], "b": [1, 2]})
    two_at_once = pl.col("a") + 1, pl.col("b") + 1  # what needs the threads
    asking = threading.Thread(
        target=numbers.with_columns, args=two_at_once, name="feedback_etl fork check", daemon=True
    )
    asking.start()
    asking.join(_FORK_SECONDS)
    return not asking.is_alive()


def _after_fork() -> None:
    global _polars_was_loaded_before_fork
    _polars_was_loaded_before_fork = "polars" in sys.modules


os.register_at_fork(after_in_child=_after_fork)
