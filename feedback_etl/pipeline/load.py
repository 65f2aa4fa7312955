"""Feedback as a frame in memory: nothing is written."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from feedback_etl.clock import instant
from feedback_etl.columns import QUASI_IDENTIFIERS, ExtraColumn, of_raw_rows
from feedback_etl.database.batches import BATCH_ROWS, Reading
from feedback_etl.database.connect import Database
from feedback_etl.database.consent import OPT_IN, OPT_OUT, ConsentColumns
from feedback_etl.database.read import Found, Progress, Selection, read
from feedback_etl.options import Rules
from feedback_etl.pipeline.arguments import Time, extra_of, key_of, known_of, window_of
from feedback_etl.privacy.k_anonymity import KAnonymityPolicy, OnSmallClass, drop_small_classes
from feedback_etl.privacy.keys import Key
from feedback_etl.transform.expressions import AGE_EDGES
from feedback_etl.transform.fork_guard import require_usable_polars
from feedback_etl.transform.timestamps import readable
from feedback_etl.transform.transforms import RecommendationId, TimestampPrecision

if TYPE_CHECKING:
    from feedback_etl.transform.training_schema import Model


def load_training(
    database: Database,
    *,
    days_back: int = 30,
    since: Time | None = None,
    until: Time | None = None,
    min_feedback_fields: int = 1,
    now: datetime | None = None,
    key: Key | str | None = None,
    unkeyed: bool = False,
    recommendation_id: RecommendationId = "keep",
    strict: bool = False,
    max_rejected: float = 1.0,
    timestamp_precision: TimestampPrecision = "exact",
    k: int | None = None,
    on_small_class: OnSmallClass = "suppress",
    max_suppressed: float = 1.0,
    quasi_identifiers: Sequence[str] = QUASI_IDENTIFIERS,
    include_image_urls: bool = False,
    include_subject_hash: bool = False,
    columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] = AGE_EDGES,
    model: "Model | None" = None,
    query: str | None = None,
    db_schema: str | None = None,
    opt_in_column: str = OPT_IN,
    opt_out_column: str = OPT_OUT,
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The rows that `export_feedback` would write, as a frame; nothing is written.

    Takes the same arguments and raises the same errors, but for files.

    Returns:
        The twelve columns of `schema.TrainingPair`: Int8 ratings, Boolean, an Enum of age ranges, times in UTC.
    """
    require_usable_polars()
    now = instant(now)
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = window_of(days_back, since, until, now)
    consent, extra = (
        ConsentColumns(opt_in_column, opt_out_column),
        extra_of(columns, query, images=include_image_urls, subjects=include_subject_hash),
    )
    chosen = (window, query, db_schema, connect_timeout, reading, progress, None, consent, of_raw_rows(extra))
    selection = Selection(database, *chosen, allow_row_security)
    anonymity = KAnonymityPolicy(k, on_small_class, max_suppressed, known_of(quasi_identifiers, extra), extra)
    rules = Rules(
        now,
        key_of(key, unkeyed),
        min_feedback_fields,
        recommendation_id,
        strict,
        max_rejected,
        timestamp_precision,
        anonymity,
        extra,
        tuple(age_edges),
        model,
    )

    def collect(found: Found) -> pl.DataFrame:
        from feedback_etl.pipeline.batch_processor import (
            Run,  # it imports pandera, and meanwhile the database is at work
        )

        run = Run(rules)
        pairs = pl.concat([run.validated(run.process(raw)).pairs for raw in found.batches])
        run.finish()
        run.judge(window, found.excluded)
        return drop_small_classes(pairs, run.small_classes(), anonymity.quasi_identifiers)

    return read(selection, collect)


def load_feedback(
    database: Database,
    *,
    days_back: int = 30,
    since: Time | None = None,
    until: Time | None = None,
    now: datetime | None = None,
    query: str | None = None,
    db_schema: str | None = None,
    opt_in_column: str = OPT_IN,
    opt_out_column: str = OPT_OUT,
    connect_timeout: float = 2.0,
    allow_row_security: bool = False,
    bulk: bool = False,
    workers: int | None = None,
    batch_rows: int = BATCH_ROWS,
    stall_timeout: float = 600.0,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Raw feedback, which is personal data: user ids, ages, exact times. Keep it in memory and hand it to nobody.

    Takes the arguments of `export_feedback` that choose rows, and raises the same errors.

    Returns:
        The canonical raw columns (`columns.RAW_COLUMNS`), ordered by (created_at, feedback id), nulls last. A time that
        cannot be read is null; such rows are in every window.
    """
    require_usable_polars()
    reading = Reading(bulk, workers, batch_rows, stall_timeout)
    window = window_of(days_back, since, until, instant(now))
    consent = ConsentColumns(opt_in_column, opt_out_column)
    chosen = (window, query, db_schema, connect_timeout, reading, progress, None, consent, ())
    selection = Selection(database, *chosen, allow_row_security)
    raw = read(selection, lambda found: pl.concat(list(found.batches), how="vertical_relaxed"))
    return raw.with_columns(readable("created_at"))
