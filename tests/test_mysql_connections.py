"""Every form in which MySQL and MariaDB can be passed: URLs, drivers, sockets, TLS, and connections of callers."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa
from conftest import AWKWARD_PASSWORD
from databases import make_engine
from polars.testing import assert_frame_equal
from reading import by, execute, fetch, read, read_slowly, select, takes_connectorx
from sqlalchemy.orm import Session

from feedback_etl.database.connect import open_connection
from feedback_etl.errors import SourceError, UsageError

Make = Callable[[str], Any]


def renamed(url: str, driver: str, options: str = "") -> str:
    """The URL with another driver's name, as applications write it."""
    return driver + url[url.index(":") :] + options


def plain_connection(url: str, **options: Any) -> Any:
    """A connection of the driver's own."""
    parts = sa.make_url(url)
    return pymysql.connect(
        host=parts.host or "",
        port=parts.port or 0,
        user=parts.username,
        password=parts.password or "",
        database=parts.database,
        **options,
    )


BY_CONNECTORX: dict[str, Make] = {
    "mysql://": lambda url: renamed(url, "mysql"),
    "mariadb://": lambda url: renamed(url, "mariadb"),
    "mysqlclient": lambda url: renamed(url, "mysql+mysqldb", "?charset=utf8"),
    "asyncmy": lambda url: renamed(url, "mysql+asyncmy", "?charset=utf8mb4"),
    "mariadb+pymysql": lambda url: make_engine(renamed(url, "mariadb+pymysql")),
    "TLS": lambda url: f"{url}?ssl-mode=REQUIRED",
    "no TLS": lambda url: f"{url}?ssl_mode=disabled",
    "TLS if there is": lambda url: f"{url}?ssl-mode=PREFERRED",
}
BY_SQLALCHEMY: dict[str, Make] = {
    "creator": lambda url: sa.create_engine(
        "mysql+pymysql://", creator=lambda: plain_connection(url), poolclass=sa.NullPool
    ),
    "connect_args": lambda url: sa.create_engine(url, connect_args={"compress": False}, poolclass=sa.NullPool),
    "an option of the driver's": lambda url: f"{url}?local_infile=false",
}


@pytest.mark.sample("TLS", "connect_args", "creator", "mysqlclient", "no TLS")
@pytest.mark.parametrize(
    ("make", "by_connectorx"),
    [pytest.param(make, True, id=name) for name, make in BY_CONNECTORX.items()]
    + [pytest.param(make, False, id=name) for name, make in BY_SQLALCHEMY.items()],
)
def test_every_form_of_mysql_is_read(mysql_url: str, make: Make, by_connectorx: bool) -> None:
    """The drivers' names that applications use mean the same database, read by our driver."""
    given = make(mysql_url)
    assert takes_connectorx(given) == by_connectorx
    assert_frame_equal(read(given, query=select(mysql_url)), read(mysql_url, query=select(mysql_url)))


def as_reader(url: str, name: str, **changed: Any) -> sa.URL:
    """The URL for the user with the awkward password."""
    return sa.make_url(url).set(username=name, password=AWKWARD_PASSWORD, **changed)


@pytest.mark.parametrize("route", ["connectorx", "sqlalchemy"])
def test_password_with_special_characters_works(mysql_url: str, mysql_reader: str, route: str) -> None:
    """The password contains all separators of a URL."""
    url = by(route, as_reader(mysql_url, mysql_reader).render_as_string(hide_password=False))
    assert takes_connectorx(url) == (route == "connectorx")
    query = select(url, timeframe="substring_index(user(), '@', 1)")
    assert read(url, query=query)["timeframe"].item() == mysql_reader


@pytest.fixture
def files(mysql_url: str) -> dict[str, str]:
    """Where the server has its socket and its certificate; skipped where they cannot be reached."""
    names = ("socket", "ssl_cert")
    found = dict(zip(names, fetch(mysql_url, f"SELECT {', '.join(f'@@{name}' for name in names)}")[0], strict=True))
    if not all(path and Path(path).exists() for path in found.values()):
        pytest.skip("the server of FEEDBACK_ETL_TEST_MYSQL_URL shows no socket and certificate here")
    return found


def test_socket_is_used(mysql_url: str, mysql_reader: str, files: dict[str, str]) -> None:
    """Without a host, or beside one, by both routes; the password is as awkward."""
    for host in (None, "localhost"):
        url = as_reader(mysql_url, mysql_reader, host=host, port=None, query={"unix_socket": files["socket"]})
        assert takes_connectorx(url)
        for given in (url, url.update_query_dict({"local_infile": "false"})):
            assert read(given, query=select(mysql_url)).height == 1


def encrypted(url: str, **options: Any) -> bool:
    """Whether the connection that reads is encrypted."""
    status = "(SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher')"
    return bool(read(url, query=select(url, timeframe=status), **options)["timeframe"].item())


def test_tls_mode_applies_to_reading_connections(mysql_url: str, files: dict[str, str]) -> None:
    """By ConnectorX too, and by SQLAlchemy where a certificate has to be checked."""
    assert encrypted(mysql_url)
    assert encrypted(f"{mysql_url}?ssl-mode=REQUIRED")
    assert not encrypted(f"{mysql_url}?ssl-mode=DISABLED")
    for mode in ("VERIFY_CA", "VERIFY_IDENTITY"):
        url = f"{mysql_url}?ssl-mode={mode}&ssl-ca={files['ssl_cert']}"
        assert not takes_connectorx(url)
        assert encrypted(url)


@pytest.mark.parametrize("mode", ["VERIFY_CA", "VERIFY_IDENTITY"])
def test_certificate_of_unknown_authority_is_refused(mysql_url: str, mode: str) -> None:
    """The test server's certificate is self-signed."""
    with pytest.raises(SourceError, match="the TLS settings do not match the server's"):
        read(f"{mysql_url}?ssl-mode={mode}")


@pytest.mark.parametrize("mode", ["", "no", "canary"])
def test_unknown_tls_mode_is_refused_without_repeating_it(mysql_url: str, mode: str) -> None:
    """The message lists the known modes."""
    with pytest.raises(UsageError, match="must be one of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY"):
        read(f"{mysql_url}?ssl-mode={mode or 'x'}")


@pytest.mark.parametrize("option", ["read_default_file=/etc/passwd", "read_default_group=client"])
def test_option_files_are_refused(option: str) -> None:
    """They could be any file on the machine."""
    with (
        pytest.raises(UsageError, match="names a file of options"),
        open_connection(f"mysql://u:p@127.0.0.1:1/x?{option}"),
    ):
        pass


def test_missing_tls_file_is_reported(mysql_url: str, tmp_path: Path) -> None:
    """The message does not call it a missing socket."""
    with pytest.raises(SourceError, match="a file named by its TLS options cannot be read"):
        read(f"{mysql_url}?ssl-mode=VERIFY_CA&ssl-ca={tmp_path}/missing.pem")


@pytest.mark.parametrize(("scheme", "name"), [("mysql", "MySQL"), ("mariadb", "MariaDB")])
def test_missing_driver_is_reported_with_the_extra(monkeypatch: pytest.MonkeyPatch, scheme: str, name: str) -> None:
    """The message is one sentence with the command to install it."""
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(UsageError) as caught:
        read(f"{scheme}://user:canary@127.0.0.1:1/shop")
    assert str(caught.value) == f'{name} needs a driver that is not installed: pip install "feedback-etl[mysql]".'


# What servers and sessions have set.


@contextmanager
def with_global(admin: sa.Engine, name: str, value: str | int) -> Iterator[None]:
    """A setting of the server, for new sessions."""
    with admin.connect() as connection:
        before = connection.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar_one()
        connection.exec_driver_sql(f"SET GLOBAL {name} = %s", (value,))
        try:
            yield
        finally:
            connection.exec_driver_sql(f"SET GLOBAL {name} = %s", (before,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sql_mode", "ANSI_QUOTES"),
        ("sql_mode", "NO_BACKSLASH_ESCAPES"),
        ("sql_mode", "ANSI"),
        ("sql_mode", "ORACLE"),
        ("init_connect", "SET sql_mode = 'NO_BACKSLASH_ESCAPES'"),
    ],
)
def test_sql_mode_of_server_does_not_change_quotes(
    mysql_admin: sa.Engine, mysql_url: str, mysql_reader: str, name: str, value: str
) -> None:
    """ConnectorX has a query parsed before its settings of quotes and backslashes apply."""
    url = as_reader(mysql_url, mysql_reader)
    query = select(mysql_url, timeframe="'\\\\'", recommendation_id='"it\\"s"')
    expected = read(url, query=query)
    assert expected["timeframe"].item() == "\\"
    with with_global(mysql_admin, name, value):
        assert not takes_connectorx(url)
        assert_frame_equal(read(url, query=query), expected)


def test_sql_select_limit_is_overridden(mysql_admin: sa.Engine, mysql_database: str) -> None:
    """`sql_select_limit` would truncate the result silently."""
    execute(mysql_database, "CREATE TABLE t AS SELECT seq AS id FROM seq_1_to_9")
    query = select(mysql_database, "FROM t", feedback_id="id")
    with with_global(mysql_admin, "sql_select_limit", 3):
        for route in ("connectorx", "sqlalchemy"):
            assert read(by(route, mysql_database), query=query).height == 9


def test_query_with_backslash_is_read_with_sqlalchemy(mysql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """ConnectorX may rewrite queries, and does not escape."""
    caplog.set_level("INFO", logger="feedback_etl.database")
    assert read(mysql_url, query=select(mysql_url, timeframe="'a\\\\b'"))["timeframe"].item() == "a\\b"
    assert "reading with SQLAlchemy" in caplog.text


# Connections of the caller's.

_SESSION = (
    *("time_zone", "sql_mode", "sql_select_limit", "net_write_timeout", "tx_read_only", "tx_isolation"),
    *("wait_timeout", "idle_transaction_timeout", "idle_readonly_transaction_timeout"),
)


def state(connection: sa.Connection) -> list[Any]:
    """The settings of a connection that reading must not change."""
    settings = ", ".join(f"@@SESSION.{name}" for name in _SESSION)
    return [tuple(row) for row in connection.exec_driver_sql(f"SELECT {settings}, @feedback_etl_time_zone")]


@pytest.fixture
def canary(mysql_database: str) -> str:
    """A database with an empty table "canary"."""
    execute(mysql_database, "CREATE TABLE canary (a int)")
    return mysql_database


@pytest.mark.parametrize("begun", ["idle", "in a transaction of SQLAlchemy's", "begun by hand"])
def test_autocommit_connection_stays_autocommit(canary: str, begun: str) -> None:
    """A manually begun transaction continues."""
    with make_engine(canary).execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        before = state(connection)
        if begun == "idle":
            connection.rollback()
        if begun == "begun by hand":
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("INSERT INTO canary VALUES (0)")
        rows = read(connection, query=select(canary, "FROM canary"))
        assert rows.height == (begun == "begun by hand")
        assert state(connection) == before
        assert len(fetch(canary, "SELECT * FROM canary")) == 0
        connection.exec_driver_sql("INSERT INTO canary VALUES (1)")
        assert len(fetch(canary, "SELECT * FROM canary")) == (begun != "begun by hand")
        connection.exec_driver_sql("COMMIT")
    assert len(fetch(canary, "SELECT * FROM canary")) == 1 + (begun == "begun by hand")


def test_pooled_connection_keeps_its_settings(canary: str) -> None:
    """The next user of the connection has the previous settings and can write."""
    engine = sa.create_engine("mysql+pymysql://", creator=lambda: plain_connection(canary), pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        before, thread = state(connection), connection.exec_driver_sql("SELECT connection_id()").scalar()
    assert read(engine, query=select(canary)).height == 1
    with pytest.raises(SourceError):
        read(engine, query="SELECT nonsense")
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT connection_id()").scalar() == thread
        assert state(connection) == before
        connection.exec_driver_sql("INSERT INTO canary VALUES (1)")
    engine.dispose()
    assert fetch(canary, "SELECT * FROM canary") == [(1,)]


@pytest.mark.sample("wait_timeout")
@pytest.mark.parametrize("limit", ["wait_timeout", "idle_transaction_timeout"])
def test_idle_timeouts_do_not_end_slow_export(canary: str, limit: str) -> None:
    """Of a few seconds, as some servers have; on a connection of ours and in a transaction of the caller's."""
    query = select(canary, "FROM seq_1_to_3", feedback_id="seq")
    execute(canary, f"SET GLOBAL {limit} = 1")
    try:
        assert read_slowly(by("sqlalchemy", canary), query, 1.3) == 3
        with make_engine(canary).connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            before = state(connection)
            assert read_slowly(connection, query, 1.3) == 3
            assert state(connection) == before
    finally:
        execute(canary, f"SET GLOBAL {limit} = DEFAULT")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"charset": "latin1"}, "reads text as latin1, which loses characters; open it with charset=utf8mb4"),
        ({"init_command": "SET sql_mode = 'ANSI_QUOTES'"}, "has the sql_mode ANSI_QUOTES, which is not supported"),
    ],
)
def test_connection_with_unsupported_settings_is_refused(canary: str, options: dict[str, Any], message: str) -> None:
    """The URL of its engine can be read instead."""
    engine = sa.create_engine("mysql+pymysql://", creator=lambda: plain_connection(canary, **options))
    with Session(engine) as session, pytest.raises(UsageError, match=message):
        read(session)
    engine.dispose()


def test_rows_are_read_in_one_snapshot(canary: str) -> None:
    """Rows that others commit meanwhile are not read."""
    with open_connection(canary) as source:
        execute(canary, "INSERT INTO canary VALUES (1)")
        assert source.connection.exec_driver_sql("SELECT count(*) FROM canary").scalar() == 0
    assert fetch(canary, "SELECT count(*) FROM canary") == [(1,)]
