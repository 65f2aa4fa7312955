"""The database of the settings, as the checklist and `adopt` read it."""

from feedback_etl.database.lookups import ApplicationSummary, fetch_owners, summarize_application
from feedback_etl.options.read import ReadOptions
from feedback_etl.privacy.remaining_classes import Owners
from feedback_etl.settings.model import Settings


def summarize_database(settings: Settings) -> ApplicationSummary | None:
    """Summarize the database of the settings; None without one."""
    if settings.database_url is None:
        return None
    return summarize_application(settings.require_database_url(), ReadOptions(**settings.to_database_keywords()))


def fetch_settings_owners(settings: Settings) -> Owners:
    """Return every analysis with its user."""
    return fetch_owners(settings.require_database_url(), ReadOptions(**settings.to_database_keywords()))
