"""Failures while rows are read: an export is complete or absent, and no process is left."""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
import sqlalchemy as sa
from databases import Database, create_schema, make_engine
from processes import COMMAND, environment, feedback_etl_process, readers, wait_for
from pseudonym_keys import KEY
from reading import NOW, fetch, select
from watchdog import running_server

import feedback_etl as fe
from feedback_etl.errors import SourceError

pytestmark = pytest.mark.fresh_reader

ROWS = 300


def often(times: int, many: int = 100) -> pytest.MarkDecorator:
    """Repeat a few times, and many times in `make torture`."""
    return pytest.mark.parametrize("times", [times, pytest.param(many, marks=pytest.mark.torture)])


def many_rows(url: str, rows: int, **changed: str) -> str:
    """Return a query of `rows` rows, a millisecond apart."""
    ids = {"feedback_id": "n", "analysis_id": "n", "created_at": "timestamp '2025-10-25' - n * interval '1 ms'"}
    return select(url, f"FROM generate_series(1, {rows}) AS n", **ids | changed)


@pytest.fixture
def filled(postgres_database: str) -> Iterator[sa.Engine]:
    """Feedback within ten hours."""
    engine = make_engine(postgres_database)
    create_schema(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO recommendation_feedbacks (id, analysis_id, helpful_rating, created_at) "
            f"SELECT n, n, 5, timestamp '2025-10-24' + n * interval '2 min' FROM generate_series(1, {ROWS}) AS n"
        )
    yield engine
    engine.dispose()


MOVE = (
    "UPDATE recommendation_feedbacks SET created_at = timestamp '2025-10-24' + random() * interval '10 h' WHERE id > 0"
)
REPLACE = """
    WITH gone AS (DELETE FROM recommendation_feedbacks WHERE id < 0)
    INSERT INTO recommendation_feedbacks (id, analysis_id, helpful_rating, created_at)
    SELECT -%(start)s - n, 1, 5, timestamp '2025-10-24' + random() * interval '10 h' FROM generate_series(1, 50) AS n"""


@pytest.mark.slow
@often(5)
def test_bulk_reads_one_snapshot_during_writes(filled: sa.Engine, times: int) -> None:
    """Rows move in time and others come and go, fifty at once, between the ranges that are read side by side."""
    stop = threading.Event()

    def write(statement: str) -> None:
        start = 0
        while not stop.is_set():
            start += 50
            with filled.begin() as connection:
                connection.exec_driver_sql(statement, {"start": start})

    with filled.begin() as connection:
        connection.exec_driver_sql(REPLACE, {"start": 0})
    writers = [threading.Thread(target=write, args=(statement,)) for statement in (MOVE, REPLACE)]
    for writer in writers:
        writer.start()
    url = filled.url.render_as_string(hide_password=False)
    try:
        for _ in range(times):
            frame = fe.load_feedback(url, days_back=-1, now=NOW, bulk=True, workers=4, batch_size=11)
            ids = frame["feedback_id"]
            assert sorted(ids.filter(ids > 0).to_list()) == list(range(1, ROWS + 1))
            inserted = sorted(ids.filter(ids < 0).to_list())
            assert inserted == list(range(inserted[0], inserted[0] + 50))
            assert frame["created_at"].is_sorted()
    finally:
        stop.set()
        for writer in writers:
            writer.join()


@pytest.mark.slow
@often(3, 60)
def test_reader_killed_at_any_time(postgres_database: str, tmp_path: Path, times: int) -> None:
    """The export is complete, or absent with an error."""
    query = many_rows(postgres_database, 20_000)
    rng, outcomes = random.Random(times), []
    for number in range(times):
        folder = tmp_path / str(number)
        killer = threading.Timer(rng.uniform(0, 1.5), lambda: [reader.kill() for reader in readers()])
        killer.start()
        try:
            report = fe.export_feedback(
                postgres_database, query=query, now=NOW, key=KEY, output_dir=folder, batch_size=500
            )
        except SourceError as error:
            outcomes.append(str(error))
            assert list(folder.glob("[!.]*")) == []
        else:
            assert report.exported_records == 20_000
            assert Path(report.export_filename).read_bytes().count(b"\n") == 20_001
            outcomes.append("whole")
        finally:
            killer.cancel()
            killer.join()
        assert readers() == []
    killed = "The database stopped the query: the reader process ended early (exit -9). Nothing was exported."
    assert {*outcomes} <= {killed, "whole"}
    assert times < 50 or {*outcomes} == {killed, "whole"}


@pytest.fixture
def exporting(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a long export from a separate server, and wait for its first rows."""
    with running_server("postgres") as url:
        query = tmp_path / "many.sql"
        query.write_text(many_rows(url, 3_000_000))
        env = environment({"FEEDBACK_ETL_DATABASE_URL": url, "FEEDBACK_ETL_KEY": KEY, "FEEDBACK_ETL_BATCH_SIZE": "500"})
        options = ["--query", str(query), "--days", "-1"]
        with subprocess.Popen([COMMAND, "export", *options], env=env, stderr=subprocess.PIPE, cwd=tmp_path) as process:
            process.url = url  # type: ignore[attr-defined]
            wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob("ml/feedback_training/.feed*.csv.tmp")))
            children = psutil.Process(process.pid).children()
            assert children
            yield process
            assert psutil.wait_procs(children, timeout=5)[1] == []
        assert list(tmp_path.glob("ml/feedback_training/[!.]*")) == []
        assert list(tmp_path.glob("ml/feedback_training/.feed*.tmp")) == []


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Return the exit code and the output; the command ends within seconds."""
    _, said = process.communicate(timeout=20)
    return process.returncode, said.decode()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGQUIT, signal.SIGINT], ids=["immediately", "fast"])
def test_server_stops_while_streaming(exporting: "subprocess.Popen[bytes]", stop: signal.Signals) -> None:
    """For example because it is restarted."""
    folder = sa.make_url(exporting.url).query["host"]  # type: ignore[attr-defined]
    os.kill(int(Path(str(folder), "postmaster.pid").read_text().split()[0]), stop)
    code, said = ended(exporting)
    assert code == 3
    assert said.startswith("error: The database stopped the query: the connection was lost")


@pytest.mark.slow
def test_connection_ends_while_streaming(exporting: "subprocess.Popen[bytes]") -> None:
    """For example by an administrator or a proxy."""
    fetch(
        exporting.url,  # type: ignore[attr-defined]
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%%' AND pid <> pg_backend_pid()",
    )
    code, said = ended(exporting)
    assert code == 3
    assert said.startswith("error: The database stopped the query: the connection was lost")


@pytest.mark.slow
def test_reader_is_killed_while_streaming(exporting: "subprocess.Popen[bytes]") -> None:
    """For example by the kernel if memory is short."""
    for child in psutil.Process(exporting.pid).children():
        child.kill()
    assert ended(exporting) == (
        3,
        "error: The database stopped the query: the reader process ended early (exit -9). Nothing was exported.\n",
    )


def test_killed_reader_of_sqlite_is_not_retried(sqlite_database: Database) -> None:
    """SQLAlchemy reads again only if values do not fit their columns, not after a crash."""

    def kill(_rows: int, _total: int) -> None:
        for reader in readers():
            reader.kill()

    rows = [{"id": number, "created_at": NOW, "helpful_rating": 5} for number in range(1, 50_001)]
    sqlite_database.fill(feedbacks=rows)
    with pytest.raises(SourceError, match="the reader process ended early"):
        fe.load_feedback(sqlite_database.url, since="2025-10-01", batch_size=100, on_progress=kill)
    assert readers() == []


def exported_by(url: str, folder: Path, query: str) -> tuple[int, str, list[Path]]:
    """Return the exit code, the output and the files of an export."""
    (folder / "own.sql").write_text(query)
    env = {"FEEDBACK_ETL_DATABASE_URL": url, "FEEDBACK_ETL_KEY": KEY}
    done = feedback_etl_process(
        "export", "--days", "-1", "--query", folder / "own.sql", "--output", folder / "exports", env=env
    )
    return done.returncode, done.stderr, list((folder / "exports").glob("[!.]*"))


@pytest.mark.slow
def test_query_fails_at_row_500_000(postgres_database: str, tmp_path: Path) -> None:
    """The message does not contain the row's values."""
    query = many_rows(postgres_database, 600_000, helpful_rating="1 / (n - 500000)")
    assert exported_by(postgres_database, tmp_path, query) == (
        3,
        "error: The database stopped the query: it divides by zero in some row. Nothing was exported.\n",
        [],
    )


@pytest.mark.slow
def test_statement_timeout_ends_export(postgres_database: str, postgres_admin: sa.Engine, tmp_path: Path) -> None:
    """The message names the server's limit."""
    name = sa.make_url(postgres_database).database
    with postgres_admin.connect() as admin:
        admin.exec_driver_sql(f"ALTER DATABASE {name} SET statement_timeout = '300ms'")
    assert exported_by(postgres_database, tmp_path, select(postgres_database, "FROM pg_sleep(30)")) == (
        3,
        "error: The database stopped the query: it took longer than the server's statement_timeout allows. "
        "Nothing was exported.\n",
        [],
    )


@pytest.mark.slow
def test_reader_memory_is_bounded_by_slow_disk(postgres_database: str) -> None:
    """The reader is stopped while no rows are consumed; ConnectorX has no backpressure and would keep them all."""
    after_a_while = [memory_of_the_reader(postgres_database, rows) for rows in (100_000, 400_000)]
    in_its_memory = 300_000 * 60  # bytes that the difference in rows takes at least
    assert after_a_while[1] - after_a_while[0] < in_its_memory / 3


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["1", pytest.param("", marks=pytest.mark.torture)])
def test_stopped_and_continued_reader_loses_no_byte(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    """Also with PYTHONUNBUFFERED, as in containers: writes may be short there."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    query = many_rows(postgres_database, 300_000, timeframe="n || '_weeks'")
    report = fe.export_feedback(postgres_database, query=query, now=NOW, key=KEY, output_dir=tmp_path, batch_size=2_000)
    assert pl.read_csv(report.export_filename)["timeframe"].to_list() == [f"{n}_weeks" for n in range(300_000, 0, -1)]


def memory_of_the_reader(url: str, rows: int) -> int:
    """Return the reader's memory in bytes while only the first rows have been consumed."""
    taken: list[int] = []

    def stall(rows: int, _total: int) -> None:
        if not taken:
            time.sleep(2)
            taken.extend(reader.memory_info().rss for reader in readers())
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        fe.load_feedback(url, query=many_rows(url, rows), days_back=-1, now=NOW, batch_size=1_000, on_progress=stall)
    assert len(taken) == 1
    return taken[0]
