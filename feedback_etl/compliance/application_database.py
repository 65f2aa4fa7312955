"""The database of the settings, as the checklist and `adopt` read it."""

from typing import Any

from feedback_etl.database.consent import ConsentColumnNames
from feedback_etl.database.custom_query import read_query_file
from feedback_etl.database.lookups import ApplicationSummary, fetch_owners, summarize_application
from feedback_etl.privacy.remaining_classes import Owners
from feedback_etl.settings.model import Settings


def summarize_database(settings: Settings) -> ApplicationSummary | None:
    """Summarize the database of the settings; None without one."""
    if settings.database_url is None:
        return None
    return summarize_application(settings.require_database_url(), **_list_lookup_options(settings))


def fetch_settings_owners(settings: Settings) -> Owners:
    """Return every analysis with its user."""
    return fetch_owners(settings.require_database_url(), **_list_lookup_options(settings))


def _list_lookup_options(settings: Settings) -> dict[str, Any]:
    return {
        "query": read_query_file(settings.query) if settings.query else None,
        "db_schema": settings.db_schema,
        "consent": ConsentColumnNames(settings.opt_in_column, settings.opt_out_column),
        "connect_timeout": settings.connect_timeout,
        "allow_row_security": settings.allow_row_security,
    }
