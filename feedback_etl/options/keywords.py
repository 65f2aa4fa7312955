"""Types of the flat keywords of `export_feedback` and its siblings; the groups of this package declare the options."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from feedback_etl.database.window import Time

if TYPE_CHECKING:
    from feedback_etl.schema.column_types import ExtraColumn
    from feedback_etl.schema.model import FeedbackSchema
    from feedback_etl.schema.source import SourceTable
    from feedback_etl.transform.failure_cases import Model


class _WindowKeywords(TypedDict, total=False):
    days_back: int
    since: Time | None
    until: Time | None


class DatabaseKeywords(TypedDict, total=False):
    """Keywords of `ReadOptions` that describe the database."""

    query: str | None
    source: "SourceTable | None"
    db_schema: str | None
    opt_in_column: str
    opt_out_column: str
    connect_timeout: float
    allow_row_security: bool


class ReadKeywords(_WindowKeywords, DatabaseKeywords, total=False):
    """Keywords of `ReadOptions`."""

    bulk: bool
    workers: int | None
    batch_size: int
    read_timeout: float


class RawKeywords(ReadKeywords, total=False):
    """Keywords of `ReadOptions`, and the columns to read."""

    schema: "FeedbackSchema"
    extra_columns: "Sequence[ExtraColumn]"


class TrainingKeywords(RawKeywords, total=False):
    """Keywords of `ReadOptions`, `QualityOptions` and `PrivacyOptions`."""

    min_feedback_fields: int
    strict: bool
    max_rejected: float
    row_model: "Model | None"
    hash_recommendation_id: bool
    pseudonym_length: Literal[16, 32]
    timestamp_precision: Literal["exact", "minute", "hour", "day", "week", "month", "quarter"]
    k: int | None
    on_small_class: Literal["suppress", "generalize", "fail"]
    max_suppressed: float
    l: int | None  # noqa: E741  as the option
    t: float | None
    hierarchies: Mapping[str, Mapping[str, Sequence[str]]]
    quasi_identifiers: Sequence[str] | None
    include_image_urls: bool
    include_subject_hash: bool
    age_edges: Sequence[int] | None
    min_age_range: int


class ExportKeywords(TrainingKeywords, total=False):
    """Keywords of `ExportOptions`: those of all groups."""

    output_dir: str | Path
    format: Literal["csv", "parquet"]
    compression: Literal["none", "gzip", "zstd"]
    items: str | None
    formulas: Literal["escape", "reject", "allow"]
    incremental: bool
    cursor: str
    lookback: str | timedelta
    max_pending: str | timedelta
    new_series: bool
    backfill: bool
    lock_timeout: float
    idempotency_key: str | None
    allow_new_key: bool
    recipient: str | None
    allow_overlap: bool
    lineage: str | None
    lineage_hosts: bool
