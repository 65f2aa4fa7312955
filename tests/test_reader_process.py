"""Rows come from a separate process: if it fails in any way, an export is complete or does not exist."""

import contextlib
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from databases import Database, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import COMMAND, environment, python, readers, wait_for
from pseudonym_keys import KEY
from reading import NOW, fetch, select

import feedback_etl as fe
from feedback_etl.database import ranges, reader_pool
from feedback_etl.database.connect import open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.ranges import Histogram, HistogramBin, count_batch_groups, group_batches, split_histogram
from feedback_etl.database.reader_client import Reader, ReaderJob
from feedback_etl.database.reader_pool import end_idle
from feedback_etl.database.sql import select_feedback
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.window import UndatedWindow, Window
from feedback_etl.errors import SourceError, UsageError

pytestmark = pytest.mark.covers_children  # what a reader does, nothing else does

T0 = NOW - timedelta(days=1)
SLOW = "FROM pg_sleep(60)"


def feedback(count: int, *, repeats: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Rows in which groups of neighbours are the same feedback, and one row has no time."""
    rows = [
        {
            "id": number,
            "user_id": number % 7 + 1,
            "analysis_id": number // repeats,
            "recommendation_id": 1,
            "helpful_rating": number % 5 + 1,
            "created_at": None if number == count else T0 + timedelta(seconds=number // repeats),
        }
        for number in range(1, count + 1)
    ]
    return {"records": [{"id": 1, "recommendation_id": "rec_1"}], "feedbacks": rows}


def exported(url: str, folder: Path, **options: Any) -> tuple[str, str]:
    """The text of the data file and of the list of rejected rows."""
    report = fe.export_feedback(url, days_back=-1, now=NOW, key=KEY, output_dir=folder, **options)
    return Path(report.export_filename).read_text(), Path(report.rejected_filename).read_text()


class TestEqualResults:
    """The way of reading makes no difference to the files."""

    @pytest.mark.slow
    @settings(max_examples=settings().max_examples // 25)
    @given(batch_size=st.integers(1, 30), repeats=st.integers(1, 6))
    def test_batch_size_does_not_change_the_export(
        self, tmp_path_factory: pytest.TempPathFactory, batch_size: int, repeats: int
    ) -> None:
        """Duplicates at the edges of batches are found, and found once."""
        folder = tmp_path_factory.mktemp("exports")
        with opened(f"sqlite:///{folder}/application.db") as database:
            database.fill(**feedback(25, repeats=repeats))
            at_once = exported(database.url, folder)
            assert exported(database.url, folder, batch_size=batch_size) == at_once
            assert exported(f"{database.url}?timeout=5", folder, batch_size=batch_size) == at_once

    @pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 5])
    def test_bulk_export_equals_serial_export(self, postgres_database: str, tmp_path: Path, workers: int) -> None:
        """The same rows in the same order, to the byte; those without a time come last."""
        with contextlib.closing(Filled(postgres_database, 200)) as database:
            serial = exported(database.url, tmp_path)
            assert exported(database.url, tmp_path, bulk=True, workers=workers, batch_size=7) == serial

    @pytest.mark.parametrize("rows", [0, 1, 65])
    def test_row_counts_around_the_batch_size(self, postgres_database: str, rows: int) -> None:
        """The edges of what a batch can hold."""
        with contextlib.closing(Filled(postgres_database, rows)) as database:
            frame = fe.load_feedback(database.url, days_back=-1, now=NOW, batch_size=65)
        assert frame.height == rows


class Filled:
    """A database of the default schema with generated feedback."""

    def __init__(self, url: str, rows: int) -> None:
        from databases import create_schema, fill, make_engine

        self.url = url
        engine = make_engine(url)
        create_schema(engine)
        fill(engine, **feedback(rows))

    def close(self) -> None:
        """Nothing is kept open."""


class TestFailures:
    """A reader that dies, hangs or fails ends the export with one sentence and leaves nothing."""

    def test_killed_reader_is_reported(self, postgres_database: str, tmp_path: Path) -> None:
        """The error is reported, the folder is unchanged, and no process is left."""
        killer = threading.Thread(target=kill_first_reader)
        killer.start()
        with pytest.raises(SourceError, match="the reader process ended early"):
            fe.export_feedback(
                postgres_database,
                query=select(postgres_database, SLOW),
                key=KEY,
                output_dir=tmp_path / "exports",
                now=NOW,
            )
        killer.join()
        assert list((tmp_path / "exports").glob("[!.]*")) == []
        assert readers() == []

    def test_silent_database_times_out(self, postgres_database: str) -> None:
        """It is ended after the timeout of the settings."""
        query = select(postgres_database, SLOW)
        with pytest.raises(SourceError, match=r"returned no row for 0\.3 s"):
            fe.load_feedback(postgres_database, query=query, now=NOW, read_timeout=0.3)
        assert readers() == []

    def test_missing_rows_are_detected(self, postgres_database: str) -> None:
        """A query that fails in the middle gives no partial result that looks complete."""
        failing = "SELECT 1 / (n - 150000) AS x FROM generate_series(1, 200000) AS n"
        with open_connection(postgres_database) as source:
            job = ReaderJob(str(source.connectorx_url), [], [failing], batch_size=1_000)
            with pytest.raises(SourceError, match="divides by zero"), Reader(job, read_timeout=60) as reader:
                assert sum(batch.num_rows for batch in reader.next_stream()) < 200_000

    @pytest.mark.sample("2")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signal_ends_export_while_database_computes(
        self, postgres_database: str, tmp_path: Path, number: signal.Signals
    ) -> None:
        """At once, with the signal's exit code, without files and without a process."""
        query = tmp_path / "slow.sql"
        query.write_text(select(postgres_database, SLOW))
        env = environment({"FEEDBACK_ETL_DATABASE_URL": postgres_database, "FEEDBACK_ETL_KEY": KEY})
        # Under a tracer, a thread of Python 3.11 that is importing when a signal comes never gives way to the main one.
        env.pop("COVERAGE_PROCESS_CONFIG", None)
        options = ["--days", "-1", "--query", str(query), "--output", str(tmp_path / "exports")]
        process = subprocess.Popen([COMMAND, "export", *options], env=env)
        wait_for(
            lambda: fetch(
                postgres_database,
                "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
                f"AND query LIKE '%{SLOW}%'",
            )
        )
        children = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        assert {path.name for path in tmp_path.glob("exports/*")} <= {".feedback_etl"}
        assert children
        assert psutil.wait_procs(children, timeout=5)[1] == []

    def test_job_is_not_an_argument_of_the_process(self, postgres_tcp_url: str) -> None:
        """A password shows in no process list."""
        with open_connection(postgres_tcp_url) as source:
            job = ReaderJob(str(source.connectorx_url), [], ["SELECT pg_sleep(30)::text AS x"], batch_size=1)
            with Reader(job, read_timeout=60):
                wait_for(readers)
                arguments = [" ".join(reader.cmdline()) for reader in readers()]
        assert len(arguments) == 1
        assert arguments[0].endswith("-m feedback_etl.database.reader_process")


class TestKeptReaders:
    """A process that has done its job waits for the next one."""

    KEPT = """
import os, sys, threading
from feedback_etl.database.reader_client import ReaderJob, Reader
job = ReaderJob(sys.argv[1], [], ["SELECT 1 AS x"], batch_size=1)
def work(before=lambda: None, after=lambda: None):
    with Reader(job, read_timeout=60, is_kept=True) as reader:
        before()
        print(sum(batch.num_rows for batch in reader.next_stream()), reader._process.pid, flush=True)
    after()
"""

    def lines(self, script: str, database: Database) -> list[list[str]]:
        """The output of a script that runs jobs: their rows and their process."""
        with open_connection(database.url) as source:
            done = python(self.KEPT + script, str(source.connectorx_url))
        assert done.stderr == ""
        return [line.split() for line in done.stdout.splitlines()]

    def test_kept_reader_runs_the_next_job(self, sqlite_database: Database) -> None:
        """Starting one takes longer than a small job."""
        first, second = self.lines("work()\nwork()", sqlite_database)
        assert first == second

    def test_kept_reader_outlives_the_requesting_thread(self, sqlite_database: Database) -> None:
        """The kernel ends it with the thread that started it, so that thread lives as long as the program."""
        script = """
is_done, may_end = threading.Event(), threading.Event()
thread = threading.Thread(target=work, kwargs={"after": lambda: (is_done.set(), may_end.wait())})
thread.start()
is_done.wait()
work(before=lambda: (may_end.set(), thread.join(), __import__("time").sleep(0.5)))
"""
        of_thread, of_main = self.lines(script, sqlite_database)
        assert of_thread == of_main
        assert of_main[0] == "1"

    def test_kept_reader_is_not_used_by_a_fork(self, sqlite_database: Database) -> None:
        """Both programs would write into its pipe, and read from it."""
        script = """
work()
forked = os.fork()
work()
if forked:
    os.waitpid(forked, 0)
"""
        lines = self.lines(script, sqlite_database)
        assert [one for one, _ in lines] == ["1"] * 3
        assert len({process for _, process in lines}) == 2


class TestPool:
    """Readers of small exports stay for the next one, but not for ever, and not those that used much memory."""

    @pytest.fixture(autouse=True)
    def empty_pool(self) -> Iterator[None]:
        end_idle()
        yield
        end_idle()

    def processes_of(self, database: Database, *, exports: int, batch_size: int = 1_000) -> list[int]:
        """The reader processes that stay after each of some exports of all rows."""
        stay = []
        for _ in range(exports):
            fe.load_feedback(database.url, days_back=-1, now=NOW, batch_size=batch_size)
            stay += [process.pid for process in reader_pool._idle]
        return stay

    def test_small_exports_share_a_reader(self, sqlite_database: Database) -> None:
        sqlite_database.fill(**feedback(5))
        stay = self.processes_of(sqlite_database, exports=3)
        assert len(stay) == 3
        assert len({*stay}) == 1

    def test_reader_of_a_large_export_ends(self, sqlite_database: Database) -> None:
        sqlite_database.fill(**feedback(5))
        assert self.processes_of(sqlite_database, exports=1, batch_size=2) == []

    def test_reader_holds_no_connection_while_idle(self, postgres_database: str) -> None:
        query = select(postgres_database)
        fe.load_feedback(postgres_database, days_back=-1, now=NOW, query=query)
        assert len(reader_pool._idle) == 1
        others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert fetch(postgres_database, others) == []

    def test_surplus_readers_end(self, sqlite_database: Database) -> None:
        with open_connection(sqlite_database.url) as source:
            job = ReaderJob(str(source.connectorx_url), [], ["SELECT 1 AS x"], batch_size=1)
        with contextlib.ExitStack() as stack:
            for _ in range(reader_pool.MAX_IDLE + 1):
                reader = stack.enter_context(Reader(job, read_timeout=60))
                assert sum(batch.num_rows for batch in reader.next_stream()) == 1
        assert len(reader_pool._idle) == reader_pool.MAX_IDLE

    def test_idle_readers_end_after_a_while(self) -> None:
        done = python("""
import time
from feedback_etl.database import reader_pool
reader_pool.IDLE_SECONDS = 0.2
reader_pool.prestart()
[process] = reader_pool._idle
process.wait(timeout=60)
print(len(reader_pool._idle))
""")
        assert (done.stdout, done.stderr) == ("0\n", "")

    def test_reader_that_died_is_replaced(self, sqlite_database: Database) -> None:
        sqlite_database.fill(**feedback(5))
        [first] = self.processes_of(sqlite_database, exports=1)
        [process] = reader_pool._idle
        process.kill()
        process.wait()
        [second] = self.processes_of(sqlite_database, exports=1)
        assert first != second


def kill_first_reader() -> None:
    wait_for(readers)
    time.sleep(1)
    for reader in readers():
        reader.kill()


class TestCallers:
    """It works wherever it is called from."""

    @pytest.mark.slow
    def test_script_without_main_guard(self, sqlite_database: Database) -> None:
        """A child that imported the script again would export again, and again."""
        sqlite_database.fill(**feedback(5))
        Path("script.py").write_text(
            f"import feedback_etl as fe, datetime as dt\n"
            f"now = dt.datetime(2025, 10, 25, 12)\n"
            f"print(fe.load_training({sqlite_database.url!r}, days_back=-1, key={KEY!r}, now=now).height)\n"
        )
        done = subprocess.run(
            [sys.executable, "script.py"], capture_output=True, text=True, env=environment(), check=True
        )
        assert done.stdout == "2\n"

    def test_export_in_a_thread(self, sqlite_database: Database) -> None:
        """Two at once, each with its own reader."""
        sqlite_database.fill(**feedback(5))
        heights: list[int] = []

        def load() -> None:
            heights.append(fe.load_feedback(sqlite_database.url, days_back=-1, now=NOW).height)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heights == [5, 5]

    def test_export_in_a_daemonic_worker(self, sqlite_database: Database) -> None:
        """Such as those of Celery, which may start no process through multiprocessing."""
        sqlite_database.fill(**feedback(5))
        done = python(
            """
import multiprocessing, sys, datetime
def work(url):
    import feedback_etl as fe
    print(fe.load_feedback(url, days_back=-1, now=datetime.datetime(2025, 10, 25, 12)).height, flush=True)
worker = multiprocessing.get_context("fork").Process(target=work, args=(sys.argv[1],), daemon=True)
worker.start()
worker.join()
""",
            sqlite_database.url,
        )
        assert (done.stdout, done.stderr) == ("5\n", "")

    def test_progress_is_reported(self, sqlite_database: Database) -> None:
        """After each batch, with the number of all rows, which are counted first."""
        sqlite_database.fill(**feedback(25))
        calls: list[tuple[int, int]] = []
        fe.load_training(
            sqlite_database.url, days_back=-1, now=NOW, key=KEY, batch_size=10, on_progress=lambda *of: calls.append(of)
        )
        assert calls[-1] == (25, 25)
        assert calls == sorted(calls)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"workers": 0},
            {"workers": 65},
            {"batch_size": 0},
            {"batch_size": 2**32},
            {"batch_size": True},
            {"read_timeout": 0},
        ],
    )
    def test_invalid_batch_options_are_refused(self, sqlite_database: Database, wrong: dict[str, Any]) -> None:
        """With the name and the values allowed."""
        with pytest.raises(UsageError, match=f"^`{next(iter(wrong))}` must be"):
            fe.load_feedback(sqlite_database.url, **wrong)


class TestRanges:
    """A window is divided into disjoint ranges that cover it."""

    @given(
        counts=st.lists(st.integers(1, 50), max_size=20),
        ranges=st.integers(1, 9),
        starts=st.booleans(),
    )
    def test_ranges_cover_the_window(self, counts: list[int], ranges: int, starts: bool) -> None:
        """Each moment of the window is in one of them."""
        bins = [HistogramBin(T0 + timedelta(minutes=place), count) for place, count in enumerate(counts)]
        window = Window(T0 if starts else None, NOW)
        parts, rows = split_histogram(window, Histogram(bins), ranges)
        dated = [part for part in parts if not isinstance(part, UndatedWindow)]
        assert dated[-1].end == NOW
        assert all(before.end == after.start for before, after in itertools.pairwise(dated))
        assert isinstance(parts[-1], UndatedWindow) == (not starts and len(parts) > 1)
        assert dated[0].start == (window.start if starts or len(parts) == 1 else datetime.min)
        assert rows is not None
        assert (len(rows), sum(rows)) == (len(parts), sum(counts))

    @pytest.mark.sample("True")
    @pytest.mark.parametrize("is_sampled", [False, True])
    def test_each_row_is_in_exactly_one_range(
        self, postgres_database: str, monkeypatch: pytest.MonkeyPatch, is_sampled: bool
    ) -> None:
        """Also of a table of which only some pages were sampled, also with rows whose time is unreadable."""
        with opened(postgres_database) as database, database.engine.begin() as connection:
            connection.exec_driver_sql("SET session_replication_role = replica")
            connection.exec_driver_sql(
                "INSERT INTO recommendation_feedbacks (id, user_id, analysis_id, recommendation_id, created_at) SELECT "
                "i, 1, 1, 1, CASE WHEN mod(i, 90) = 0 THEN NULL WHEN mod(i, 91) = 0 THEN '-infinity'::timestamp "
                "WHEN mod(i, 92) = 0 THEN 'infinity' WHEN mod(i, 93) = 0 THEN '0044-03-15 BC' "
                f"ELSE timestamp '{NOW}' - interval '1 minute' * (i / 7) * (i / 7) END FROM generate_series(1, 40000) i"
            )
            connection.exec_driver_sql("ANALYZE recommendation_feedbacks")
        if is_sampled:
            monkeypatch.setattr(ranges, "SAMPLE_ROWS", 3_000)
            monkeypatch.setattr(ranges, "SAMPLE_ROWS_PER_RANGE", 1)
        everything = Window(None, NOW + timedelta(minutes=1))
        with open_connection(postgres_database) as source:
            relation = inspect_source(source)
            for window in (everything, Window(NOW - timedelta(days=20_000), NOW)):
                windows, rows = ranges.plan_ranges(source, relation, window, parallel=8)
                ids = [{row[0] for row in fetch_rows(source, select_feedback(relation, part))} for part in windows]
                whole = {row[0] for row in fetch_rows(source, select_feedback(relation, window))}
                assert set().union(*ids) == whole
                assert {91, 92, 93} <= whole  # in every window
                sizes = [len(part) for part in ids]
                assert sum(sizes) == len(whole) > 30_000
                assert len(windows) >= 7
                assert rows is not None
                assert (rows == sizes) == (not is_sampled)
                assert sum(rows) == pytest.approx(sum(sizes), rel=0.5 if is_sampled else 0)
                assert max(sizes) < 4 * sum(sizes) / len(sizes)

    def test_middle_range_contains_the_median(self) -> None:
        """Not in the middle of the ranges, and never among rows without a time, unless there are no others."""
        first, second = Window(datetime.min, T0), Window(T0, NOW)
        rest = UndatedWindow(None, NOW)
        assert ranges.WindowRanges([first, second, rest], [1, 4_000, 10_000]).middle == second
        assert ranges.WindowRanges([first, rest], [4_000, 0]).middle == first
        assert ranges.WindowRanges([Window(None, NOW)], [0]).middle == ranges.WindowRanges([Window(None, NOW)]).middle

    @given(rows=st.integers(1, 60), batch=st.integers(1, 20), size=st.integers(1, 30))
    def test_count_of_groups_equals_number_of_groups(self, rows: int, batch: int, size: int) -> None:
        """The number of parts is known in advance."""
        batches = (frame for frame in pl.DataFrame({"n": range(rows)}).iter_slices(batch))
        groups = [sum(frame.height for frame in group) for group in group_batches(batches, size)]
        assert (len(groups), sum(groups)) == (count_batch_groups(rows, batch, size), rows)

    def test_ranges_of_a_query_are_not_sampled(self, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A query has no pages to sample."""
        ids = {"feedback_id": "n", "created_at": "timestamp '2025-10-25 10:00:00' - n * interval '1 ms'"}
        query = select(postgres_database, "FROM generate_series(1, 100000) AS n", **ids)
        monkeypatch.setattr(ranges, "SAMPLE_ROWS", 1_000)
        with open_connection(postgres_database) as source:
            relation = inspect_source(source, query=query)
            found = ranges.plan_ranges(source, relation, Window(None, NOW), parallel=3, min_rows=40_000)
            assert (len(found.windows), sum(found.rows or [])) == (3, 100_000)

    def test_large_window_is_split_without_parallel_readers(
        self, postgres_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the planner expects more rows than a range may have, several ranges are read, without a loss."""
        ids = {"feedback_id": "n", "created_at": "timestamp '2025-10-25 10:00:00' - n * interval '1 ms'"}
        query = select(postgres_database, "FROM generate_series(1, 100000) AS n", **ids)
        monkeypatch.setattr(ranges, "MAX_RANGE_ROWS", 10_000)
        with open_connection(postgres_database) as source:
            relation = inspect_source(source, query=query)
            found = ranges.plan_ranges(source, relation, Window(None, NOW))
            assert len(found.windows) == 11  # one for rows without a time
        frame = fe.load_feedback(postgres_database, query=query, days_back=-1, now=NOW)
        assert frame["feedback_id"].to_list() == list(range(100_000, 0, -1))


@pytest.mark.slow
def test_memory_depends_on_batch_size_not_on_rows(postgres_database: str, tmp_path: Path) -> None:
    """Of hundreds of thousands of rows in small batches, the parent holds a few at a time."""
    ids = {"feedback_id": "n", "analysis_id": "n", "created_at": "timestamp '2025-10-25' - n * interval '1 ms'"}
    (tmp_path / "many.sql").write_text(select(postgres_database, "FROM generate_series(1, :rows) AS n", **ids))
    done = python(
        f"""
import resource, sys, datetime, pathlib
import feedback_etl as fe
def peak(rows):
    query = pathlib.Path("many.sql").read_text().replace(":rows", str(rows))
    fe.export_feedback(sys.argv[1], query=query, now=datetime.datetime(2025, 10, 25, 12), key={KEY!r},
                       output_dir="exports", batch_size=5_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = peak(100_000)
print(peak(600_000) / small)
""",
        postgres_database,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 1.15
