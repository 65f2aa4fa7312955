"""Where a database is: URLs as users write them, as our driver and ConnectorX want them, and in words."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from feedback_etl.errors import SourceError, UsageError

_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
_MISREAD = (
    "The database URL cannot be understood; it looks like postgresql://user:password@host/name or "
    "sqlite:////absolute/path.db. Special characters of a password are percent-encoded."
)


def parse_url(text: str) -> sa.URL:
    """A URL as a user wrote it.

    Raises:
        UsageError: It is none. The message does not repeat it, since it may hold a password.
    """
    try:
        url = sa.make_url(text.strip())
    except (ArgumentError, ValueError):
        raise UsageError(_MISREAD) from None
    if "@" in (url.host or "") or ("@" in (url.database or "") and url.get_backend_name() != "sqlite"):
        raise UsageError(_MISREAD)  # what stands there is a part of the password
    return url


def supported(dialect: str) -> str:
    """The dialect, if we read its databases.

    Raises:
        UsageError: We do not.
    """
    if dialect not in _DRIVERS:
        raise UsageError(f"Databases of the kind {dialect} cannot be read; PostgreSQL and SQLite can.")
    return dialect


def with_our_driver(url: sa.URL) -> sa.URL:
    """The URL for the driver we use, whichever driver (psycopg2, asyncpg, aiosqlite) the application uses.

    Raises:
        UsageError: Databases of its kind are not supported.
        SourceError: It names an SQLite file that does not exist. Nothing we open is created by opening it.
    """
    backend = "postgresql" if url.get_backend_name() == "postgres" else supported(url.get_backend_name())
    url = url.set(drivername=_DRIVERS[backend])
    if backend == "postgresql":
        if "ssl" in url.query:  # asyncpg's name for it
            url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": url.query["ssl"]})
        return url
    if url.host:
        raise UsageError(_MISREAD)
    if is_memory(url):
        return url
    if _is_file_uri(url):
        return url if url.query.get("mode") == "ro" else url.update_query_dict({"mode": "rw"})
    if not _is_file(str(url.database)):
        raise SourceError(f"There is no SQLite file at {url.database}.")
    return url


def is_memory(url: sa.URL) -> bool:
    """Whether the database is one that SQLite holds in memory: another connection does not see it."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ":memory:"
    return database == ":memory:" or (
        _is_file_uri(url) and (url.query.get("mode") == "memory" or database.startswith("file::memory:"))
    )


def _is_file_uri(url: sa.URL) -> bool:
    return str(url.database).startswith("file:") and "uri" in url.query


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


_BOTH_UNDERSTAND = {"user", "password", "dbname", "host", "port", "application_name", "sslmode"}
_MAKES_NO_DIFFERENCE = {"hostaddr", "connect_timeout", "client_encoding", "passfile", "sslcertmode"}
_SSL_MODES = {"disable", "prefer", "require"}


def connectorx_url(url: sa.URL, connection: sa.Connection) -> str | None:
    """The URL as ConnectorX reads it, or None where it would not reach the same database in the same way.

    For PostgreSQL it is made from what the driver found, also in its environment and password file.
    """
    if url.get_backend_name() == "sqlite":
        if is_memory(url) or url.query:
            return None
        return f"sqlite://{quote(str(Path(str(url.database)).absolute()))}"
    found: Any = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
    options = found.get_parameters()
    if (
        not url.query.keys() <= _BOTH_UNDERSTAND
        or not options.keys() <= _BOTH_UNDERSTAND | _MAKES_NO_DIFFERENCE
        or options.get("sslmode", "prefer") not in _SSL_MODES
    ):
        return None
    return sa.URL.create(
        "postgresql",
        username=found.user,
        password=found.password or None,
        host=quote(found.host, safe="") if found.host.startswith("/") else found.host,
        port=found.port,
        database=found.dbname,
        query={name: options[name] for name in ("sslmode", "application_name") if name in options},
    ).render_as_string(hide_password=False)


def in_words(url: sa.URL) -> str:
    """The database without user and password, also where a slip has put them into the wrong part."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite file {url.database}"
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    name = (url.database or "(none named)").rpartition("@")[2]
    return f"PostgreSQL at {host}{port}, database {name}"


_REASONS = {
    "timeout expired|timed out": "it did not answer in time (connect_timeout in the settings)",
    "refused": "the connection was refused; is the server running, and are host and port right",
    "resolve|translate host name|idna": "there is no host of that name",
    'database ".*" does not exist': "there is no database of that name",
    'role ".*" does not exist': "there is no user of that name",
    "permission denied for database": "this user may not connect to it",
    "password": "user or password is wrong or missing",
    "no pg_hba.conf entry": "the server does not let this user in from here (pg_hba.conf)",
    "too many": "the server has no connection left",
    "No such file": "there is no socket of that server",
    "SSL|certificate": "the TLS settings do not fit the server's, or it is no PostgreSQL",
    "closed the connection": "what answers there is no PostgreSQL",
    "starting up|shutting down": "the server is starting or stopping",
    "transaction is aborted": "its transaction has failed; roll it back first",
    "is closed": "the connection is closed",
    "not a database": "it is not an SQLite database",
    "locked": "another program holds a lock on it",
    "unable to open": "the file cannot be opened",
}
"""What drivers say (as regular expressions), and what we say instead: their texts can hold what a log should not."""


def why_not(url: sa.URL, error: BaseException) -> SourceError | UsageError:
    """What to tell of a database that cannot be reached."""
    text = str(getattr(error, "orig", None) or error)
    if re.search("invalid (connection option|port number|integer value|[a-z_]+ value:)", text):
        return UsageError("The database URL has options that its driver does not know.")
    reason = next((reason for sign, reason in _REASONS.items() if re.search(sign, text, re.DOTALL)), None)
    return SourceError(f"Cannot connect to {in_words(url)}: {reason or f'the driver reports {type(error).__name__}'}.")
