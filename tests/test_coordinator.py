"""The coordinator's own work: ten thousand tasks take no more memory than ten, except in the manifest."""

import gc
import hashlib
import itertools
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import polars as pl
import pseudonym_keys
import pytest
import sqlalchemy as sa
from clusters import Watched

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.partitioning import FeedbackPartitions
from feedback_etl.database.read import OpenSource, ReadRequest
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.watermark import Watermark
from feedback_etl.database.window import Window
from feedback_etl.errors import ExportFileError
from feedback_etl.options.export import ExportOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.batch_results import BatchCounts
from feedback_etl.pipeline.partitioned import export_partitions
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.task_retries import MAX_ATTEMPTS, MAX_TASKS_IN_FLIGHT, run_tasks
from feedback_etl.pipeline.tasks import PartTask, ReleaseTask, TaskResult
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import ClassCounter
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import parse_part_number, part_path, state_part_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.storage.local import LocalStorage

NOW = datetime(2025, 10, 25, 12)
KEY = Key(pseudonym_keys.KEY)
NO_EXPORT = cast("Any", None)


@dataclass
class Idle:
    """Work that does nothing, and gives what a real task gives."""

    classes: bytes

    def __call__(self, task: PartTask) -> TaskResult:
        """Do nothing."""
        return TaskResult(
            task.number, [], BatchCounts({"total_feedback_records": 10, "exported_records": 10}, {}, self.classes)
        )


class Ahead(Executor):
    """An executor that records how many tasks it has at most."""

    def __init__(self) -> None:
        self._threads, self._lock = ThreadPoolExecutor(2), threading.Lock()
        self.now = self.most = 0

    def submit(self, work: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        """Take a task."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        future = self._threads.submit(work, *arguments)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self.now -= 1


def classes_of(count: int) -> bytes:
    """The counts of a task with so many classes."""
    people = ClassCounter(CLASSIC_SCHEMA.quasi_identifiers)
    numbers = pl.Series([str(number) for number in range(count)])
    people.add(pl.DataFrame(dict.fromkeys(CLASSIC_SCHEMA.quasi_identifiers, numbers)), numbers)
    return people.to_digests(KEY)


CLASSES = classes_of(10)


def tasks(count: int) -> Iterator[PartTask]:
    """Tasks with a statement each, created on demand."""
    return (PartTask(NO_EXPORT, number, f"SELECT {number}" + " " * 2_000) for number in range(count))


def peak_of(count: int) -> int:
    """The peak memory of the coordinator for this number of tasks, in bytes."""
    work, processor = (
        Idle(classes_of(100)),
        BatchProcessor(TransformOptions.from_options(ExportOptions(), datetime(2025, 10, 25), KEY)),
    )
    tracemalloc.start()
    try:
        for made in run_tasks(ThreadPoolExecutor(2), work, tasks(count)):
            assert made.counts is not None
            processor.merge_counts(made.counts)
        assert processor.rows == 10 * count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


@pytest.mark.slow
def test_ten_thousand_tasks_take_no_more_memory_than_a_thousand() -> None:
    """Neither tasks, with their statements of 2,000 characters, nor their results are kept."""
    peak_of(100)  # what is imported and cached with the first
    few, many = peak_of(1_000), peak_of(10_000)
    assert (many - few) / 9_000 < 100


def test_tasks_are_sent_a_few_at_a_time_and_each_once() -> None:
    """Not more than the database has connections for; in any order."""
    for at_once in (1, 3, MAX_TASKS_IN_FLIGHT):
        executor = Ahead()
        made = list(run_tasks(executor, Idle(b""), tasks(1_000), at_once=at_once))
        assert sorted(result.number for result in made) == list(range(1_000))
        assert executor.most <= at_once


def test_an_attempt_is_another_task_and_the_last_one_counts() -> None:
    """Engines that know a task by its content do not answer with the old failure."""
    attempts: Counter[int] = Counter()

    def work(task: PartTask) -> TaskResult:
        attempts[task.number] += 1
        assert task.attempt == attempts[task.number]
        if task.number % 3 == 0 and task.attempt < MAX_ATTEMPTS:
            raise ConnectionError
        return TaskResult(task.number, [], None)

    made = list(run_tasks(ThreadPoolExecutor(2), work, tasks(30), at_once=4))
    assert sorted(result.number for result in made) == list(range(30))
    assert attempts == {number: MAX_ATTEMPTS if number % 3 == 0 else 1 for number in range(30)}


def test_what_fails_leaves_no_task_at_work() -> None:
    """Pending tasks are cancelled, running ones are awaited."""
    running = Counter[str]()

    def work(task: PartTask) -> TaskResult:
        running["begun"] += 1
        try:
            if task.number == 5:
                raise MemoryError
            return TaskResult(task.number, [], None)
        finally:
            running["ended"] += 1

    with pytest.raises(ExportFileError, match="Part 5 was lost 3 times"):
        list(run_tasks(ThreadPoolExecutor(2), work, tasks(1_000), at_once=8))
    assert running["begun"] == running["ended"] < 50


def divided(count: int) -> FeedbackPartitions:
    """A window of so many minutes, a range each."""
    minutes = [NOW - timedelta(minutes=count - number) for number in range(count + 1)]
    ranges = [Window(*ends) for ends in itertools.pairwise(minutes)]
    rows = sa.table("feedback")
    opened = OpenSource(
        DatabaseConnection("postgresql", cast(sa.Connection, None), None),
        SourceRelation("postgresql", {"created_at": sa.column("created_at")}, rows, rows),
    )
    return FeedbackPartitions(
        opened,
        Window(minutes[0], NOW),
        0,
        Watermark(None, []),
        "",
        ranges,
        lambda window: f"SELECT {window}" + " " * 2_000,
        [],
        0,
    )


def written(task: PartTask | ReleaseTask) -> TaskResult:
    """A small part, and with k first one that waits, as a worker writes it; without waiting for the disk."""
    export, number = task.export, task.number
    waits = export.transform_options.k_policy.k is not None and isinstance(task, PartTask)
    name = state_part_path(export.stem, "arrow", number) if waits else part_path(export.stem, number, ".csv")
    content = f"{number}\n".encode()
    Path(export.destination, name).write_bytes(content)
    file = DataFile(name, "pairs", 1, len(content), hashlib.sha256(content).hexdigest())
    counts = (
        BatchCounts({"total_feedback_records": 1, "exported_records": 1}, {}, CLASSES)
        if isinstance(task, PartTask)
        else None
    )
    return TaskResult(number, [] if waits else [file], counts, file if waits else None)


def peak_of_export(folder: Path, count: int, k: int | None) -> int:
    """The peak memory of the coordinator for an export of this number of parts, in bytes."""
    options = ExportOptions.from_keywords(k=k)
    transform_options = TransformOptions.from_options(options, NOW, KEY)
    selection = ReadRequest("", Window(None, NOW), ReadOptions())
    executor = Watched(lambda _, task: written(task), is_remembered=False)
    request = ExportRequest(
        LocalStorage(folder), selection, transform_options, options.output, time.perf_counter(), executor
    )
    gc.collect()
    gc.freeze()  # the more objects of other tests there are, the later Python removes cycles
    tracemalloc.start()
    try:
        report = export_partitions(request, divided(count), MAX_TASKS_IN_FLIGHT)
        assert report.exported_records == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("k", [None, 1])
def test_an_export_of_many_parts_takes_little_memory_for_each(tmp_path: Path, k: int | None) -> None:
    """From the first task to manifest and audit record, in a folder: the entries of a part, several times over."""
    peak_of_export(tmp_path / "first", 100, k)
    few, many = (peak_of_export(tmp_path / str(count), count, k) for count in (1_000, 4_000))
    (manifest,) = list_manifests(tmp_path / "4000")
    assert [parse_part_number(file.path) for file in manifest.files] == [*range(4_000)]
    (committed,) = (record for record in AuditLog(tmp_path / "4000").records() if record["event"] == "committed")
    assert len(committed["files"]) == 4_000
    assert (many - few) / 3_000 < 5_000
