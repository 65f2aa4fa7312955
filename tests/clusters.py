"""A PostgreSQL that many workers read, and the executors that give them work."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
import sqlalchemy as sa
from databases import create_schema
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.demo.data import generate_tables
from feedback_etl.results import ExportReport

NOW = datetime(2025, 10, 25, 12)
ROWS = 8_000
SMALL_TASK = 400
"""What takes the place of `MIN_ROWS_PER_TASK`, so that a few thousand rows are several tasks."""


def fill_with_sample(url: str, rows: int = ROWS) -> None:
    """The default schema, with sample data."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    create_schema(engine)
    where = sa.make_url(url)
    socket = {name: str(value) for name, value in where.query.items()}
    place: dict[str, Any] = {"dbname": where.database, "user": where.username, "password": where.password} | socket
    place |= {"host": where.host, "port": where.port} if where.host else {}
    with psycopg.connect(**place) as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for table, chunk in generate_tables(rows, seed=7, now=NOW):
            with cursor.copy(f"COPY {table.name} FROM STDIN") as copy:
                for row in chunk:
                    copy.write_row(row)
        cursor.execute("ANALYZE")


def exported(url: str, folder: Path | str, **options: Any) -> ExportReport:
    """An export of everything."""
    usual: dict[str, Any] = {"days_back": -1, "now": NOW, "key": KEY, "output_dir": folder, "workers": 3}
    return fe.export_feedback(url, **usual | options)


def frame_of(report: ExportReport) -> pl.DataFrame:
    """The rows of an export, a file or parts, as text."""
    path = Path(report.export_filename)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    read: Callable[..., pl.DataFrame] = pl.read_parquet if files[0].suffix == ".parquet" else pl.read_csv
    options = {} if files[0].suffix == ".parquet" else {"infer_schema": False}
    return pl.concat([read(file, **options) for file in files]).cast(pl.String)


def rejected_of(report: ExportReport) -> pl.DataFrame:
    """The list of the rejected rows of an export, a file or parts."""
    path = Path(report.rejected_filename)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return pl.concat([pl.read_csv(file, infer_schema=False) for file in files])


def environment(url: str) -> dict[str, str]:
    """What a worker has to know by itself."""
    return {"FEEDBACK_ETL_DATABASE_URL": url, "FEEDBACK_ETL_KEY": KEY}


@contextmanager
def dask(workers: int = 2, *, processes: bool = True) -> Iterator[tuple[Executor, Any]]:
    """A Dask cluster of worker processes on this machine, and its client; they inherit the environment."""
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "processes": processes}
    options |= dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")  # not on all interfaces
    if processes:
        options["host"] = "127.0.0.1"
    with (
        LocalCluster(silence_logs=False, **options) as cluster,  # type: ignore[no-untyped-call]
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client.get_executor(), client


@contextmanager
def dask_executor() -> Iterator[Executor]:
    """That of a Dask cluster."""
    with dask() as (executor, _):
        yield executor


@contextmanager
def dask_threads_executor() -> Iterator[Executor]:
    """That of a Dask cluster whose scheduler and workers are threads of this process, which start at once."""
    with dask(processes=False) as (executor, _):
        yield executor


@contextmanager
def loky_executor() -> Iterator[Executor]:
    """loky's, whose workers end with the context."""
    import loky

    executor = loky.get_reusable_executor(max_workers=2, env=dict(os.environ))
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextmanager
def process_executor() -> Iterator[Executor]:
    """That of the standard library, in processes."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


EXECUTORS: dict[str, Callable[[], AbstractContextManager[Executor]]] = {
    "threads": lambda: ThreadPoolExecutor(2),
    "processes": process_executor,
    "loky": loky_executor,
    "dask": dask_executor,
    "dask in threads": dask_threads_executor,
}
IN_PROCESSES = ("processes", "loky", "dask")
BY_TIER = [pytest.param(kind, marks=pytest.mark.slow) if kind in IN_PROCESSES else kind for kind in EXECUTORS]
"""The executors as parameters: those whose workers are processes are slow."""


class Watched(Executor):
    """An executor of threads that keeps what it is given, and may do something before or instead of it."""

    def __init__(
        self, change: Callable[[Any, Any], Any] = lambda work, task: work(task), *, is_remembered: bool = True
    ) -> None:
        self._threads, self._change, self._is_remembered = ThreadPoolExecutor(2), change, is_remembered
        self.tasks: list[Any] = []
        self.made: list[Any] = []

    def submit(self, work: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        """Take a task."""
        (task,) = arguments
        self.tasks += [task] if self._is_remembered else []

        def do() -> Any:
            made = self._change(work, task)
            self.made += [made] if self._is_remembered else []
            return made

        return self._threads.submit(do)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


class WorkerKiller:
    """A callback of progress that kills the first busy Dask worker (SIGKILL)."""

    def __init__(self, client: Any) -> None:
        self._client, self.killed = client, list[int]()

    def __call__(self, *_: int) -> None:
        busy = [address for address, tasks in self._client.processing().items() if tasks]
        if busy and not self.killed:
            self.killed.append(next(iter(self._client.run(os.getpid, workers=busy).values())))
            os.kill(self.killed[0], signal.SIGKILL)


def kill_coordinator(url: str, output_dir: str, options: str = "") -> None:
    """Export in a process with these further options, and kill it (SIGKILL) once parts have been written."""
    code = (
        "import time, datetime, feedback_etl as fe\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def show(rows, total):\n"
        "    print(rows, flush=True)\n"
        "    time.sleep(60)\n"
        f"fe.export_feedback({url!r}, days_back=-1, now={NOW!r}, key={KEY!r},"
        f" output_dir={output_dir!r}, workers=5, on_progress=show, {options})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as coordinator:
        assert coordinator.stdout
        assert coordinator.stdout.readline()
        coordinator.kill()
