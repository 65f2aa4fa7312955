"""An export in parts: divided by the head, made by workers, published by the head.

The head holds one snapshot of the database that all workers read, counts people over all parts before any row of a
small class is let through, and publishes the manifest last.
"""

import io
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from feedback_etl import __version__
from feedback_etl.database.partitioning import FeedbackPartitions, NotPartitionableError, read_partitions
from feedback_etl.database.ranges import group_batches
from feedback_etl.database.read import FeedbackStream, read
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.idempotency import request_details
from feedback_etl.exports.layout import REJECTED_FOLDER, parse_part_number, small_classes_path
from feedback_etl.exports.manifest import DataFile
from feedback_etl.exports.manifest_details import ManifestDetails
from feedback_etl.exports.object_transaction import ObjectExportTransaction
from feedback_etl.exports.partitioned_transaction import PartitionedExportTransaction
from feedback_etl.pipeline.batch_processor import Run
from feedback_etl.pipeline.keys import available_keys
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.scheduler import TASKS_AT_ONCE, carried_out
from feedback_etl.pipeline.tasks import Export, Made, PartTask, Task, ThinTask
from feedback_etl.pipeline.worker import Secrets, let_through, make_part, run_of, work, work_with
from feedback_etl.pipeline.write import SLOW_SECONDS
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import LocalStorage
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.storage.posix import write_private_file

logger = logging.getLogger(__name__)


def export_in_parts(request: ExportRequest) -> ExportReport:
    """Export all rows of the window in parts, by the request's executor or by threads of this process.

    Raises:
        UsageError: A worker has not the key, the database or the version of the head.
        SourceError: The database cannot be reached, or stopped a query, also when it was sent again.
        ValidationError: Too many rows are rejected, or of small classes; nothing was published.
        ExportFileError: The place cannot be used, or workers were lost; nothing was published.
        FolderLockedError: Others use the folder for too long; nothing was published.
    """
    parts, ahead = Parts(request), _ahead(request.executor, request.selection.batch_options.workers)
    try:
        return read_partitions(request.selection, lambda division: parts.of_division(division, ahead), at_once=ahead)
    except NotPartitionableError:
        logger.info("this database is read in one piece, here")
    return read(request.selection, parts.of_one_piece)


@dataclass(frozen=True)
class Parts:
    """The parts of a selection, made and put together."""

    request: ExportRequest

    def of_division(self, division: FeedbackPartitions, ahead: int) -> ExportReport:
        """Have the ranges of a division made by the executor, or by threads of this process, so many sent ahead."""
        key, executor = self.request.rules.key, self.request.executor
        with self._begun(division.consent) as export, _at_hand(executor, ahead) as workers:
            do = work if executor is not None else partial(work_with, Secrets(division.url, key))

            def carry_out(tasks: Iterable[Task]) -> Generator[Made, None, None]:
                return carried_out(workers, do, tasks, at_once=ahead)

            common = self._common(export, tuple(division.prepare))
            queries = map(division.query_of, division.ranges)
            parts = carry_out(PartTask(common, number, query) for number, query in enumerate(queries))
            report = self._made(export, common, parts, carry_out, division, division.total)
        if time.perf_counter() - self.request.started > SLOW_SECONDS:
            report.advice = division.suggest_index()
        return report

    def of_one_piece(self, found: FeedbackStream) -> ExportReport:
        """Make the parts of what cannot be divided one after the other, in this process."""
        place, rules = self.request.storage, self.request.rules
        with self._begun(found.consent) as export:
            common = self._common(export, ())
            run = run_of(common, rules)
            parts = (
                make_part(place, rules, PartTask(common, number, ""), frames, run)
                for number, frames in enumerate(group_batches(found.batches))
            )

            def carry_out(tasks: Iterable[ThinTask]) -> Generator[Made, None, None]:
                return (let_through(place, rules, task) for task in tasks)

            return self._made(export, common, parts, carry_out, found)

    def _begun(self, consent: tuple[str, ...]) -> PartitionedExportTransaction | ObjectExportTransaction:
        storage, rules, output = self.request.storage, self.request.rules, self.request.output
        plan = request_details(output.idempotency_key)
        if isinstance(storage, ObjectStorage):
            return ObjectExportTransaction(
                storage,
                rules.now,
                key=rules.key,
                allow_new_key=output.allow_new_key,
                known_keys=available_keys,
                consent=consent,
                plan=plan,
            )
        return PartitionedExportTransaction(
            storage.path,
            rules.now,
            key=rules.key,
            allow_new_key=output.allow_new_key,
            known_keys=available_keys,
            consent=consent,
            plan=plan,
            lock_timeout=self.request.lock_timeout,
        )

    def _common(
        self, export: PartitionedExportTransaction | ObjectExportTransaction, prepare: tuple[str, ...]
    ) -> Export:
        request, selection = self.request, self.request.selection
        return Export(
            place=absolute(request.storage),
            stem=export.stem,
            form=request.output.file_format,
            rules=replace(request.rules, key=None),
            version=__version__,
            key_id=request.rules.key.id if request.rules.key else None,
            erasures=export.erasures,
            prepare=prepare,
            batch_size=selection.batch_options.batch_size,
            connect_timeout=selection.connect_timeout,
            read_timeout=selection.batch_options.read_timeout,
        )

    def _made(
        self,
        export: PartitionedExportTransaction | ObjectExportTransaction,
        common: Export,
        parts: Generator[Made, None, None],
        let_through: Callable[[Iterable[ThinTask]], Generator[Made, None, None]],
        found: FeedbackPartitions | FeedbackStream,
        total: int = 0,
    ) -> ExportReport:
        """Take the parts, judge what came of them, and publish them; with k, when their rows were let through."""
        rules, window = self.request.rules, self.request.selection.window
        run, files, waiting = Run(rules), list[DataFile](), list[DataFile]()
        with closing(parts):  # when what is told of fails, or is interrupted, no further task is begun
            for made in parts:
                files += made.files
                waiting += [made.waiting] if made.waiting else []
                if made.tally is not None:
                    run.add(made.tally)
                if self.request.selection.on_progress:
                    self.request.selection.on_progress(run.rows, max(run.rows, total))
        run.judge(window, found.excluded)
        small = run.small_classes()
        if rules.anonymity.k is not None:
            self._put_small_classes(export.stem, small)
            thinned = let_through(ThinTask(common, parse_part_number(file.path), file) for file in waiting)
            with closing(thinned):
                for made in thinned:
                    files += made.files
        report = run.report(window, found.excluded)
        _require_all(files, report)
        facts = ManifestDetails(
            "full", window, self.request.settings, report.to_statistics(), found.dialect, extra=rules.extra
        )
        export.publish(sorted(files, key=by_number), facts._replace(risk=report.risk))
        report.audit_head = export.audit_head
        where = str(self.request.storage)
        kinds = {file.kind for file in files}
        report.export_filename = f"{where}/{export.stem}" if "pairs" in kinds else ""
        report.rejected_filename = f"{where}/{REJECTED_FOLDER}/{export.stem}" if "rejected" in kinds else ""
        return report

    def _put_small_classes(self, stem: str, small: pl.DataFrame) -> None:
        """Workers look there which rows to leave out."""
        place, name = self.request.storage, small_classes_path(stem)
        with place.draft(name) as draft:
            content = io.BytesIO()
            small.write_ipc(content)
            write_private_file(draft, content.getvalue())
            place.create(name, draft)


def by_number(file: DataFile) -> tuple[str, int]:
    """The order of parts; names do not sort so: `part-100000` comes before `part-99999`."""
    return file.kind, parse_part_number(file.path)


def _require_all(files: Iterable[DataFile], report: ExportReport) -> None:
    """Make sure that the parts hold the rows that were counted: whatever was lost on the way, no export lacks it."""
    held = Counter[str]()
    for file in files:
        held[file.kind] += file.rows
    wanted = {"pairs": report.exported_records, "rejected": report.errors}
    for kind, rows in wanted.items():
        if held[kind] != rows:
            raise ExportFileError(
                f"The parts hold {held[kind]:,} rows ({kind}), and {rows:,} were counted: nothing was published. "
                "Run again."
            )


def absolute(place: LocalStorage | ObjectStorage) -> str:
    """Its name for workers, whose working directory is another."""
    return str(place.path.absolute()) if isinstance(place, LocalStorage) else str(place)


def _ahead(executor: Executor | None, workers: int | None) -> int:
    """How many tasks are sent ahead."""
    return workers or (min(os.cpu_count() or 1, 4) if executor is None else TASKS_AT_ONCE)


@contextmanager
def _at_hand(executor: Executor | None, ahead: int) -> Iterator[Executor]:
    """Who makes the parts."""
    if executor is not None:
        yield executor
        return
    with ThreadPoolExecutor(ahead, "feedback_etl part") as threads:
        yield threads
