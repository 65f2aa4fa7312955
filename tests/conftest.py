"""Fixtures: a person-free environment around every test, and empty databases of each kind."""

import gc
import logging
import os
import shutil
import signal
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest
import sqlalchemy as sa
from budget import PROPERTY, budget_lines, check_budget, processor_seconds
from clusters import SMALL_TASK, environment, fill_with_sample
from databases import Database, new_mysql_database, new_postgres_database, new_postgres_reader, opened
from mariadb_server import is_installed
from object_store import CREDENTIALS, Proxy, in_memory, running_object_store
from processes import finish_idle_readers
from reading import CANARY
from reused_databases import MysqlCleaner, PostgresCleaner, ReusedDatabase
from tiers import mark_slow
from watchdog import running_server

from feedback_etl.database import reader_pool
from feedback_etl.database.reader_client import Reader
from feedback_etl.database.reader_pool import end_idle

for profile, examples in {"quick": 50, "full": 150, "thorough": 1500}.items():
    hypothesis.settings.register_profile(profile, deadline=None, max_examples=examples)
hypothesis.settings.load_profile("quick")

AWKWARD_PASSWORD = "p@#/%:?& w"

MEMORY = Path("/dev/shm")
"""Temporary files are here, unless TMPDIR says otherwise: tests that publish files mostly wait for a disk's fsync."""

MEMORY_BYTES = 4 * 1024**3
"""What must be free there; tests keep the folders of failures alone, and so use a small part of it."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Keep temporary files in memory; run in a time zone with an odd offset, where local time taken for UTC shows."""
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None
    os.environ["SSL_CERT_FILE"] = os.devnull  # PyMySQL loads all authorities for each connection, which takes 50 ms
    # A script's job in the background ignores Ctrl-C, and one of nohup that its terminal went; and so would every
    # program that a test starts.
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    os.environ["TZ"] = "America/St_Johns"
    time.tzset()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to the slow tier what repeats others."""
    mark_slow(items, is_complete=not any("::" in argument for argument in config.args))


def pytest_collection_finish() -> None:
    """Spare the garbage collector everything that is there for the whole run."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the interpreter free that at its end: DuckDB reports what is not freed as leaked."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def budget(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of the default tier costs little; servers and others that serve many tests are not counted."""
    begin = processor_seconds()
    yield
    seconds = processor_seconds() - begin
    request.node.user_properties.append((PROPERTY, seconds))
    check_budget(request.node, seconds)


@pytest.fixture(autouse=True)
def warm_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reader processes wait for the next test, which saves starting one, but where a test is about them."""
    if request.node.get_closest_marker("fresh_reader"):
        end_idle()
        monkeypatch.setattr(reader_pool, "MAX_IDLE", 0)
    elif request.node.get_closest_marker("covers_children") is None:
        monkeypatch.setattr("feedback_etl.database.batches.Reader", partial(Reader, is_kept=True))


@pytest.fixture(autouse=True)
def measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure coverage in the default tier alone, and in other processes only where a test says so.

    It makes tests take nearly twice as long, and the slow tier hardly reaches other lines.
    """
    running = coverage.Coverage.current()
    if request.node.get_closest_marker("covers_children"):
        end_idle()
        yield
        finish_idle_readers()
        return
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    if running is None or not request.node.get_closest_marker("slow"):
        yield
        return
    running.stop()
    try:
        yield
    finally:
        running.start()


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing of the person who runs the tests is read or written: home, settings, environment, folder."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    for name in os.environ:
        ours = name.startswith("FEEDBACK_ETL_") and not name.startswith("FEEDBACK_ETL_TEST_")
        if ours or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL's superuser: FEEDBACK_ETL_TEST_POSTGRES_URL, or a server of the tests' own."""
    if given := os.environ.get("FEEDBACK_ETL_TEST_POSTGRES_URL"):
        yield given
    else:
        with running_server("postgres") as url:
            yield url


@pytest.fixture(scope="session")
def postgres_admin(postgres_url: str) -> Iterator[sa.Engine]:
    """Runs what no transaction allows (CREATE DATABASE), on one connection kept open."""
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_database(postgres_admin: sa.Engine) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database, dropped after the test."""
    with new_postgres_database(postgres_admin) as url:
        yield url


@pytest.fixture(scope="session")
def reused_postgres(postgres_admin: sa.Engine) -> Iterator[ReusedDatabase]:
    """The PostgreSQL database that many tests share, one after the other."""
    with closing(ReusedDatabase(partial(new_postgres_database, postgres_admin), PostgresCleaner)) as reused:
        yield reused


@pytest.fixture
def postgres(reused_postgres: ReusedDatabase) -> Iterator[Database]:
    """An empty PostgreSQL database of the default schema."""
    with reused_postgres.empty() as database:
        yield database


@pytest.fixture(scope="session")
def sample_url(postgres_admin: sa.Engine) -> Iterator[str]:
    """The URL of a database of sample data, which no test changes."""
    with new_postgres_database(postgres_admin) as url:
        fill_with_sample(url)
        yield url


@pytest.fixture
def shared_url(sample_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same; workers know it, and it is divided though it is small."""
    monkeypatch.setattr("feedback_etl.database.partitioning.MIN_ROWS_PER_TASK", SMALL_TASK)
    for name, value in environment(sample_url).items():
        monkeypatch.setenv(name, value)
    return sample_url


@pytest.fixture
def own_sample_url(postgres_admin: sa.Engine, shared_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A copy of it that the test may change."""
    with new_postgres_database(postgres_admin, template=sa.make_url(shared_url).database) as url:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)
        yield url


@pytest.fixture(scope="session")
def postgres_reader(postgres_admin: sa.Engine) -> Iterator[str]:
    """The name of a role that reads everything, writes nothing, and has a password of awkward characters."""
    with new_postgres_reader(postgres_admin, AWKWARD_PASSWORD) as name:
        yield name


@pytest.fixture
def postgres_tcp_url(postgres_database: str, postgres_admin: sa.Engine, postgres_reader: str) -> str:
    """The database of `postgres_database` over TCP, as the role with the awkward password that only reads."""
    with postgres_admin.connect() as admin:
        port = int(admin.scalar(sa.text("SHOW port")))
    url = sa.make_url(postgres_database)
    tcp = sa.URL.create(
        url.drivername,
        username=postgres_reader,
        password=AWKWARD_PASSWORD,
        host=url.host or "127.0.0.1",
        port=url.port or port,
        database=url.database,
    )
    return tcp.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def mysql_url() -> Iterator[str]:
    """The URL of a MySQL's or MariaDB's superuser: FEEDBACK_ETL_TEST_MYSQL_URL, or a server of the tests' own."""
    if given := os.environ.get("FEEDBACK_ETL_TEST_MYSQL_URL"):
        yield given
    elif is_installed():
        with running_server("mariadb") as url:
            yield url
    else:
        missing = "no MariaDB here: apt-get install mariadb-server, or set FEEDBACK_ETL_TEST_MYSQL_URL"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


@pytest.fixture(scope="session")
def mysql_admin(mysql_url: str) -> Iterator[sa.Engine]:
    """Creates and drops databases, on one connection kept open."""
    engine = sa.create_engine(mysql_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def mysql_database(mysql_admin: sa.Engine) -> Iterator[str]:
    """The URL of a new, empty MySQL database, dropped after the test."""
    with new_mysql_database(mysql_admin) as url:
        yield url


@pytest.fixture(scope="session")
def reused_mysql(mysql_admin: sa.Engine) -> Iterator[ReusedDatabase]:
    """The MySQL database that many tests share, one after the other."""
    with closing(ReusedDatabase(partial(new_mysql_database, mysql_admin), MysqlCleaner)) as reused:
        yield reused


@pytest.fixture
def mysql(reused_mysql: ReusedDatabase) -> Iterator[Database]:
    """An empty MySQL database of the default schema."""
    with reused_mysql.empty() as database:
        yield database


@pytest.fixture(scope="session")
def mysql_reader(mysql_admin: sa.Engine) -> Iterator[str]:
    """The name of a user who reads everything, writes nothing, and has a password of awkward characters."""
    name = f"etl_{uuid.uuid4().hex[:20]}"
    with mysql_admin.connect() as admin:
        admin.exec_driver_sql(f"CREATE USER {name} IDENTIFIED BY '{AWKWARD_PASSWORD.replace('%', '%%')}'")
        admin.exec_driver_sql(f"GRANT SELECT, EXECUTE ON *.* TO {name}")
    yield name
    with mysql_admin.connect() as admin:
        admin.exec_driver_sql(f"DROP USER {name}")


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of an object store that speaks S3."""
    with running_object_store() as url:
        yield url


@pytest.fixture
def bucket_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a prefix in a new bucket: in memory, or of a server where a test needs one.

    A test needs one that makes trouble with `proxy`, that looks at requests, or that has others (Polars, programs) open
    the URL: it is marked `served_store`.
    """
    name = f"test-{uuid.uuid4().hex}"
    if "proxy" in request.fixturenames or request.node.get_closest_marker("served_store"):
        request.getfixturevalue("served_bucket")(name)
    else:
        monkeypatch.setattr("feedback_etl.storage.object_store.open_client", in_memory())
    return f"s3://{name}/exports"


@pytest.fixture
def served_bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Creates a bucket of the object store that speaks S3, for which the environment has the credentials."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": object_store}.items():
        monkeypatch.setenv(name, value)
    return lambda name: urllib.request.urlopen(urllib.request.Request(f"{object_store}/{name}", method="PUT")).close()


@pytest.fixture
def proxy(bucket_url: str, object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between the tests and the object store that injects faults."""
    with Proxy(object_store).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """Where a test may put its SQLite database; nothing is there yet."""
    return tmp_path / "application.db"


@pytest.fixture
def sqlite_database(sqlite_path: Path) -> Iterator[Database]:
    """An empty SQLite file of the default schema, at `sqlite_path`."""
    with opened(f"sqlite:///{sqlite_path}") as empty:
        yield empty


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of the default schema, once in each of the kinds."""
    fixtures = {"sqlite": "sqlite_database", "postgresql": "postgres", "mysql": "mysql"}
    empty: Database = request.getfixturevalue(fixtures[request.param])
    return empty


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Tells at the end of the run how often a test has done something."""
    return lambda what, times: request.node.user_properties.append(("count", f"{times:>6,} {what}"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was counted, by the tests that passed; with `--durations`, what tests cost in processor time."""
    passed = terminalreporter.stats.get("passed", [])
    counts = [text for report in passed for name, text in report.user_properties if name == "count"]
    if counts:
        terminalreporter.section("counts")
        for text in sorted(counts, key=lambda text: text[7:]):
            terminalreporter.line(text)
    if most := terminalreporter.config.getoption("durations"):
        reports = [report for kind in terminalreporter.stats.values() for report in kind if hasattr(report, "when")]
        terminalreporter.section(f"slowest {most} tests by processor time")
        for line in budget_lines(reports, most):
            terminalreporter.line(line)


@pytest.fixture
def canary_stays_secret(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The canary is neither printed nor logged, by us or by a library below Python."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    assert CANARY not in printed.out + printed.err + caplog.text
