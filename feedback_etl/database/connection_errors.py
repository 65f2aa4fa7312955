"""What to tell of a database that cannot be reached: never what the driver says, since that can hold a password."""

import re

import sqlalchemy as sa

from feedback_etl.database.url_options import explain_option
from feedback_etl.database.urls import in_words, is_in_wal_mode, name_of
from feedback_etl.errors import SourceError, UsageError

_REASONS = {
    "timeout expired|timed out": "it did not answer in time (connect_timeout in the settings)",
    "refused": "the connection was refused; is the server running, and are host and port right",
    "resolve|translate host name|idna|Name or service|nodename": "there is no host of that name",
    'database ".*" does not exist|Unknown database': "there is no database of that name",
    'role ".*" does not exist': "there is no user of that name",
    "permission denied for database|Access denied .* to database": "this user may not connect to it",
    "password": "user or password is wrong or missing",
    "no pg_hba.conf entry": "the server does not let this user in from here (pg_hba.conf)",
    "is not allowed to connect": "the server does not let anybody in from here",
    "too many|Too many": "the server has no connection left",
    "No such file": "there is no socket of that server",
    "could not open certificate file .* Permission denied": "this user may not read the driver's certificates; set "
    "HOME to the user's own folder (they are looked for in HOME/.postgresql), or name readable files (sslcert, sslkey)",
    "root certificate file .* does not exist": "the certificate of the authority is missing (sslrootcert, or "
    "HOME/.postgresql/root.crt)",
    "SSL|certificate|insecure transport": "the TLS settings do not fit the server's, or it is no {name}",
    "closed the connection|Lost connection|Packet sequence|protocol version": "what answers there is no {name}",
    "starting up|shutting down|shutdown": "the server is starting or stopping",
    "transaction is aborted": "its transaction has failed; roll it back first",
    "is closed": "the connection is closed",
    "not a database": "it is not an SQLite database",
    "not a valid DuckDB|in-memory database in read-only": "it is not a DuckDB database",
    "locked|Conflicting lock": "another program holds a lock on it",
    "different configuration": "this program has it open for writing; give its engine instead of the URL",
    "readonly database": "SQLite has to write to the file or its folder first, which this user may not",
    "unable to open": "the file cannot be opened",
}
"""What drivers say (as regular expressions), and what we say instead: their texts can hold what a log should not."""

_WAL = (
    "it is in WAL mode, for which SQLite creates files in its folder, and this user may not; let the user write to the "
    """folder, or read a copy that the owner of the file makes (sqlite3 FILE "VACUUM INTO 'copy.db'")"""
)


def why_not(url: sa.URL, error: BaseException) -> SourceError | UsageError:
    """What to tell of a database that cannot be reached."""
    text = str(getattr(error, "orig", None) or error)
    if explained := explain_option(url, error):
        return explained
    if isinstance(error, OSError):  # of a driver; a server's are wrapped by SQLAlchemy
        return SourceError(f"Cannot connect to {in_words(url)}: a file named by its TLS options cannot be read.")
    if name_of(url) == "SQLite" and re.search("readonly database|unable to open", text) and is_in_wal_mode(url):
        return SourceError(f"Cannot connect to {in_words(url)}: {_WAL}.")
    reason = next((reason for sign, reason in _REASONS.items() if re.search(sign, text, re.DOTALL)), None)
    told = (reason or f"the driver reports {type(error).__name__}").format(name=name_of(url))
    return SourceError(f"Cannot connect to {in_words(url)}: {told}.")
