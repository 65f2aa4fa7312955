"""Run an export with the active settings for all integrations, with errors that are safe to show."""

import logging
import traceback
from typing import TYPE_CHECKING, Any

from feedback_etl.errors import FeedbackError, FolderLockedError, SourceError
from feedback_etl.integrations.options import ARGUMENTS

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport
    from feedback_etl.settings.model import Settings

logger = logging.getLogger(__name__)

TRANSIENT = (SourceError, FolderLockedError)
"""Errors that may not recur if the export is retried."""


def run_export(settings: "Settings | None" = None, **options: Any) -> "ExportReport":
    """Export with the settings; the given options of `export_feedback` take precedence.

    Args:
        settings: The settings; those of the environment and the settings file by default.
        options: Options of `export_feedback`.

    Raises:
        FeedbackError: As `export_feedback` does.
        RuntimeError: An unexpected error occurred. The log has its traceback, not its text, which may contain values.
    """
    from feedback_etl.pipeline.export import export_feedback
    from feedback_etl.settings.keys import find_active_key
    from feedback_etl.settings.model import load_settings

    try:
        settings = settings or load_settings()
        url = settings.require_database_url()
        arguments = {name: options.pop(name) for name in ARGUMENTS if name in options}
        arguments.setdefault("key", find_active_key(settings))
        return export_feedback(url, options=settings.to_options(**options), **arguments)
    except (FeedbackError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a Rust library is not an Exception
        unexpected = type(error).__name__
        logger.error("unexpected %s in an export:\n%s", unexpected, "".join(traceback.format_tb(error.__traceback__)))
    raise RuntimeError(f"unexpected {unexpected} in an export; its traceback is in the log of {__name__}")
