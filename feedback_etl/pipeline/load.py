"""Load feedback as a frame in memory; nothing is written."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Unpack

import polars as pl

from feedback_etl.clock import resolve_now
from feedback_etl.database.connect import Database
from feedback_etl.database.read import PhaseListener, Progress, ReadRequest, open_feedback, retry_with_sqlalchemy
from feedback_etl.options.export import ExportOptions, require_known
from feedback_etl.options.keywords import RawKeywords, TrainingKeywords
from feedback_etl.options.privacy import PrivacyOptions
from feedback_etl.options.quality import QualityOptions
from feedback_etl.pipeline.keys import list_available_keys, resolve_key
from feedback_etl.pipeline.selection import select
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.legacy_key_ids import bind_keys
from feedback_etl.records.tombstone_seals import require_own
from feedback_etl.records.tombstones import TombstoneFile, Tombstones, TombstoneState
from feedback_etl.results import ExportReport
from feedback_etl.storage.location import StorageLike, open_storage, require_storage
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.timestamps import readable


class ReportedTraining(NamedTuple):
    """Training rows, and the report of the export that would write them; it names no file."""

    pairs: pl.DataFrame
    report: ExportReport


def load_training(  # noqa: PLR0913  public, flat
    database: Database,
    *,
    options: ExportOptions | None = None,
    key: Key | str | None = None,
    unkeyed: bool = False,
    now: datetime | None = None,
    on_progress: Progress | None = None,
    output_dir: StorageLike | None = None,
    **keywords: Unpack[TrainingKeywords],
) -> pl.DataFrame:
    """Load the rows that `export_feedback` would write, as a frame; nothing is written.

    Other arguments and errors are those of `export_feedback`, except those that concern files.

    Args:
        output_dir: An existing folder of exports, or a prefix of an object store: people erased there are left out.
            Without it no erasure is known, so erased people who are still in the database are included.

    Returns:
        The columns of `TrainingPair`: Int8 ratings, Boolean, an Enum of age ranges (with wider ones if values are
        generalised), times in UTC.
    """
    require_known(keywords, [*TrainingKeywords.__annotations__])
    options = (options or ExportOptions()).with_keywords(**keywords)
    resolved_key = resolve_key(key, unkeyed=unkeyed, pseudonym_length=options.privacy.pseudonym_length)
    tombstones = _read_tombstones(output_dir, resolved_key) if output_dir is not None else ()
    return load_with_report(database, options, resolved_key, now, on_progress, tombstones=tombstones).pairs


def _read_tombstones(output_dir: StorageLike, key: Key | None) -> Sequence[Tombstones]:
    """Read the tombstones of a folder under the key, or under another available one.

    Raises:
        UsageError: The folder does not exist.
        ExportFileError: The tombstones were changed.
        KeyMissingError: They are under other keys only.
    """
    storage = open_storage(output_dir)
    require_storage(storage)
    tombstones = TombstoneFile(storage)
    tombstones.require_state(TombstoneState.from_records(AuditLog(storage).records()))
    own = [key] if key else []
    keys = bind_keys(storage, [*own, *list_available_keys()])
    require_own(storage, tombstones, {candidate.id: candidate for candidate in keys})
    return tombstones.select([key, *keys])


def load_with_report(  # noqa: PLR0913  internal
    database: Database,
    options: ExportOptions,
    key: Key | None,
    now: datetime | None = None,
    on_progress: Progress | None = None,
    on_phase: PhaseListener | None = None,
    tombstones: Sequence[Tombstones] = (),
) -> ReportedTraining:
    """Load the rows that an export would write, and its report; raises the errors of `load_training`."""
    require_usable_polars()
    now = resolve_now(now)
    transform_options = TransformOptions.from_options(options, now, key)
    return _collect_training(select(database, options, now, on_progress, on_phase), transform_options, tombstones)


@retry_with_sqlalchemy
def _collect_training(
    selection: ReadRequest, options: TransformOptions, tombstones: Sequence[Tombstones]
) -> ReportedTraining:
    with open_feedback(selection) as stream:
        from feedback_etl.pipeline.batch_processor import (
            BatchProcessor,  # imports pandera, while the database executes the query
        )
        from feedback_etl.pipeline.release import release_pairs

        processor = BatchProcessor(options, tombstones)
        pairs = pl.concat([processor.validate_pairs(processor.process(raw).pairs) for raw in stream.batches])
        processor.flush_rejected()
        processor.check_limits(selection.window, stream.excluded)
        pairs = release_pairs(pairs, processor.plan_release(), options)
        return ReportedTraining(pairs, processor.build_report(selection.window, stream.excluded))


def load_feedback(
    database: Database,
    *,
    options: ExportOptions | None = None,
    now: datetime | None = None,
    on_progress: Progress | None = None,
    **keywords: Unpack[RawKeywords],
) -> pl.DataFrame:
    """Load raw feedback, which is personal data: user ids, ages, exact times. Keep it in memory; share it with no one.

    Takes the arguments of `export_feedback` that choose rows and columns, and raises the same errors.

    Returns:
        The raw columns of the schema (`FeedbackSchema.raw_columns`), ordered by (created_at, feedback id), nulls last.
        A time that cannot be read is null; such rows are in every window.
    """
    require_usable_polars()
    require_known(keywords, [*RawKeywords.__annotations__])
    given = (options or ExportOptions()).with_keywords(**keywords)
    columns = PrivacyOptions(schema=given.privacy.schema, extra_columns=given.privacy.extra_columns)
    ratings = QualityOptions(min_feedback_fields=0)  # of no effect
    selection = select(
        database, ExportOptions(read=given.read, privacy=columns, quality=ratings), resolve_now(now), on_progress
    )
    return _collect_raw(selection).with_columns(readable("created_at"))


@retry_with_sqlalchemy
def _collect_raw(selection: ReadRequest) -> pl.DataFrame:
    with open_feedback(selection) as stream:
        return pl.concat(list(stream.batches), how="vertical_relaxed")
