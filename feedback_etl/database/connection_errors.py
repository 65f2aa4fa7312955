"""Describe why a database cannot be reached: never in the driver's words, which may contain a password."""

import re

import sqlalchemy as sa

from feedback_etl.database.driver_errors import get_connection_reason, unwrap_error
from feedback_etl.database.url_options import explain_option
from feedback_etl.database.urls import describe_url, find_product, is_in_wal_mode
from feedback_etl.errors import SourceError, UsageError

_WAL_REASON = (
    "it is in WAL mode, for which SQLite creates files in its folder, and this user may not; let the user write to the "
    """folder, or read a copy that the owner of the file makes (sqlite3 FILE "VACUUM INTO 'copy.db'")"""
)


def build_connection_error(url: sa.URL, error: BaseException) -> SourceError | UsageError:
    """Return the error for a database that cannot be reached."""
    if explained := explain_option(url, error):
        return explained
    is_unwritable = re.search("readonly database|unable to open", str(unwrap_error(error)))
    if isinstance(error, OSError):  # the driver's own; SQLAlchemy wraps those of a server
        reason = "a file named by its TLS options cannot be read"
    elif url.get_backend_name() == "sqlite" and is_unwritable and is_in_wal_mode(url):
        reason = _WAL_REASON
    else:
        reason = get_connection_reason(error, find_product(url))
    return SourceError(f"Cannot connect to {describe_url(url)}: {reason}.")
