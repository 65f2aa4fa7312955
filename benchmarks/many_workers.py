"""What we claim about exports by many workers, measured; `--small` to see that it works.

The same rows are exported by `--bulk` and by a Dask cluster of two worker processes on this machine, in turn, each as a
command from start to end. Then come tasks that do nothing, and tasks whose range is empty: what a task costs by itself.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import database
import sqlalchemy as sa
from watchdog import running_server

import feedback_etl as fe
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.database.partitioning import open_partitions
from feedback_etl.database.read import ReadRequest
from feedback_etl.database.window import Window
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.batch_results import BatchCounts
from feedback_etl.pipeline.task_retries import run_tasks
from feedback_etl.pipeline.tasks import PartTask, TaskContext, TaskResult
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.pipeline.worker import run_task
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests

NOW = datetime(2025, 10, 25, 12)
BASE_ROWS = 2_000_000
KEY = "b59c1f5d0af8a3b3e0c64dd1f6de0572"  # published, so of no use elsewhere
PAGE = Path(__file__).with_name("MANY_WORKERS.md")
WORKERS = 2
AHEAD = ["--workers", str(2 * WORKERS)]
"""Each has a next task at hand, and ranges are no smaller than 500,000 rows."""

BULK = "`feedback-etl export --bulk`"
DASK = "`feedback-etl export --executor dask=...`, two workers"


class Results(NamedTuple):
    """Everything that was measured.

    Attributes:
        rows: Rows of feedback.
        seconds: Of each round, by contender.
        idle_ms: Of the coordinator and the engine, for a task that does nothing.
        idle_tasks: How many of them.
        empty_ms: Of a worker, for a task whose range is empty.
        planned: What one worker needs for a range.
    """

    rows: int
    seconds: dict[str, list[float]]
    idle_ms: float
    idle_tasks: int
    empty_ms: float
    planned: fe.Plan


@contextmanager
def cluster() -> Iterator[Any]:
    """Two worker processes of Dask on this machine."""
    from distributed import LocalCluster

    options: dict[str, Any] = {"n_workers": WORKERS, "threads_per_worker": 1}
    options |= dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")  # not on all interfaces
    with LocalCluster(host="127.0.0.1", **options) as made:  # type: ignore[no-untyped-call]
        yield made


def nothing(task: PartTask) -> TaskResult:
    """Return the result of a task that does nothing."""
    return TaskResult(task.number, [], BatchCounts({}, {}, b""))


def idle_ms(executor: Any, tasks: int) -> float:
    """Milliseconds of a task that does nothing, over many."""
    none: Any = None
    sent = (PartTask(none, number, "SELECT 1") for number in range(tasks))
    list(run_tasks(executor, nothing, [PartTask(none, 0, "")]))
    started = time.perf_counter()
    assert sum(1 for _ in run_tasks(executor, nothing, sent)) == tasks
    return (time.perf_counter() - started) / tasks * 1000


def empty_ms(url: str, folder: Path, tasks: int) -> float:
    """Milliseconds of a task of a worker whose range is empty, over many, one after the other."""

    request = ReadRequest(url, Window(datetime(2001, 1, 1), NOW), ReadOptions())
    with (
        open_partitions(request) as partitions,
        ExportTransaction(folder, NOW, TransactionOptions(key=Key(KEY))) as export,
    ):
        transform_options = TransformOptions.from_options(ExportOptions(), NOW, None)
        common = TaskContext(
            str(folder), export.stem, FileFormat(), transform_options, fe.__version__, Key(KEY).id, frozenset(),
            tuple(partitions.prepare), ReadOptions.batch_size, 2.0, 600.0,
        )  # fmt: skip
        query = partitions.query_of(Window(datetime(2001, 1, 1), datetime(2001, 1, 2)))
        run_task(PartTask(common, 0, query))  # libraries, the cached connection URL, the reader process
        started = time.perf_counter()
        for number in range(tasks):
            run_task(PartTask(common, number, query))
        return (time.perf_counter() - started) / tasks * 1000


def timed(arguments: list[str], expected: int) -> float:
    """Seconds of an export as a command, from start to end."""
    with tempfile.TemporaryDirectory(prefix="feedback_etl_bench_") as folder:
        command = [sys.executable, "-m", "feedback_etl", "export", "--days", "-1", "--quiet", "--output", folder]
        os.sync()
        started = time.perf_counter()
        subprocess.run([*command, *arguments], check=True)
        seconds = time.perf_counter() - started
        (manifest,) = list_manifests(Path(folder))
        if manifest.rows != expected:
            sys.exit(f"error: {manifest.rows:,} rows were exported, {expected:,} expected")
    return seconds


def measured(url: sa.URL, rows: int, rounds: int, tasks: int, *, warm_up: bool) -> Results:
    """All of it, after a round that fills the caches where `warm_up` asks for it."""
    text = url.render_as_string(hide_password=False)
    os.environ |= {"FEEDBACK_ETL_DATABASE_URL": text, "FEEDBACK_ETL_KEY": KEY}
    with tempfile.TemporaryDirectory(prefix="feedback_etl_bench_") as folder, cluster() as dask:
        expected = fe.export_feedback(text, days_back=-1, key=KEY, output_dir=Path(folder) / "first").exported_records
        contenders: dict[str, Callable[[], float]] = {
            BULK: partial(timed, ["--bulk"], expected),
            DASK: partial(timed, ["--executor", f"dask={dask.scheduler_address}", *AHEAD], expected),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(0 if warm_up else 1, rounds + 1):  # in the first the workers import their libraries
            for name, contender in contenders.items():
                took = contender()
                print(f"round {number}  {took:8.2f} s  {name}", flush=True)
                seconds[name] += [took] if number else []
        idle = idle_ms(dask.get_client().get_executor(pure=False), tasks)
        empty = empty_ms(text, Path(folder) / "empty", max(tasks // 100, 5))
        return Results(rows, seconds, idle, tasks, empty, fe.plan(text, days_back=-1, workers=WORKERS, now=NOW))


def page(results: Results, rounds: int) -> Iterator[str]:
    """Return the results as Markdown; notes written by hand stay."""
    from machine import description
    from results import kept_notes

    ratio = median(a / b for a, b in zip(results.seconds[DASK], results.seconds[BULK], strict=True))
    targets = [
        ("two Dask workers against `--bulk`", ratio, 1.15, "x"),
        (
            f"the coordinator and the engine, a task of {results.idle_tasks:,} that do nothing",
            results.idle_ms,
            50,
            "ms",
        ),
        ("a worker, a task whose range is empty", results.empty_ms, 50, "ms"),
    ]
    yield "# What the benchmarks of many workers measured\n"
    yield f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {results.rows:,} rows, medians of {rounds} rounds,"
    yield "ratios within a round.\n"
    yield "| machine | |\n| --- | --- |"
    yield from (f"| {what} | {which} |" for what, which in description("18"))
    yield "\n| target | measured | wanted | |\n| --- | --- | --- | --- |"
    for what, value, bound, unit in targets:
        yield f"| {what} | {value:.3g} {unit} | <= {bound} {unit} | {'met' if value <= bound else '**missed**'} |"
    yield "\n| | seconds | from | to |\n| --- | --- | --- | --- |"
    for name, found in results.seconds.items():
        yield f"| {name} | {median(found):.2f} | {min(found):.2f} | {max(found):.2f} |"
    plan = results.planned
    size = plan.measured_bytes / plan.measured_rows
    yield f"\nOne worker, by `feedback-etl plan`: {plan.measured_rows:,} rows in {plan.measured_seconds:.2f} s,"
    yield f"which is {plan.rows_a_second:,.0f} rows a second and {size:.0f} bytes of CSV a row."
    yield f"\n## Notes\n\n<!-- notes -->\n{kept_notes(PAGE)}<!-- /notes -->"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=10_000, help="that do nothing")
    parser.add_argument("--small", action="store_true", help="few rows, one round, and the page is printed")
    options = parser.parse_args()
    rows, rounds, tasks = (20_000, 1, 200) if options.small else (options.rows, options.rounds, options.tasks)
    with running_server("postgres") as server:
        base = min(rows, BASE_ROWS)
        url = database.create(sa.make_url(server), "feedback", base, NOW)
        if rows > base:
            database.grow(url, base, rows)
        text = "\n".join(page(measured(url, rows, rounds, tasks, warm_up=not options.small), rounds)) + "\n"
    if options.small:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
