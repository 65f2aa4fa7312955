"""Where a database is: URLs as users write them, as our driver and ConnectorX want them, and in words."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from feedback_etl.database.url_options import check_options, explain_hosts
from feedback_etl.errors import SourceError, UsageError

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
    "duckdb": "duckdb",
}
_NAMES = {
    "postgresql": "PostgreSQL",
    "mysql": "MySQL",
    "mariadb": "MariaDB",
    "sqlite": "SQLite",
    "duckdb": "DuckDB",
}
_IN_A_FILE = {"sqlite", "duckdb"}
_MISREAD = (
    "The database URL cannot be understood; it looks like postgresql://user:password@host/name, mysql://... or "
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
        raise UsageError(explain_hosts(text.strip()) or _MISREAD) from None
    if "@" in (url.host or "") or ("@" in (url.database or "") and url.get_backend_name() not in _IN_A_FILE):
        raise UsageError(_MISREAD)  # what stands there is a part of the password
    return url


def normalize_dialect(dialect: str) -> str:
    """What we call a dialect of SQLAlchemy's, if we read its databases; MariaDB is MySQL to us.

    Raises:
        UsageError: We do not.
    """
    if dialect not in _DRIVERS:
        *names, last = _NAMES.values()
        known = ", ".join(f"{scheme}://" for scheme in _DRIVERS)
        raise UsageError(
            f"Databases of the kind {dialect} cannot be read; {', '.join(names)} and {last} can ({known})."
        )
    return "mysql" if dialect == "mariadb" else dialect


def database_name(url: sa.URL) -> str:
    """What people call databases of its kind."""
    return _NAMES.get(url.get_backend_name(), "database")


def set_driver(url: sa.URL) -> sa.URL:
    """The URL for the driver we use, whichever driver (psycopg2, asyncpg, mysqlclient) the application uses.

    Raises:
        UsageError: Databases of its kind are not normalize_dialect.
        SourceError: It names a file that does not exist. Nothing we open is created by opening it.
    """
    backend = "postgresql" if url.get_backend_name() == "postgres" else url.get_backend_name()
    dialect = normalize_dialect(backend)
    url = url.set(drivername=_DRIVERS[backend])
    check_options(url)
    if dialect == "postgresql":
        if "ssl" in url.query:  # asyncpg's name for it
            url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": url.query["ssl"]})
        return url
    if dialect == "mysql":
        return url.set(query=_options_of_pymysql(url))
    if url.host:
        raise UsageError(_MISREAD)
    if is_memory(url):
        return url
    if _is_file_uri(url):
        return url if url.query.get("mode") == "ro" else url.update_query_dict({"mode": "rw"})
    if not _is_file(str(url.database)):
        raise SourceError(f"There is no {database_name(url)} file at {url.database}.")
    return url


_TLS = {
    "DISABLED": ({"ssl_disabled": "true"}, {"ssl_disabled": "true"}),
    "PREFERRED": ({}, {}),
    "REQUIRED": ({"ssl_check_hostname": "false"}, {"ssl_check_hostname": "false"}),
    "VERIFY_CA": ({"ssl_verify_cert": "true"}, {"ssl_check_hostname": "false"}),
    "VERIFY_IDENTITY": ({"ssl_verify_identity": "true"}, {}),
}
"""MySQL's own `ssl-mode` in the options of PyMySQL: without a certificate of the authority's, and with one."""


def _options_of_pymysql(url: sa.URL) -> dict[str, Any]:
    """Options as other drivers and the providers of databases write them. Text is always read as utf8mb4."""
    options = {name.replace("-", "_"): value for name, value in url.query.items() if name != "charset"}
    if any(name.startswith("read_default_") for name in options):
        raise UsageError("The database URL names a file of options, which is not read: write them into the URL.")
    mode = str(options.pop("ssl_mode", "PREFERRED")).upper()
    if mode not in _TLS:
        raise UsageError(f"ssl-mode of the database URL must be one of {', '.join(_TLS)}.")
    return options | _TLS[mode]["ssl_ca" in options]


def is_memory(url: sa.URL) -> bool:
    """Whether the database is one that SQLite or DuckDB holds in memory: another connection does not see it."""
    if url.get_backend_name() not in _IN_A_FILE:
        return False
    database = url.database or ":memory:"
    return database.startswith(":memory:") or (
        _is_file_uri(url) and (url.query.get("mode") == "memory" or database.startswith("file::memory:"))
    )


def _is_file_uri(url: sa.URL) -> bool:
    return str(url.database).startswith("file:") and "uri" in url.query


def is_in_wal_mode(url: sa.URL) -> bool:
    """Return whether an SQLite file is in WAL mode, as bytes 18 and 19 of its header say."""
    try:
        with Path(str(url.database).removeprefix("file:")).open("rb") as file:
            return file.read(20)[18:] == b"\2\2"
    except (OSError, ValueError):
        return False


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


_BOTH_UNDERSTAND = {"user", "password", "dbname", "host", "port", "application_name", "sslmode"}
_MAKES_NO_DIFFERENCE = {"hostaddr", "connect_timeout", "client_encoding", "passfile", "sslcertmode", "keepalives_idle"}
_SSL_MODES = {"disable", "prefer", "require"}


def connectorx_url(url: sa.URL, connection: sa.Connection) -> str | None:
    """The URL as ConnectorX reads it, or None where it would not reach the same database in the same way.

    For PostgreSQL it is made from what the driver found, also in its environment and password file.
    """
    make = {"postgresql": _postgresql_url, "mysql": _mysql_url, "mariadb": _mysql_url, "sqlite": _sqlite_url}
    backend = url.get_backend_name()
    return make[backend](url, connection) if backend in make else None


def _sqlite_url(url: sa.URL, _: sa.Connection) -> str | None:
    if is_memory(url) or url.query:
        return None
    return f"sqlite://{quote(str(Path(str(url.database)).absolute()))}"


def _postgresql_url(url: sa.URL, connection: sa.Connection) -> str | None:
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


def _mysql_url(url: sa.URL, connection: sa.Connection) -> str | None:
    """PyMySQL encrypts where the server can, and looks at its certificate only if an option asks for it."""
    if not url.username or not url.query.keys() <= {"unix_socket", "ssl_disabled", "ssl_check_hostname"}:
        return None
    mode, init_connect = connection.exec_driver_sql("SELECT @@GLOBAL.sql_mode, @@GLOBAL.init_connect").fetchall()[0]
    if init_connect or "ANSI_QUOTES" in mode or "NO_BACKSLASH_ESCAPES" in mode:  # it parses before it can be told ours
        return None
    query: dict[str, Any] = {"stmt_cache_size": "0"}  # parse again, after our settings
    if socket := url.query.get("unix_socket"):
        query["socket"] = socket
    else:  # otherwise it would look for a socket by itself, and go on there without encryption
        query["prefer_socket"] = "false"
        if connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").fetchall()[0][1]:
            query["ssl-mode"] = "REQUIRED"
    plain = url.set(drivername="mysql", host=url.host or "localhost", query=query)
    return plain.render_as_string(hide_password=False)


def describe_url(url: sa.URL) -> str:
    """The database without user and password, also where a slip has put them into the wrong part."""
    if url.get_backend_name() in _IN_A_FILE:
        return f"the {database_name(url)} file {url.database}"
    host = url.host or url.query.get("host") or url.query.get("unix_socket") or "the local socket"
    host = host if isinstance(host, str) else ", ".join(host)
    port = f":{url.port}" if url.port else ""
    name = (url.database or "(none named)").rpartition("@")[2]
    return f"{database_name(url)} at {host}{port}, database {name}"
