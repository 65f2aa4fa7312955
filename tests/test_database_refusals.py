"""A database that cannot be reached or is not as expected: one sentence that names what is missing and what exists."""

import contextlib
import socket
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import AWKWARD_PASSWORD
from databases import Database, new_postgres_database, opened
from processes import without_privileges
from reading import by, by_both_routes, execute, read, select

from feedback_etl.database import tables
from feedback_etl.database.connect import open_connection
from feedback_etl.errors import FeedbackError, SourceError, UsageError
from feedback_etl.schema.classic import CLASSIC_SCHEMA

CANARY = "canary-p4ssw0rd"
PATIENCE_SECONDS = 20


def refusal(database: Any, **options: Any) -> FeedbackError:
    """Return the error of reading: it comes in time, is one sentence and contains no password."""
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            read(database, **options)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "it hangs"
    assert caught, "it was read"
    (error,) = caught
    assert isinstance(error, FeedbackError), error
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert CANARY not in text
    assert error.__suppress_context__ or error.__context__ is None
    return error


@pytest.fixture
def tcp_url(postgres_admin: sa.Engine, postgres_reader: str) -> sa.URL:
    """The test server's database over TCP with a wrong password."""
    admin = postgres_admin.url
    with postgres_admin.connect() as connection:
        port = int(connection.exec_driver_sql("SHOW port").scalar_one())
    host = admin.host or "127.0.0.1"
    return sa.URL.create("postgresql", postgres_reader, CANARY, host, admin.port or port, admin.database)


@pytest.fixture
def server_at(tcp_url: sa.URL) -> Callable[..., str]:
    """Return a function that changes parts of this URL, as text."""
    return lambda **changed: tcp_url.set(**changed).render_as_string(hide_password=False)


def listening(answer: Callable[[socket.socket], None]) -> contextlib.AbstractContextManager[int]:
    """A server on a free port that answers each connection with a given function."""

    @contextlib.contextmanager
    def running() -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = server.accept()
                        with client:
                            answer(client)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield server.getsockname()[1]
            server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_SECONDS)

    return running()


def say(text: bytes) -> Callable[[socket.socket], None]:
    def answer(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(text)

    return answer


# PostgreSQL that cannot be reached.


def test_closed_port_is_reported(server_at: Callable[..., str]) -> None:
    """The message contains host, port, database and what to check."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = refusal(server_at(host="127.0.0.1", port=port, database="shop"))
    assert str(error).startswith(f"Cannot connect to PostgreSQL at 127.0.0.1:{port}, database shop: the connection was")
    assert "is the server running" in str(error)


def test_silent_server_times_out(server_at: Callable[..., str]) -> None:
    """The server accepts the connection and sends nothing; the message names the setting of the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refusal(server_at(host="127.0.0.1", port=silent.getsockname()[1]), connect_timeout=1)
    assert "it did not answer in time (connect_timeout in the settings)" in str(error)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "what answers there is not a PostgreSQL server"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "or it is not a PostgreSQL server"),
    ],
    ids=["hangs up", "HTTP"],
)
def test_server_of_another_product_is_reported(server_at: Callable[..., str], answer: bytes, reason: str) -> None:
    """A wrong port often belongs to another server."""
    with listening(say(answer)) as port:
        assert reason in str(refusal(server_at(host="127.0.0.1", port=port)))


def test_missing_database_is_reported(tcp_url: sa.URL) -> None:
    """The server exists, the database does not."""
    url = tcp_url.set(database="no_such_database", password=AWKWARD_PASSWORD)
    assert str(refusal(url)).endswith("database no_such_database: there is no database of that name.")


@pytest.mark.parametrize("changed", [{}, {"password": ""}, {"username": "no_such_user"}], ids=str)
def test_wrong_user_or_password_is_reported(server_at: Callable[..., str], changed: dict[str, str]) -> None:
    """PostgreSQL does not report which of the two is wrong."""
    assert str(refusal(server_at(**changed))).endswith("user or password is wrong or missing.")


def test_unknown_role_is_reported(postgres_url: str) -> None:
    """A server that requires no password reports an unknown role."""
    url = sa.make_url(postgres_url).set(username="no_such_user")
    expected = "there is no user of that name." if not url.host else "user or password is wrong or missing."
    assert str(refusal(url)).endswith(expected)


def test_missing_socket_is_reported(tmp_path: Path) -> None:
    """The message contains the folder of the socket."""
    error = refusal(f"postgresql://user:{CANARY}@/shop?host={tmp_path}")
    assert str(error) == (
        f"Cannot connect to PostgreSQL at {tmp_path}, database shop: there is no socket of that server."
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70], ids=["unknown", "impossible"])
def test_unknown_host_is_reported(server_at: Callable[..., str], host: str) -> None:
    """Also a name that is not valid in the DNS."""
    assert str(refusal(server_at(host=host))).endswith("there is no host of that name.")


def test_unsupported_tls_is_reported(server_at: Callable[..., str]) -> None:
    """The server of the tests has no certificate."""
    assert "TLS settings" in str(refusal(f"{server_at()}?sslmode=verify-full"))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("require", "this user may not read the driver's certificates; set HOME to the user's own folder"),
        ("verify-full", "the certificate of the authority is missing (sslrootcert, or HOME/.postgresql/root.crt)"),
    ],
)
def test_unreadable_home_for_certificates_is_reported(
    server_at: Callable[..., str], monkeypatch: pytest.MonkeyPatch, mode: str, reason: str
) -> None:
    """A server that answers that it supports TLS is sufficient."""
    refusal("nonsense")  # imports what only this user may read
    with listening(say(b"S")) as port, without_privileges() as own:
        monkeypatch.setenv("HOME", str(own / "closed"))
        (own / "closed").mkdir(mode=0o000)
        assert reason in str(refusal(f"{server_at(host='127.0.0.1', port=port)}?sslmode={mode}"))


def test_connection_error_of_callers_engine_is_reported(server_at: Callable[..., str]) -> None:
    """The message is the same for a caller's engine."""
    engine = sa.create_engine(server_at(), connect_args={"connect_timeout": 2}, poolclass=sa.NullPool)
    assert str(refusal(engine)).endswith("user or password is wrong or missing.")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "postgresql",
        f"postgresql://user:{CANARY}@host:port/shop",
        f"postgresql://user:{CANARY}@rest@host/shop",
        f"postgresql://user:rest@{CANARY}@host/shop",
        "sqlite://application.db",
    ],
)
def test_invalid_url_is_not_repeated(url: str) -> None:
    """The text may contain a password; the message shows an example URL."""
    error = refusal(url)
    assert isinstance(error, UsageError)
    assert "postgresql://user:password@host/name, mysql://... or sqlite:////absolute/path.db" in str(error)


def test_password_in_database_position_is_not_repeated() -> None:
    """An extra slash turns all of it into the database's name."""
    refusal(f"postgresql:///user:{CANARY}@localhost/shop")


@pytest.mark.parametrize(
    "url",
    [
        "mssql://user:canary-p4ssw0rd@host/shop",
        "oracle+oracledb://user:canary-p4ssw0rd@host",
        "foo://user:canary-p4ssw0rd@host",
    ],
)
def test_unsupported_database_is_refused_with_supported_ones(url: str) -> None:
    """With or without an installed driver."""
    error = refusal(url)
    assert isinstance(error, UsageError)
    assert "cannot be read; PostgreSQL, MySQL, MariaDB, SQLite and DuckDB can (postgresql://, mysql://, " in str(error)


@pytest.mark.parametrize(
    ("option", "belongs"),
    [
        ("schema=shop", "the schema of the tables is db_schema in the settings (FEEDBACK_ETL_DB_SCHEMA)"),
        ("currentSchema=shop", "the schema of the tables is db_schema in the settings (FEEDBACK_ETL_DB_SCHEMA)"),
        ("pgbouncer=true", "it is for the application's pool of connections; omit it here"),
        ("pool_timeout=5", "it is for the application's pool of connections; omit it here"),
        ("nonsense=1", "omit options of other drivers"),
    ],
)
def test_unknown_url_option_is_named(server_at: Callable[..., str], option: str, belongs: str) -> None:
    """The message says where it belongs; a mistake in the URL is a usage error."""
    error = refusal(f"{server_at()}?{option}")
    assert isinstance(error, UsageError)
    name = option.partition("=")[0]
    assert str(error) == f"The database URL has the option {name}, which its driver does not know: {belongs}."


@pytest.mark.parametrize("option", ["port=99999", "port=x", "sslmode=nonsense", "keepalives=x"])
def test_unusable_url_option_is_named(server_at: Callable[..., str], option: str) -> None:
    """The message does not contain its value."""
    error = refusal(f"{server_at()}?{option}")
    assert isinstance(error, UsageError)
    name = option.partition("=")[0]
    assert str(error) == f"The database URL has a value for the option {name} that its driver cannot use."


@pytest.mark.parametrize("option", [f"{CANARY}=rest@host/shop", f"x={CANARY}@host/shop", "ca@nary=1"])
def test_possible_part_of_password_is_not_named(option: str) -> None:
    """Special characters that are not encoded end the password early."""
    assert "The database URL has an option, which" in str(refusal(f"postgresql://user:p@localhost/?{option}"))


def test_repeated_url_option_is_named(server_at: Callable[..., str]) -> None:
    """A driver would use one of the two, or none."""
    error = refusal(f"{server_at()}?sslmode=require&sslmode=disable")
    assert str(error) == "The database URL gives the option sslmode more than once; give it once."


def test_first_available_host_is_read(tcp_url: sa.URL) -> None:
    """In the form that the message about other forms recommends."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    hosts = [f"127.0.0.1:{port}", f"{tcp_url.host}:{tcp_url.port}"]
    url = sa.URL.create("postgresql", tcp_url.username, AWKWARD_PASSWORD, database=tcp_url.database)
    assert read(url.set(query={"host": hosts}), query=select("postgresql://")).height == 1
    unreachable = refusal(url.set(query={"host": [hosts[0]] * 2}))
    assert str(unreachable).startswith(f"Cannot connect to PostgreSQL at {hosts[0]}, {hosts[0]}, database ")


@pytest.mark.parametrize("place", ["one:5432,two:5432/shop", "/shop?host=one:5432&host=two&port=1&port=2"])
def test_wrong_form_of_several_hosts_is_explained(place: str) -> None:
    """PostgreSQL's own form, and ports without a host."""
    error = refusal(f"postgresql://user:{CANARY}@{place}")
    assert isinstance(error, UsageError)
    written = "Several hosts are written postgresql://user:password@/name?host=one:5432&host=two:5432."
    assert str(error).endswith(written)


@pytest.mark.parametrize("option", ["timeout=x", "uri=x"])
def test_unusable_sqlite_option_is_named(tmp_path: Path, option: str) -> None:
    """Likewise."""
    (tmp_path / "a.db").touch()
    error = refusal(f"sqlite:///{tmp_path}/a.db?{option}")
    assert isinstance(error, UsageError)
    assert f"a value for the option {option.partition('=')[0]} that its driver cannot use" in str(error)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("sqlite", "schema=x"),
        ("sqlite", "journal_mode=wal"),
        ("sqlite", "uri=true&nonsense=1"),
        ("duckdb", "schema=x"),
        ("duckdb", "nonsense=1"),
    ],
)
def test_unknown_file_option_is_named(tmp_path: Path, kind: str, option: str) -> None:
    """SQLite's driver would ignore it."""
    execute(f"{kind}:///{tmp_path}/a.db", "CREATE TABLE people (id int)")
    error = refusal(f"{kind}:///{tmp_path}/a.db?{option}")
    assert isinstance(error, UsageError)
    name = option.split("&")[-1].partition("=")[0]
    assert f"has the option {name}, which its driver does not know: " in str(error)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_infinite_timeout_is_refused(postgres_url: str, seconds: float) -> None:
    """0 means no timeout to PostgreSQL's driver."""
    error = refusal(postgres_url, connect_timeout=seconds)
    assert isinstance(error, UsageError)
    assert "a number of seconds above 0" in str(error)


# SQLite that cannot be read.


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_in_memory_url_is_an_empty_database(url: str) -> None:
    """Only the application's engine reaches the other database."""
    assert "no table recommendation_feedbacks, recommendation_records, profiles. It has: nothing." in str(refusal(url))


@pytest.mark.parametrize("name", ["missing.db", "no/such/folder/a.db", ".", "a" * 300, "a\0b", "missing.db/a.db"])
def test_missing_file_is_reported_and_not_created(tmp_path: Path, name: str) -> None:
    """A folder is not a database file either."""
    url = sa.URL.create("sqlite", database=f"{tmp_path}/{name}")
    assert str(refusal(url)) == f"There is no SQLite file at {tmp_path}/{name}."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["", "&mode=rwc", "&mode=rw", "&mode=ro"])
def test_missing_file_of_uri_is_reported_and_not_created(tmp_path: Path, mode: str) -> None:
    """Also if the URI requests its creation."""
    assert "the file cannot be opened" in str(refusal(f"sqlite:///file:{tmp_path}/missing.db?uri=true{mode}"))
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    """A CSV, for example."""
    path = tmp_path / "feedback.csv"
    path.write_text("id,user_id\n" * 1000)
    assert str(refusal(f"sqlite:///{path}")) == (
        f"Cannot connect to the SQLite file {path}: it is not an SQLite database."
    )


def test_wal_file_in_read_only_folder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite creates files beside it; the recommended copy can be read there."""
    query = select("sqlite://")
    with without_privileges() as own:
        monkeypatch.chdir(own)
        with contextlib.closing(sqlite3.connect("app.db")) as connection:
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute("CREATE TABLE people (id INTEGER)")
            connection.execute("VACUUM INTO 'copy.db'")
        assert sorted(path.name for path in own.iterdir()) == ["app.db", "copy.db"]
        own.chmod(0o555)
        message = [str(refusal(f"sqlite:///{own}/app.db{option}", query=query)) for option in ("", "?timeout=5")]
        assert read(f"sqlite:///{own}/copy.db?timeout=5", query=query).height == 1
        own.chmod(0o700)
    assert (
        message
        == [
            f"Cannot connect to the SQLite file {own}/app.db: it is in WAL mode, for which SQLite creates files in its "
            "folder, and this user may not; let the user write to the folder, or read a copy that the owner of the "
            """file makes (sqlite3 FILE "VACUUM INTO 'copy.db'")."""
        ]
        * 2
    )


def test_locked_file_is_reported(sqlite_database: Database, sqlite_path: Path) -> None:
    """Another program holds the file's lock for longer than the timeout."""
    with contextlib.closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        error = refusal(sqlite_database.url, connect_timeout=0.1)
    assert str(error).endswith("another program holds a lock on it.")


# Tables and columns.


def test_empty_database_lacks_all_tables(postgres_database: str) -> None:
    """The message names all missing tables, and that no other exists."""
    message = str(refusal(postgres_database))
    assert "no table recommendation_feedbacks, recommendation_records, profiles. It has: nothing." in message
    assert "`feedback-etl init`" in message


def test_missing_table_is_reported_with_existing_tables(database: Database) -> None:
    """In order, and a limited number of them."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE profiles")
        for number in range(25):
            connection.exec_driver_sql(f"CREATE TABLE another_{number:02} (id int)")
    message = str(refusal(database.url))
    assert "The database has no table profiles. It has: analyses, another_00, another_01," in message
    assert "another_18 and 10 more." in message


def test_missing_columns_are_reported_with_existing_columns(database: Database) -> None:
    """The message lists the columns of each table."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE recommendation_feedbacks RENAME COLUMN timeframe TO time_frame")
        connection.exec_driver_sql("ALTER TABLE recommendation_feedbacks RENAME COLUMN helpful_rating TO helpful")
        connection.exec_driver_sql("ALTER TABLE profiles RENAME COLUMN age TO birth_year")
    message = str(refusal(database.url))
    assert message.startswith("recommendation_feedbacks has no column helpful_rating, timeframe (it has id, user_id,")
    assert "profiles has no column age (it has id, user_id, birth_year)" in message


def test_views_are_read_like_tables(database: Database) -> None:
    """A user with access to views only can export from them."""
    database.fill(feedbacks=[{"id": 1, "created_at": "2025-10-25 10:00:00"}])
    with database.engine.begin() as connection:
        for name in ("recommendation_feedbacks", "recommendation_records", "profiles"):
            connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {name}_table")
            connection.exec_driver_sql(f"CREATE VIEW {name} AS SELECT * FROM {name}_table")
    assert read(database.url)["feedback_id"].to_list() == [1]


def test_broken_view_is_reported(sqlite_database: Database) -> None:
    """SQLite detects this during inspection."""
    with sqlite_database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE profiles")
        connection.exec_driver_sql("CREATE VIEW profiles AS SELECT id, user_id, age FROM old_profiles")
    assert "old_profiles" in str(refusal(sqlite_database.url))


def test_sqlite_names_are_case_insensitive(tmp_path: Path) -> None:
    """The same as in every query of SQLite."""
    ddl = (
        tables.render_application_schema("sqlite")
        .replace(" created_at", " Created_At")
        .replace("TABLE profiles", "TABLE Profiles")
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript(ddl)
    assert read(f"sqlite:///{tmp_path}/a.db").is_empty()


def test_types_unknown_to_sqlalchemy_are_ignored(postgres_database: str) -> None:
    """The application's tables may contain columns that are not read."""
    with opened(postgres_database):
        execute(postgres_database, "CREATE TYPE mood AS (a int, b text)", "ALTER TABLE profiles ADD COLUMN mood mood")
        assert read(postgres_database).is_empty()


@pytest.fixture
def schema_app(postgres_database: str) -> str:
    """A database whose tables are in the schema "app", with one row."""
    ddl = [statement for statement in tables.render_application_schema("postgresql").split(";") if statement.strip()]
    row = "INSERT INTO recommendation_feedbacks (id, created_at) VALUES (1, '2025-10-25 10:00:00')"
    execute(postgres_database, "CREATE SCHEMA app", "SET search_path TO app", *ddl, row)
    return postgres_database


@by_both_routes
def test_tables_of_db_schema_are_read(schema_app: str, route: str) -> None:
    """With the setting db_schema."""
    assert read(by(route, schema_app), db_schema="app").height == 1
    assert "It has: nothing." in str(refusal(schema_app))


def test_tables_on_search_path_are_read(schema_app: str) -> None:
    """The search path of the database, or an option of the URL."""
    assert read(f"{schema_app}&options=-csearch_path%3Dapp").height == 1
    execute(schema_app, f"ALTER DATABASE {sa.make_url(schema_app).database} SET search_path TO other, app")
    assert read(schema_app).height == 1


def test_missing_schema_is_reported_with_existing_schemas(schema_app: str, sqlite_database: Database) -> None:
    """On SQLite, the schemas are the attached files."""
    assert str(refusal(schema_app, db_schema="ap")).startswith(
        "The database has no schema ap (db_schema). It has: app,"
    )
    assert "It has: main." in str(refusal(sqlite_database.url, db_schema="app"))
    assert read(sqlite_database.url, db_schema="main").is_empty()


@pytest.fixture
def stranger(postgres_tcp_url: str, postgres_admin: sa.Engine) -> Iterator[str]:
    """The URL of a role that may only connect to a database with the default schema."""
    name = f"feedback_etl_test_{uuid.uuid4().hex}"
    with postgres_admin.connect() as admin:
        admin.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{CANARY}'")
    yield sa.make_url(postgres_tcp_url).set(username=name, password=CANARY).render_as_string(hide_password=False)
    with postgres_admin.connect() as admin:
        admin.exec_driver_sql(f"DROP ROLE {name}")


def test_table_without_permission_is_reported(postgres_database: str, stranger: str) -> None:
    """The role can see that the table exists."""
    with opened(postgres_database):
        assert "permission denied for table recommendation_feedbacks" in str(refusal(stranger))
        query = select(stranger, "FROM profiles")
        assert "permission denied for table profiles" in str(refusal(stranger, query=query))


def test_database_without_permission_is_reported(postgres_database: str, stranger: str) -> None:
    """The role has no permission to connect."""
    execute(postgres_database, f"REVOKE CONNECT ON DATABASE {sa.make_url(postgres_database).database} FROM PUBLIC")
    assert "this user may not connect to it" in str(refusal(stranger))


# Custom queries.


@by_both_routes
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
class TestCustomQueries:
    """Wrong columns of a custom query are reported before a row is read."""

    @pytest.fixture
    def url(self, request: pytest.FixtureRequest, kind: str, route: str) -> str:
        """A database of one kind, read by one route."""
        if kind != "sqlite":
            server = {"postgresql": "postgres_url", "mysql": "mysql_url"}[kind]
            return by(route, request.getfixturevalue(server))
        request.getfixturevalue("sqlite_path").touch()
        return by(route, f"sqlite:///{request.getfixturevalue('sqlite_path')}")

    def test_missing_and_unexpected_columns_are_reported(self, url: str) -> None:
        """The message lists all columns that the query has to yield."""
        query = select(url, timeframe=None, age=None, email="'a@example.com'", Age="3")
        message = str(refusal(url, query=query.replace("AS Age", 'AS "Age"')))
        assert "lacks timeframe, age and yields the unexpected email, Age." in message
        assert f"It has to yield {', '.join(CLASSIC_SCHEMA.raw_columns)}, and optionally consent." in message

    def test_duplicate_columns_are_reported(self, url: str) -> None:
        """Also if another column is missing."""
        query = select(url, age="25 AS user_id, 3").replace("AS age", "AS user_id")
        message = "Duplicate column name 'user_id'" if url.startswith("mysql") else "lacks age and yields twice user_id"
        assert f"{message}." in str(refusal(url, query=query))

    def test_syntax_error_is_quoted(self, url: str) -> None:
        """No row was read, so the messages contain no value."""
        assert "no_such_column" in str(refusal(url, query=select(url, age="no_such_column")))
        assert "no_such_table" in str(refusal(url, query=select(url, "FROM no_such_table")))
        assert "syntax error" in str(refusal(url, query="SELEC 1"))

    def test_unclosed_query_is_refused(self, url: str) -> None:
        """Before it is sent to the database."""
        assert isinstance(refusal(url, query="SELECT 1) q; DROP TABLE canary; --"), UsageError)


@pytest.fixture(scope="module")
def pairs(postgres_admin: sa.Engine) -> Iterator[str]:
    """A database with a user-defined type."""
    with new_postgres_database(postgres_admin) as url:
        execute(url, "CREATE TYPE pair AS (a int)")
        yield url


@pytest.mark.parametrize(
    ("column", "sql", "message"),
    [
        ("helpful_rating", "'5'", "helpful_rating is text, expected a number"),
        ("age", "'[1,2)'::int4range", "age is int4range, expected a number"),
        ("user_id", "1.5", "user_id is numeric, expected an integer, a UUID or text"),
        ("analysis_id", "1.5::float8", "analysis_id is float8, expected an integer, a UUID or text"),
        ("created_at", "'2025-10-25'", "created_at is text, expected a timestamp"),
        ("created_at", "date '2025-10-25'", "created_at is date, expected a timestamp"),
        ("created_at", "interval '1 day'", "created_at is interval, expected a timestamp"),
        ("product_satisfaction", "5::money", "product_satisfaction is money, expected a number"),
        ("would_recommend", "'yes'", "would_recommend is text, expected a boolean"),
        ("timeframe", "2", "timeframe is int4, expected text"),
        ("conditions_analyzed", "1", "conditions_analyzed is int4, expected JSON text"),
        ("rules_applied", "ARRAY[1]", r"rules_applied is int4[], expected JSON text"),
        ("consent", "'yes'", "consent is text, expected a boolean"),
        ("age", "ROW(1)::pair", "age is of a user-defined type, expected a number"),
    ],
)
def test_columns_of_wrong_type_are_reported_on_postgresql(pairs: str, column: str, sql: str, message: str) -> None:
    """Including types that cause a panic of ConnectorX."""
    assert message in str(refusal(pairs, query=select(pairs, **{column: sql})))


def test_all_columns_of_wrong_type_are_reported_together(postgres_url: str) -> None:
    """One correction is then sufficient."""
    message = str(refusal(postgres_url, query=select(postgres_url, age="'x'", timeframe="1")))
    assert message == (
        "Columns of a wrong type: timeframe is int4, expected text; age is text, expected a number. "
        "Cast them in a query (--query, or that of [source])."
    )


def test_failing_connection_is_closed(postgres_url: str) -> None:
    """Also if the connection was lost in the meantime: closing it raises no further error."""
    with open_connection(postgres_url) as source:
        pid = source.connection.scalar(sa.text("SELECT pg_backend_pid()"))
        execute(postgres_url, f"SELECT pg_terminate_backend({pid})")
    assert source.connection.closed


def test_source_error_has_exit_code_3() -> None:
    """A mistake in the URL has exit code 2."""
    assert (SourceError.exit_code, UsageError.exit_code) == (3, 2)


def test_unencoded_password_is_not_taken_for_a_host() -> None:
    """The text before the last @ is a part of the password; no message repeats it."""
    with pytest.raises(UsageError) as refused, open_connection("postgresql://u:pa@SECRETVAL/y@127.0.0.1:1/x"):
        pass
    assert "SECRETVAL" not in str(refused.value)
