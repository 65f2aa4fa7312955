"""What workers do: the tasks of an export, with the database and the key of their own environment.

`work` is what executors are given. It may run in any process on any machine that has this package, and again after one
that was killed.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache

import polars as pl

from feedback_etl import __version__
from feedback_etl.columns import raw_extra_columns
from feedback_etl.database.batches import read_job
from feedback_etl.database.connect import open_connection
from feedback_etl.database.reader_client import ReaderJob
from feedback_etl.errors import KeyUnusableError, SourceError, UsageError
from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.layout import (
    STATE_FOLDER,
    part_path,
    rejected_part_path,
    small_classes_path,
    spooled_part_path,
)
from feedback_etl.exports.tombstones import Tombstones, read_tombstones
from feedback_etl.pipeline.batch_processor import Run
from feedback_etl.pipeline.batches import process_into
from feedback_etl.pipeline.keys import available_keys
from feedback_etl.pipeline.part_writer import PartFile, frames_in
from feedback_etl.pipeline.tasks import Export, Made, PartTask, Task, ThinTask
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.k_anonymity import drop_small_classes
from feedback_etl.privacy.keys import Key
from feedback_etl.settings import key_in_force, load_settings
from feedback_etl.storage.base import LocalStorage, Storage, open_storage
from feedback_etl.storage.object_store import ObjectStorage


@dataclass(frozen=True)
class Secrets:
    """What no task holds.

    Attributes:
        url: The database as ConnectorX takes it.
        key: Which makes the pseudonyms; None for the unkeyed form.
    """

    url: str = field(repr=False)
    key: Key | None


def work(task: Task) -> Made:
    """Do a task with the database and the key of this process's environment.

    Raises:
        UsageError: The environment has no database, not the key of the export, or another version of this package.
        SourceError: The database cannot be reached, or is not the head's.
        ValidationError: Rows are not as they have to be.
        ExportFileError: The place cannot take the part.
    """
    try:
        return work_with(_secrets(task.export), task)
    except UsageError as error:  # the head has all it needs
        kind, told = type(error), f"On a worker: {error}"
    raise kind(told)


def _secrets(export: Export) -> Secrets:
    """What this process's environment has for an export."""
    if export.version != __version__:
        raise UsageError(
            f"This worker has feedback_etl {__version__}, and the head {export.version}: install the same."
        )
    place = _place_of(export.place)
    if isinstance(place, LocalStorage) and not place.names(STATE_FOLDER):
        raise UsageError(
            f"This worker does not see {export.place}: workers share a folder with the head, or the export goes to an "
            "object store."
        )
    settings = load_settings()
    key = key_in_force(settings) if export.key_id else None
    if key and key.id != export.key_id:
        raise KeyUnusableError(
            f"This worker has the key {key.id}, and the export is of the key {export.key_id}: set "
            "FEEDBACK_ETL_KEY_FILE (or FEEDBACK_ETL_KEY) alike on all workers."
        )
    return Secrets(_connectorx_url(settings.require_database_url(), export.connect_timeout), key)


@lru_cache(maxsize=4)
def _connectorx_url(database: str, connect_timeout: float) -> str:
    """Looked up once in a process: connecting for it is also how a wrong URL is noticed at once."""
    with open_connection(database, connect_timeout=connect_timeout) as source:
        if source.connectorx_url is None:
            raise SourceError("This worker's database URL has options that ConnectorX lacks; see docs/databases.md.")
        return source.connectorx_url


def work_with(secrets: Secrets, task: Task) -> Made:
    """Do a task with a database and a key; raises as `work`."""
    export = task.export
    place, rules = _place_of(export.place), replace(export.rules, key=secrets.key)
    if isinstance(task, ThinTask):
        return let_through(place, rules, task)
    job = ReaderJob(secrets.url, list(export.prepare), [task.query], export.batch_size)
    frames = read_job(job, raw_extra_columns(rules.extra), read_timeout=export.read_timeout)
    return make_part(place, rules, task, frames, run_of(export, rules))


def run_of(export: Export, rules: TransformOptions) -> Run:
    """The steps of a task; whom the place had forgotten when the export began is left out."""
    if not export.erasures:
        return Run(rules)
    return Run(rules, _forgotten_in(export.place, (rules.key, *available_keys()), export.erasures))


@lru_cache(maxsize=4)
def _place_of(name: str) -> LocalStorage | ObjectStorage:
    """Opened once in a process: to open a store takes ten times as long as to ask it. It renews its credentials."""
    return open_storage(name)


@lru_cache(maxsize=4)
def _forgotten_in(place: str, keys: tuple[Key | None, ...], erasures: frozenset[str]) -> list[Tombstones]:
    """Read once in a process: what an erasure has recorded does not change."""
    return read_tombstones(_place_of(place), keys, only=erasures)


def make_part(
    place: Storage, rules: TransformOptions, task: PartTask, frames: Iterable[pl.DataFrame], run: Run
) -> Made:
    """Make a part of raw rows; they wait where the sizes of all classes have to be known before any is written."""
    export, number = task.export, task.number
    waits = rules.anonymity.k is not None
    name = spooled_part_path(export.stem, number) if waits else part_path(export.stem, number, export.form.suffix)
    with ExitStack() as stack:
        pairs = PartFile(place, name, FileFormat("arrow") if waits else export.form, metadata_of(rules, export.form))
        rejected = PartFile(place, rejected_part_path(export.stem, number), FileFormat(), {})
        for file in (pairs, rejected):
            stack.enter_context(file)
        process_into(pairs.append, rejected.append, run, frames)
        written = pairs.publish("pairs")
        files = [*([] if waits else written), *rejected.publish("rejected")]
    return Made(number, files, run.tally(), next(iter(written), None) if waits else None)


def let_through(place: Storage, rules: TransformOptions, task: ThinTask) -> Made:
    """Make a part of rows that wait, but for those of classes that are too small.

    Raises:
        ExportFileError: What waits is missing or not as it was written, or the place cannot take the part.
    """
    export, number = task.export, task.number
    with place.fetched(small_classes_path(export.stem)) as path:
        small = pl.read_ipc(path)
    name = part_path(export.stem, number, export.form.suffix)
    with (
        frames_in(place, task.waiting) as frames,
        PartFile(place, name, export.form, metadata_of(rules, export.form)) as pairs,
    ):
        for frame in frames:
            pairs.append(drop_small_classes(frame, small, rules.anonymity.quasi_identifiers))
        return Made(number, pairs.publish("pairs"), None)


def metadata_of(rules: TransformOptions, form: FileFormat) -> dict[str, str]:
    """What a Parquet file tells of itself: the key's id and the contract of its rows."""
    if form.format != "parquet":
        return {}
    from feedback_etl.exports.row_schema import row_schema

    contract = json.dumps(row_schema(rules.extra, rules.age_edges, rules.overrides.names()))
    return {"feedback_etl.key_id": rules.key.id if rules.key else "", "feedback_etl.contract": contract}
