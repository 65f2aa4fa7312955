"""Read exports with their types, and combine those that can have pairs in common."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import polars as pl

from feedback_etl.columns import RATINGS, SUBJECT_HASH, TRAINING_COLUMNS, summarize_names
from feedback_etl.data_files.csv_files import csv_sources, escaped_columns
from feedback_etl.errors import ExportFileError
from feedback_etl.records.manifest import ADOPTED
from feedback_etl.training.committed_export import CommittedExport, may_share_pairs, sort_by_recency
from feedback_etl.transform.expressions import AGE_RANGE, ISO_FORMAT
from feedback_etl.transform.formulas import unescape
from feedback_etl.transform.transforms import PAIR_KEY

_TIMES = ("feedback_timestamp", "export_date")
TRAINING_TYPES = pl.Schema(
    dict.fromkeys(TRAINING_COLUMNS, pl.String())
    | dict.fromkeys(RATINGS, pl.Int8())
    | {"would_recommend": pl.Boolean(), "age_range": AGE_RANGE}
    | dict.fromkeys(_TIMES, pl.Datetime("us", "UTC"))
)
"""Types of a training set, those of `training_schema.TrainingPair`."""

_SUBJECT = SUBJECT_HASH.name
_OCCURRENCE = "occurrence in its file"


def _column_types(export: CommittedExport) -> pl.Schema:
    """Return the types of the columns of an export; an undeclared column is text."""
    types = {column.name: column.column_type.dtype for column in export.manifest.extra_columns}
    types = {**TRAINING_TYPES, "age_range": export.age_type} | types
    return pl.Schema({name: types.get(name, pl.String()) for name in export.manifest.columns})


def cluster_by_window(exports: Sequence[CommittedExport]) -> list[list[CommittedExport]]:
    """Group exports so that those of different clusters can have no pair in common; the oldest first in each."""
    clusters: list[list[CommittedExport]] = []
    for export in exports:
        sharing = [cluster for cluster in clusters if any(may_share_pairs(export, other) for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in sharing]
        clusters.append([*chain.from_iterable(sharing), export])
    return clusters


def common_age_type(exports: Sequence[CommittedExport]) -> pl.DataType:
    """Return the type of the age ranges of several exports: text if their edges differ, else the one with most."""
    if len({export.kind.age_edges for export in exports}) > 1:
        return pl.String()
    return max((export.age_type for export in exports), key=lambda dtype: len(getattr(dtype, "categories", ())))


def scan_cluster(cluster: Sequence[CommittedExport], age_type: pl.DataType) -> pl.LazyFrame:
    """Scan exports that can have pairs in common, and keep the newest copy of each pair."""
    key = list(PAIR_KEY)
    frames = [
        _scan(export).with_columns(pl.col("age_range").cast(age_type)) if export.age_type != age_type else _scan(export)
        for export in sort_by_recency(cluster)
    ]
    if len(frames) == 1:
        return frames[0]
    if any(export.precision != "exact" or "pair_hash" in export.manifest.overridden for export in cluster):
        frames = [frame.with_columns(pl.int_range(pl.len()).over(key).alias(_OCCURRENCE)) for frame in frames]
        key.append(_OCCURRENCE)
    rows = pl.concat(frames, how="diagonal_relaxed")
    if len({_SUBJECT in export.manifest.columns for export in cluster}) > 1:
        rows = rows.with_columns(pl.col(_SUBJECT).drop_nulls().last().over(key))
    return rows.unique(subset=key, keep="last", maintain_order=True).drop(_OCCURRENCE, strict=False)


def _scan(export: CommittedExport) -> pl.LazyFrame:
    columns = export.manifest.columns
    if missing := [name for name in TRAINING_COLUMNS if name not in columns]:
        raise ExportFileError(f"{export.address} lacks the columns {', '.join(missing)}; exclude it with a pattern.")
    ordered = [*TRAINING_COLUMNS, *(name for name in columns if name not in TRAINING_COLUMNS)]
    paths = [export.storage.uri(file.path) for file in export.files]
    options: dict[str, Any] = {"glob": False, "storage_options": export.storage.polars_options}
    if not paths[0].endswith(".parquet"):
        # Polars parses times from text three times as fast as with a time type in the schema.
        times = [name for name, dtype in _column_types(export).items() if dtype == pl.Datetime]
        types = {name: pl.String() if name in times else dtype for name, dtype in _column_types(export).items()}
        parsed = pl.col(times).str.to_datetime(ISO_FORMAT, time_unit="us", time_zone="UTC")
        sources = csv_sources(export.storage, export.manifest, [file.path for file in export.files])
        restored = [unescape(name) for name in escaped_columns(export.manifest) if types[name] == pl.String]
        pairs = pl.scan_csv(sources, schema=types, **options).with_columns(parsed, *restored).select(ordered)
        if export.manifest.mode == ADOPTED:  # all other exports were validated before they were written
            _require_readable(pairs, export)
        return pairs
    frame = pl.scan_parquet(paths, **options).with_columns(pl.col("age_range").cast(_column_types(export)["age_range"]))
    schema = frame.select(columns).collect_schema()
    if wrong := [name for name, dtype in schema.items() if dtype != _column_types(export)[name]]:
        raise ExportFileError(
            f"{export.address} has columns of unexpected types ({', '.join(wrong)}); exclude it with a pattern."
        )
    return frame.select(ordered)


def _require_readable(pairs: pl.LazyFrame, export: CommittedExport) -> None:
    """Read all values once, so that an unreadable one is reported now and by column."""

    def is_readable(names: Sequence[str]) -> bool:
        try:
            pairs.select(pl.col(names).count()).collect()
        except pl.exceptions.PolarsError:  # its message contains values
            return False
        return True

    names = pairs.collect_schema().names()
    if not is_readable(names):
        wrong = summarize_names(name for name in names if not is_readable([name]))
        raise ExportFileError(
            f"{export.address} has values that cannot be read ({wrong}): ratings must be integers, times ISO 8601 with "
            "T and without offset. Exclude it with a pattern, or fix it, remove its manifest and adopt it again."
        )
