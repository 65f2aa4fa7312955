"""Run the tasks of an export, with the database and the key of the worker's own environment.

Executors receive `run_task`. It may run in any process on any machine that has this package, and again after a worker
was killed (`task_retries`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import polars as pl

from feedback_etl import __version__
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.data_files.seen_rows import SeenRows, read_seen_rows
from feedback_etl.database.batches import read_job
from feedback_etl.database.connect import open_connection
from feedback_etl.database.cursor import with_cursor
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.reader_client import ReaderJob
from feedback_etl.errors import KeyUnusableError, SourceError, UsageError
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.batch_processor import BatchProcessor
from feedback_etl.pipeline.batch_results import ProcessedBatch
from feedback_etl.pipeline.batches import process_batches
from feedback_etl.pipeline.exchange_files import open_spooled_part
from feedback_etl.pipeline.keys import list_available_keys
from feedback_etl.pipeline.release import release_pairs
from feedback_etl.pipeline.tasks import PartTask, ReleaseTask, Task, TaskContext, TaskResult
from feedback_etl.pipeline.transform_options import TransformOptions, build_parquet_metadata
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.series_rows import add_people
from feedback_etl.records.layout import (
    part_path,
    rejected_part_path,
    small_classes_path,
    state_part_path,
)
from feedback_etl.records.legacy_key_ids import bind_keys
from feedback_etl.records.manifest import DataFile
from feedback_etl.records.tombstones import TombstoneFile, Tombstones
from feedback_etl.settings.keys import find_active_key
from feedback_etl.settings.model import Settings, load_settings
from feedback_etl.storage.base import STATE_FOLDER, Storage
from feedback_etl.storage.location import open_storage


@dataclass(frozen=True)
class Secrets:
    """Values that tasks do not contain.

    Attributes:
        url: URL of the database for ConnectorX.
        key: Pseudonym key; None for unkeyed exports.
    """

    url: str = field(repr=False)
    key: Key | None


def run_task(task: Task) -> TaskResult:
    """Run a task with the database and the key of this process's environment.

    Raises:
        UsageError: The environment has no database, another key, or another version of this package.
        SourceError: The database cannot be reached, or is not the coordinator's.
        ValidationError: Rows do not satisfy the schema.
        ExportFileError: The part cannot be written.
    """
    try:
        return run_task_with(_find_secrets(task.export), task)
    except UsageError as error:  # the coordinator's own environment is complete
        kind, message = type(error), f"On a worker: {error}"
    raise kind(message)


def _find_secrets(export: TaskContext) -> Secrets:
    """Find the database and the key of an export in this process's environment."""
    if export.version != __version__:
        raise UsageError(
            f"This worker has feedback_etl {__version__}, the coordinator {export.version}: install the same version."
        )
    storage = _open_storage(export.destination)
    if storage.local_path() and not storage.names(STATE_FOLDER):
        raise UsageError(
            f"This worker does not see {export.destination}: let workers and coordinator share the folder, or export "
            "to an object store."
        )
    settings = load_settings()
    key = _find_key(export.key_id, settings) if export.key_id else None
    return Secrets(_get_connectorx_url(settings.require_database_url(), export.connect_timeout), key)


def _find_key(key_id: str, settings: Settings) -> Key:
    """Return the active key under the id by which the export names it."""
    key = find_active_key(settings)
    form = next((form for form in key.list_forms() if form.id == key_id), None)
    if form is None:
        raise KeyUnusableError(
            f"This worker has the key {key.id}, the export uses the key {key_id}: set FEEDBACK_ETL_KEY_FILE (or "
            "FEEDBACK_ETL_KEY) to the same key on all workers."
        )
    return form


@lru_cache(maxsize=4)
def _get_connectorx_url(database: str, connect_timeout: float) -> str:
    """Return the URL for ConnectorX, after one connection per process, which detects a wrong URL early."""
    with open_connection(database, ReadOptions(connect_timeout=connect_timeout)) as source:
        if source.connectorx_url is None:
            raise SourceError(
                "This worker's database URL has options that ConnectorX does not support; see docs/databases.md."
            )
        return source.connectorx_url


def run_task_with(secrets: Secrets, task: Task) -> TaskResult:
    """Run a task with the given database and key; raises as `run_task`."""
    export = task.export
    storage, options = _open_storage(export.destination), replace(export.transform_options, key=secrets.key)
    if isinstance(task, ReleaseTask):
        return release_part(storage, options, task)
    job = ReaderJob(secrets.url, list(export.prepare), [task.query], export.batch_size)
    cursor = CREATED_AT if export.series is None else export.series.cursor.column
    frames = read_job(job, with_cursor(options.schema, cursor), read_timeout=export.read_timeout)
    return write_part(storage, options, task, frames, create_processor(export, options))


def create_processor(
    export: TaskContext, options: TransformOptions, seen_rows: SeenRows | None = None
) -> BatchProcessor:
    """Return the batch processor of a task, which removes people who were erased before the export began."""
    tombstones = list[Tombstones]()
    if export.erasures:
        tombstones = _read_tombstones(export.destination, (options.key, *list_available_keys()), export.erasures)
    if export.series is not None and seen_rows is None:
        file, since, cursor, _ = export.series
        seen = _read_seen_rows(export.destination, (file.path, file.sha256) if file else None)
        seen_rows = SeenRows(seen, options.key, since, cursor, options.schema)
    return BatchProcessor(options, tombstones, seen_rows)


@lru_cache(maxsize=4)
def _open_storage(destination: str) -> Storage:
    """Open the storage once per process: opening takes ten times as long as a request. It renews its credentials."""
    return open_storage(destination)


@lru_cache(maxsize=4)
def _read_tombstones(destination: str, keys: tuple[Key | None, ...], erasures: frozenset[str]) -> list[Tombstones]:
    """Read the tombstones once per process: those of an erasure do not change."""
    storage, others = _open_storage(destination), [key for key in keys if key]
    return TombstoneFile(storage).select([*keys[:1], *bind_keys(storage, others)], only=erasures)


@lru_cache(maxsize=1)
def _read_seen_rows(destination: str, file: tuple[str, str] | None) -> pl.DataFrame:
    """Read the rows of earlier exports once per process, given the path and the digest of their file."""
    files = [DataFile(file[0], "rows", rows=0, bytes=0, sha256=file[1])] if file else []
    return read_seen_rows(_open_storage(destination), files)


def write_part(
    storage: Storage,
    options: TransformOptions,
    task: PartTask,
    frames: Iterable[pl.DataFrame],
    processor: BatchProcessor,
) -> TaskResult:
    """Write a part from raw rows; with k, spool its rows until the sizes of all equivalence classes are known."""
    export, number = task.export, task.number
    spools = options.k_policy.k is not None
    file_format, name = export.file_format, part_path(export.stem, number, export.file_format.suffix)
    if spools:
        file_format, name = FileFormat("arrow"), state_part_path(export.stem, "arrow", number)
    with (
        PartWriter(storage, name, file_format, build_parquet_metadata(options, export.file_format)) as pairs,
        PartWriter(storage, rejected_part_path(export.stem, number), FileFormat(), {}) as rejected,
        PartWriter(storage, state_part_path(export.stem, "rows", number), FileFormat(), {}) as seen_rows,
    ):
        process_batches(
            processor,
            frames,
            write=lambda batch: pairs.append(_prepare(batch, export, options)),
            write_rejected=rejected.append,
        )
        if processor.seen_rows is not None:
            seen_rows.append(processor.seen_rows.take_new_rows())
        written = pairs.publish("pairs")
        files = [*([] if spools else written), *rejected.publish("rejected"), *seen_rows.publish("rows")]
    spooled = next(iter(written), None) if spools else None
    return TaskResult(number, files, processor.take_counts(), spooled, pairs.escaped_texts)


def _prepare(batch: ProcessedBatch, export: TaskContext, options: TransformOptions) -> pl.DataFrame:
    """Return the pairs of a batch; with their people, where the classes of a series are counted."""
    if export.series is None or not export.series.counts_people:
        return batch.pairs
    return add_people(batch.pairs, batch.user_ids, options.key)


def release_part(storage: Storage, options: TransformOptions, task: ReleaseTask) -> TaskResult:
    """Write a part from its spooled rows, without equivalence classes that are too small, or with generalised values.

    Raises:
        ExportFileError: The spooled file is missing or was changed, or the part cannot be written.
    """
    export, number = task.export, task.number
    with storage.local_copy(small_classes_path(export.stem)) as path:
        changes = pl.read_ipc(path)
    name = part_path(export.stem, number, export.file_format.suffix)
    with (
        open_spooled_part(storage, task.spooled) as frames,
        PartWriter(storage, name, export.file_format, build_parquet_metadata(options, export.file_format)) as pairs,
    ):
        for frame in frames:
            pairs.append(release_pairs(frame, changes, options))
        return TaskResult(number, pairs.publish("pairs"), None, escaped_texts=pairs.escaped_texts)
