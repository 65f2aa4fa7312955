"""Errors and refused writes of MySQL and MariaDB: one sentence without any row's value."""

import contextlib
import functools
import gc
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import AWKWARD_PASSWORD
from databases import make_engine, new_mysql_database, opened
from reading import CANARY, by, by_both_routes, execute, fetch, read, select
from test_database_errors import read_error
from test_database_refusals import listening, refusal

from feedback_etl.database.batches import list_session_statements
from feedback_etl.database.connect import open_connection
from feedback_etl.database.reader_client import Reader, ReaderJob
from feedback_etl.errors import SourceError, UsageError

# PyMySQL leaves the sockets of connections that fail or are lost to the garbage collector, which comes here rather than
# in another test.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    yield
    gc.collect()


# It cannot be reached.


@pytest.fixture
def server_at(mysql_url: str) -> Callable[..., str]:
    """The server's URL with parts of it changed, as text."""
    return lambda **changed: sa.make_url(mysql_url).set(**changed).render_as_string(hide_password=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("scheme", "name"), [("mysql", "MySQL"), ("mariadb+pymysql", "MariaDB")])
def test_closed_port_is_reported(server_at: Callable[..., str], scheme: str, name: str, host: str) -> None:
    """The message contains host, port, database and what to check."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = refusal(server_at(drivername=scheme, host=host, port=port, database="shop"))
    assert str(error).startswith(f"Cannot connect to {name} at {host}:{port}, database shop: ")


def test_silent_server_times_out(server_at: Callable[..., str]) -> None:
    """The server accepts the connection and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refusal(server_at(port=silent.getsockname()[1]), connect_timeout=1)
    assert "it did not answer in time (connect_timeout in the settings)" in str(error)


@pytest.mark.slow
def test_connect_timeout_does_not_limit_queries(mysql_url: str) -> None:
    """The timeout applies to connecting only."""
    assert read(mysql_url, query=select(mysql_url, age="sleep(1.5)"), connect_timeout=1)["age"].item() == 0


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["hangs up", "HTTP"])
def test_server_of_another_product_is_reported(server_at: Callable[..., str], answer: bytes) -> None:
    """A wrong port often belongs to another server."""

    def at_once(client: socket.socket) -> None:
        client.sendall(answer)

    with listening(at_once) as port:
        assert "what answers there is not a MySQL server" in str(refusal(server_at(port=port)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"database": "no_such_database"}, "database no_such_database: there is no database of that name."),
        ({"password": "canary-p4ssw0rd"}, "user or password is wrong or missing."),
        ({"username": "no_such_user"}, "user or password is wrong or missing."),
        ({"host": "no.such.host.invalid"}, "there is no host of that name."),
        ({"host": "a" * 70}, "there is no host of that name."),
        ({"host": None, "query": {"unix_socket": "/no/such/socket"}}, "there is no socket of that server."),
    ],
)
def test_connection_errors_are_reported(server_at: Callable[..., str], changed: dict[str, Any], message: str) -> None:
    """The message is ours, not the driver's; the user needs a password."""
    assert str(refusal(server_at(**changed))).endswith(message)


@pytest.mark.parametrize("option", ["connect_timeout=x", "local_infile=x", "read_timeout=x", "ssl=true"])
def test_unusable_url_option_is_named(server_at: Callable[..., str], option: str) -> None:
    """A mistake in the URL is a usage error."""
    error = refusal(f"{server_at()}?{option}")
    assert isinstance(error, UsageError)
    name = option.partition("=")[0]
    assert str(error) == f"The database URL has a value for the option {name} that its driver cannot use."


@pytest.mark.parametrize(
    ("option", "belongs"),
    [
        ("schema=shop", "the schema of the tables is db_schema in the settings (FEEDBACK_ETL_DB_SCHEMA)"),
        ("sslmode=require", "TLS is sslmode=require, verify-ca or verify-full on PostgreSQL and ssl-mode=REQUIRED"),
        ("useSSL=true", "TLS is sslmode=require, verify-ca or verify-full on PostgreSQL and ssl-mode=REQUIRED"),
        ("nonsense=1", "omit options of other drivers"),
    ],
)
def test_unknown_url_option_is_named(server_at: Callable[..., str], option: str, belongs: str) -> None:
    """The message says where it belongs."""
    error = refusal(f"{server_at()}?{option}")
    assert isinstance(error, UsageError)
    message = f"The database URL has the option {option.partition('=')[0]}, which its driver does not know: {belongs}"
    assert str(error).startswith(message)


@pytest.mark.parametrize("place", ["one,two:3306/shop", "one:3306,two:3306/shop", "one/shop?host=two&host=three"])
def test_several_hosts_are_refused(place: str) -> None:
    """Only PostgreSQL's driver tries one after the other."""
    error = refusal(f"mysql://user:canary-p4ssw0rd@{place}")
    assert str(error) == "The database URL names several hosts, which only PostgreSQL's can; name one of them."


@pytest.mark.parametrize("url", ["mysql://user:canary-p4ssw0rd@rest@host/shop", "mysql:///user:canary-p4ssw0rd@h/shop"])
def test_invalid_mysql_url_is_not_repeated(url: str) -> None:
    """It may contain a password."""
    refusal(url)


def test_url_without_database_is_refused_for_default_tables(server_at: Callable[..., str]) -> None:
    """A custom query may name the database itself."""
    bare = server_at().rpartition("/")[0]
    assert "database (none named)" in str(refusal(f"{bare}?ssl_ca=/no/such/file"))
    assert "names no database: mysql://user@host/NAME" in str(refusal(bare))
    for given in (bare, f"{bare}/", f"{bare}/?local_infile=false"):
        assert read(given, query=select(server_at())).height == 1


# Tables and rights.


@pytest.fixture
def stranger(mysql_admin: sa.Engine, mysql_database: str) -> Iterator[str]:
    """The URL of a user who may see one table of the default schema and nothing else."""
    name = f"etl_{uuid.uuid4().hex[:20]}"
    with opened(mysql_database) as database, mysql_admin.connect() as admin:
        admin.exec_driver_sql(f"CREATE USER {name} IDENTIFIED BY %s", (AWKWARD_PASSWORD,))
        admin.exec_driver_sql(f"GRANT SELECT ON {database.engine.url.database}.users TO {name}")
        url = sa.make_url(mysql_database).set(username=name, password=AWKWARD_PASSWORD)
        yield url.render_as_string(hide_password=False)
        admin.exec_driver_sql(f"DROP USER {name}")


def test_table_without_permission_is_reported(stranger: str) -> None:
    """The default one, or one of a custom query."""
    assert "command denied to user" in str(refusal(stranger))
    assert "profiles" in str(refusal(stranger, query=select(stranger, "FROM profiles")))


def test_database_without_permission_is_reported(stranger: str) -> None:
    """The user has no right to anything in it."""
    url = sa.make_url(stranger).set(database="mysql")
    assert "this user may not connect to it" in str(refusal(url))


def test_tables_of_another_database_are_read(mysql_url: str, mysql_database: str) -> None:
    """MySQL calls schemas databases."""
    with opened(mysql_database) as database:
        database.fill(feedbacks=[{"id": 1, "created_at": "2025-10-25 10:00:00"}])
        assert read(mysql_url, db_schema=database.engine.url.database).height == 1
    assert "The database has no schema no_such (db_schema). It has: " in str(refusal(mysql_url, db_schema="no_such"))


# It fails while rows are read.


@pytest.fixture(scope="module")
def people(mysql_admin: sa.Engine) -> Iterator[str]:
    """A database with ten rows, the seventh with a canary; functions that write and a sequence."""
    body = "RETURNS int MODIFIES SQL DATA BEGIN {} INSERT INTO canary VALUES (2); RETURN 1; END"
    with new_mysql_database(mysql_admin) as url:
        execute(
            url,
            "CREATE TABLE people (id int, score varchar(99))",
            f"INSERT INTO people SELECT seq, IF(seq = 7, '{CANARY}', '5') FROM seq_1_to_10",
            "CREATE FUNCTION tells(score text) RETURNS int BEGIN IF length(score) > 3 THEN "
            "SIGNAL SQLSTATE '45042' SET MESSAGE_TEXT = score; END IF; RETURN 5; END",
            "CREATE TABLE canary (a int)",
            "INSERT INTO canary VALUES (1)",
            "CREATE SEQUENCE numbers",
            f"CREATE FUNCTION writes() {body.format('')}",
            f"CREATE FUNCTION sets() {body.format('SET SESSION tx_read_only = 0;')}",
        )
        yield url


@pytest.mark.sample(
    "(SELECT 5 FROM people p WHERE p.id >= people.id)-*-connectorx",
    "cast(id AS unsigned) * *-connectorx",
    "tells(score)-*-sqlalchemy",
)
@by_both_routes
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("exp(id * 200)", "a value of some row cannot be converted as requested"),
        ("cast(id AS unsigned) * 9223372036854775807", "a value of some row cannot be converted as requested"),
        ("tells(score)", "it failed while it read rows ("),
        ("(SELECT 5 FROM people p WHERE p.id >= people.id)", "it failed while it read rows ("),
    ],
)
def test_mysql_error_does_not_contain_the_row(
    people: str, canary_stays_secret: None, route: str, sql: str, reason: str
) -> None:
    """The message names the kind of error, for rows and for the count of rows without consent."""
    for column in ("helpful_rating", "consent"):
        query = select(
            people, "FROM people", feedback_id="id", **{column: sql if column != "consent" else f"({sql}) = 5"}
        )
        text = read_error(by(route, people), query)
        assert reason in text
        assert text.startswith("The database stopped the query: ")
        assert text.endswith("Nothing was exported.")


def kill(url: str, what: str, done: threading.Event) -> None:
    """Kill the sleeping session of this database, as an administrator does."""
    sleeping = "SELECT id FROM information_schema.processlist WHERE db = database() AND state = 'User sleep'"
    while not done.wait(0.05):
        for (thread,) in fetch(url, sleeping):
            with contextlib.suppress(sa.exc.DBAPIError):  # it has ended by itself
                execute(url, f"{what} {thread}")


@pytest.mark.sample("KILL QUERY-*-connectorx", "KILL-*-sqlalchemy")
@by_both_routes
@pytest.mark.parametrize(
    ("what", "reason"), [("KILL QUERY", "it was cancelled by another session"), ("KILL", "the connection was lost")]
)
def test_killed_query_is_reported(people: str, route: str, what: str, reason: str) -> None:
    """By an administrator, alone or with its connection."""
    done = threading.Event()
    thread = threading.Thread(target=kill, args=(people, what, done))
    thread.start()
    try:
        assert reason in read_error(by(route, people), select(people, "FROM people", age="sleep(30)"))
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def with_global(url: str, name: str, value: str) -> Iterator[None]:
    """A setting of the server, for new sessions."""
    ((before,),) = fetch(url, f"SELECT @@GLOBAL.{name}")
    execute(url, f"SET GLOBAL {name} = {value}")
    yield
    execute(url, f"SET GLOBAL {name} = {before}")


def test_mixed_collations_are_reported(mysql_database: str) -> None:
    """Of tables with different collations; one common collation, or COLLATE in a query, is sufficient."""
    with opened(mysql_database) as database:
        change = "ALTER TABLE {} MODIFY user_id varchar(36) CHARACTER SET utf8mb4 COLLATE {}"
        execute(
            mysql_database,
            "SET FOREIGN_KEY_CHECKS = 0",
            "ALTER TABLE profiles DROP FOREIGN KEY IF EXISTS profiles_ibfk_1",
            change.format("profiles", "utf8mb4_general_ci"),
            change.format("recommendation_feedbacks", "utf8mb4_unicode_ci"),
        )
        database.fill(feedbacks=[{"id": 1, "user_id": "7", "created_at": "2025-10-25 10:00:00"}])
        message = str(refusal(mysql_database))
        assert message.startswith("The database stopped the query: it compares text of the collations utf8mb4_")
        for part in ("utf8mb4_general_ci", "utf8mb4_unicode_ci", "ids of two tables", "ALTER TABLE", "--query"):
            assert part in message
        join = "FROM recommendation_feedbacks f LEFT JOIN profiles p ON p.user_id = f.user_id"
        assert "it compares text of" in str(refusal(mysql_database, query=select(mysql_database, join)))
        query = select(mysql_database, f"{join} COLLATE utf8mb4_general_ci")
        assert read(mysql_database, query=query).height == 1
        execute(mysql_database, "ALTER TABLE profiles CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        assert read(mysql_database).height == 1


@by_both_routes
def test_statement_timeout_is_reported(people: str, route: str) -> None:
    """An administrator may have set one for all sessions."""
    with with_global(people, "max_statement_time", "0.2"):
        query = select(people, "FROM people", age="sleep(2)")
        assert "longer than the server's max_statement_time allows" in read_error(by(route, people), query)


@pytest.mark.sample("connectorx")
@by_both_routes
def test_lock_wait_timeout_is_reported(people: str, route: str) -> None:
    """Another session locks the table for longer than the lock timeout."""
    with with_global(people, "lock_wait_timeout", "1"), make_engine(people).connect() as other:
        other.exec_driver_sql("LOCK TABLES people WRITE")
        assert "holds a lock" in read_error(by(route, people), select(people, "FROM people"))
        other.exec_driver_sql("UNLOCK TABLES")


# It should write.

ESCAPES = [
    "{}; DROP TABLE canary",
    "{}) q; DROP TABLE canary; -- ",
    "{}) q; COMMIT; DROP TABLE canary; SELECT * FROM (SELECT 1",
    "{}, '\\' ) q; DROP TABLE canary; -- '",
    '{}, "\\" ) q; DROP TABLE canary; -- "',
    "{} # '\n ) q; DROP TABLE canary; # '",
    "{} /*! ) q; DROP TABLE canary */",
    "{} /*M!100000 ) q; DROP TABLE canary */",
    "DROP TABLE canary",
    "DELETE FROM canary RETURNING *",
    "INSERT INTO canary {}",
    "CREATE TABLE another AS {}",
    "UPDATE canary SET a = 2",
    "SET SESSION tx_read_only = 0",
    "CALL something()",
    "{} INTO OUTFILE 'another'",
    "{} INTO @a",
    "{} FROM canary FOR UPDATE",
    "{} FROM canary LOCK IN SHARE MODE",
    "EXPLAIN {}",
    "HANDLER canary OPEN",
    "WITH gone AS (DELETE FROM canary RETURNING a) {} FROM gone",
]


@contextlib.contextmanager
def bound(url: str, *, autocommit: bool = False) -> Iterator[sa.Connection]:
    """A connection of the caller's in a transaction, which it commits afterwards."""
    options = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    with make_engine(url).execution_options(**options).connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        yield connection
        connection.commit()


Opened = Callable[[str], contextlib.AbstractContextManager[Any]]
OPENED = [
    pytest.param(lambda url: contextlib.nullcontext(url), id="connectorx"),
    pytest.param(lambda url: contextlib.nullcontext(by("sqlalchemy", url)), id="sqlalchemy"),
    pytest.param(functools.partial(bound, autocommit=True), id="autocommit connection"),
    pytest.param(bound, id="bound connection"),
]


@pytest.fixture
def untouched(people: str) -> Iterator[str]:
    """That database; the test must not change it."""
    yield people
    assert fetch(people, "SELECT a FROM canary") == [(1,)]
    assert fetch(people, "SELECT next_not_cached_value FROM numbers") == [(1,)]
    assert fetch(people, "SHOW TABLES LIKE 'another'") == []


@pytest.mark.sample("autocommit connection", "connectorx")
@pytest.mark.parametrize("place", OPENED)
def test_injected_statements_do_not_write(untouched: str, place: Opened) -> None:
    """All of them are refused, and the table is unchanged."""
    for escape in ESCAPES:
        with place(untouched) as database, pytest.raises((SourceError, UsageError)):
            read(database, query=escape.format(select(untouched)))


@pytest.mark.sample("nextval(numbers)-autocommit connection", "sets()-sqlalchemy", "writes()-connectorx")
@pytest.mark.parametrize("place", OPENED[:3])
@pytest.mark.parametrize("call", ["writes()", "sets()", "nextval(numbers)"])
def test_functions_do_not_write(untouched: str, place: Opened, call: str) -> None:
    """Whether called for a row or to count those without consent."""
    for query in (select(untouched, user_id=call), select(untouched, consent=f"{call} = 1")):
        with place(untouched) as database, pytest.raises(SourceError, match="all sessions are read-only"):
            read(database, query=query)


def test_reader_process_cannot_write(untouched: str) -> None:
    """The statements that begin its connection are its only protection."""
    with open_connection(untouched) as source:
        job = ReaderJob(str(source.connectorx_url), list_session_statements(source), ["SELECT writes()"], 100)
        with pytest.raises(SourceError, match="all sessions are read-only"), Reader(job, read_timeout=60) as reader:
            list(reader.next_stream())


def test_writes_of_functions_in_callers_transaction_are_rolled_back(untouched: str) -> None:
    """A caller's transaction cannot be made read-only."""
    with bound(untouched) as connection:
        connection.exec_driver_sql("SELECT * FROM people")
        assert read(connection, query=select(untouched, user_id="writes()")).height == 1


def test_opened_connections_are_read_only(untouched: str) -> None:
    """Also if a write is executed on them directly."""
    for statement in ("DELETE FROM canary", "DROP TABLE canary"):
        with open_connection(untouched) as source, pytest.raises(sa.exc.DBAPIError, match="READ ONLY"):
            source.connection.exec_driver_sql(statement)


def test_error_does_not_contain_server_files(mysql_url: str, tmp_path: Path) -> None:
    """A query may read a file of the server, but no message repeats it."""
    (tmp_path / "secret").write_text(CANARY)
    query = select(mysql_url, timeframe=f"load_file('{tmp_path}/secret')", age="tells_nothing()")
    assert CANARY not in read_error(mysql_url, query)
