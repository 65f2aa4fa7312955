"""Parse the URLs of databases, adapt them to our drivers and to ConnectorX, and describe them without secrets."""

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from feedback_etl.database import files
from feedback_etl.database.files_prefix import FILES_PREFIX
from feedback_etl.database.url_options import check_options, explain_hosts
from feedback_etl.errors import SourceError, UsageError

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
    "duckdb": "duckdb",
}
_PRODUCT_NAMES = {
    "postgresql": "PostgreSQL",
    "mysql": "MySQL",
    "mariadb": "MariaDB",
    "sqlite": "SQLite",
    "duckdb": "DuckDB",
}
_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}
_FILE_BACKENDS = {"sqlite", "duckdb"}
_INVALID_URL = (
    "The database URL is not valid; it looks like postgresql://user:password@host/name, mysql://... or "
    "sqlite:////absolute/path.db. Special characters of a password are percent-encoded."
)


def parse_url(text: str) -> sa.URL:
    """Parse a URL as a user wrote it.

    Raises:
        UsageError: The text is not a URL. The message does not repeat it, since it may contain a password.
    """
    if text.strip().startswith(FILES_PREFIX):
        return files.create_files_url(text.strip().removeprefix(FILES_PREFIX))
    try:
        url = sa.make_url(text.strip())
    except (ArgumentError, ValueError):
        raise UsageError(explain_hosts(text.strip()) or _INVALID_URL) from None
    if "@" in (url.host or "") or ("@" in (url.database or "") and url.get_backend_name() not in _FILE_BACKENDS):
        raise UsageError(_INVALID_URL)  # an @ in the password was not percent-encoded
    return url


def normalize_dialect(dialect: str) -> str:
    """Return the dialect of a supported database; MariaDB's is MySQL.

    Raises:
        UsageError: The database is not supported.

    >>> normalize_dialect("postgres"), normalize_dialect("mariadb")
    ('postgresql', 'mysql')
    """
    if dialect not in _DRIVERS.keys() | _ALIASES.keys():
        *names, last = _PRODUCT_NAMES.values()
        schemes = ", ".join(f"{scheme}://" for scheme in _DRIVERS)
        raise UsageError(
            f"Databases of the kind {dialect} cannot be read; {', '.join(names)} and {last} can ({schemes})."
        )
    return _ALIASES.get(dialect, dialect)


def find_product(url: sa.URL) -> str:
    """Return the product name of a URL's database."""
    return _PRODUCT_NAMES.get(url.get_backend_name(), "database")


def set_driver(url: sa.URL) -> sa.URL:
    """Return the URL for our driver, whichever driver (psycopg2, asyncpg, mysqlclient) the application uses.

    Raises:
        UsageError: The database is not supported.
        SourceError: The file of the URL does not exist; connecting never creates one.
    """
    dialect = normalize_dialect(url.get_backend_name())
    url = url.set(drivername=_DRIVERS.get(url.get_backend_name(), _DRIVERS[dialect]))
    check_options(url)
    if dialect == "postgresql":
        if "ssl" in url.query:  # asyncpg's name
            url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": url.query["ssl"]})
        return url
    if dialect == "mysql":
        return url.set(query=_pymysql_options(url))
    if url.host:
        raise UsageError(_INVALID_URL)
    if is_memory(url):
        return url
    if _is_file_uri(url):
        return url if url.query.get("mode") == "ro" else url.update_query_dict({"mode": "rw"})
    with suppress(OSError, ValueError):
        if Path(str(url.database)).is_file():
            return url
    raise SourceError(f"There is no {find_product(url)} file at {url.database}.")


_TLS = {
    "DISABLED": ({"ssl_disabled": "true"}, {"ssl_disabled": "true"}),
    "PREFERRED": ({}, {}),
    "REQUIRED": ({"ssl_check_hostname": "false"}, {"ssl_check_hostname": "false"}),
    "VERIFY_CA": ({"ssl_verify_cert": "true"}, {"ssl_check_hostname": "false"}),
    "VERIFY_IDENTITY": ({"ssl_verify_identity": "true"}, {}),
}
"""MySQL's `ssl-mode` as options of PyMySQL: without a CA certificate, and with one."""


def _pymysql_options(url: sa.URL) -> dict[str, Any]:
    """Translate the options of other drivers and of database providers. Text is always read as utf8mb4."""
    options = {name.replace("-", "_"): value for name, value in url.query.items() if name != "charset"}
    if any(name.startswith("read_default_") for name in options):
        raise UsageError("The database URL names a file of options, which is not read: write them into the URL.")
    mode = str(options.pop("ssl_mode", "PREFERRED")).upper()
    if mode not in _TLS:
        raise UsageError(f"ssl-mode of the database URL must be one of {', '.join(_TLS)}.")
    return options | _TLS[mode]["ssl_ca" in options]


def is_memory(url: sa.URL) -> bool:
    """Return whether the database is in memory (SQLite, DuckDB): another connection cannot see it."""
    if url.get_backend_name() not in _FILE_BACKENDS:
        return False
    database = url.database or ":memory:"
    return database.startswith(":memory:") or (
        _is_file_uri(url) and (url.query.get("mode") == "memory" or database.startswith("file::memory:"))
    )


def _is_file_uri(url: sa.URL) -> bool:
    return str(url.database).startswith("file:") and "uri" in url.query


def is_in_wal_mode(url: sa.URL) -> bool:
    """Return whether a file is an SQLite database in WAL mode, according to bytes 18 and 19 of its header."""
    with suppress(OSError, ValueError), Path(str(url.database).removeprefix("file:")).open("rb") as file:
        return file.read(20)[18:] == b"\2\2"
    return False


_SHARED_OPTIONS = {"user", "password", "dbname", "host", "port", "application_name", "sslmode"}
_IRRELEVANT_OPTIONS = {"hostaddr", "connect_timeout", "client_encoding", "passfile", "sslcertmode", "keepalives_idle"}
_SSL_MODES = {"disable", "prefer", "require"}


def build_connectorx_url(url: sa.URL, connection: sa.Connection) -> str | None:
    """Return the URL for ConnectorX; None if it would not reach the same database in the same way.

    For PostgreSQL it is built from the driver's parameters, including its environment and password file.
    """
    match url.get_backend_name():
        case "postgresql":
            return _build_postgresql_url(url, connection)
        case "mysql" | "mariadb":
            return _build_mysql_url(url, connection)
        case "sqlite" if not is_memory(url) and not url.query:
            return f"sqlite://{quote(str(Path(str(url.database)).absolute()))}"
    return None


def _build_postgresql_url(url: sa.URL, connection: sa.Connection) -> str | None:
    info: Any = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
    options = info.get_parameters()
    if (
        not url.query.keys() <= _SHARED_OPTIONS
        or not options.keys() <= _SHARED_OPTIONS | _IRRELEVANT_OPTIONS
        or options.get("sslmode", "prefer") not in _SSL_MODES
    ):
        return None
    return sa.URL.create(
        "postgresql",
        username=info.user,
        password=info.password or None,
        host=quote(info.host, safe="") if info.host.startswith("/") else info.host,
        port=info.port,
        database=info.dbname,
        query={name: options[name] for name in ("sslmode", "application_name") if name in options},
    ).render_as_string(hide_password=False)


def _build_mysql_url(url: sa.URL, connection: sa.Connection) -> str | None:
    """Return the URL of MySQL; PyMySQL uses TLS if the server does, and verifies certificates only on request."""
    if not url.username or not url.query.keys() <= {"unix_socket", "ssl_disabled", "ssl_check_hostname"}:
        return None
    mode, init_connect = connection.exec_driver_sql("SELECT @@GLOBAL.sql_mode, @@GLOBAL.init_connect").fetchall()[0]
    if init_connect or "ANSI_QUOTES" in mode or "NO_BACKSLASH_ESCAPES" in mode:  # it parses before our settings apply
        return None
    query: dict[str, Any] = {"stmt_cache_size": "0"}  # parse again, with our settings
    if socket := url.query.get("unix_socket"):
        query["socket"] = socket
    else:  # without this option it would prefer a local socket, without encryption
        query["prefer_socket"] = "false"
        if connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").fetchall()[0][1]:
            query["ssl-mode"] = "REQUIRED"
    plain = url.set(drivername="mysql", host=url.host or "localhost", query=query)
    return plain.render_as_string(hide_password=False)


def describe_url(url: sa.URL) -> str:
    """Describe a database without user and password, even if a mistake put them into the wrong part of the URL."""
    if (pattern := files.find_pattern(url)) is not None:
        return f"the files {pattern}"
    if url.get_backend_name() in _FILE_BACKENDS:
        return f"the {find_product(url)} file {url.database}"
    host = url.host or url.query.get("host") or url.query.get("unix_socket") or "the local socket"
    host = host if isinstance(host, str) else ", ".join(host)
    port = f":{url.port}" if url.port else ""
    name = (url.database or "(none named)").rpartition("@")[2]
    return f"{find_product(url)} at {host}{port}, database {name}"
