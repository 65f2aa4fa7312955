"""Run an export with the effective settings, as all integrations do, and with errors that are safe to show."""

import logging
import traceback
from typing import TYPE_CHECKING, Any

from feedback_etl.errors import FeedbackError, FolderLockedError, SourceError
from feedback_etl.integrations.options import ARGUMENTS

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport
    from feedback_etl.settings import Settings

logger = logging.getLogger(__name__)

TRANSIENT = (SourceError, FolderLockedError)
"""What may be gone when the same is tried again later."""


def run_export(settings: "Settings | None" = None, **options: Any) -> "ExportReport":
    """Export what the settings say, but for what the options of `export_feedback` say instead.

    Args:
        settings: The effective ones (environment, settings file) unless given.
        options: Of `export_feedback`.

    Raises:
        FeedbackError: As `export_feedback` does.
        RuntimeError: Something unexpected happened. Its place is in the log; its text, which may hold values, nowhere.
    """
    from feedback_etl.pipeline.export import export_feedback
    from feedback_etl.settings import find_active_key, load_settings

    try:
        settings = settings or load_settings()
        url = settings.require_database_url()
        arguments = {name: options.pop(name) for name in ARGUMENTS if name in options}
        arguments.setdefault("key", find_active_key(settings))
        return export_feedback(url, options=settings.to_options(**options), **arguments)
    except (FeedbackError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        unexpected = type(error).__name__
        logger.error("unexpected %s in an export:\n%s", unexpected, "".join(traceback.format_tb(error.__traceback__)))
    raise RuntimeError(f"unexpected {unexpected} in an export; its place is in the log of {__name__}")
