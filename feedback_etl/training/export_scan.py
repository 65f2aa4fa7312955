"""Read exports with their types, and combine those that can have pairs in common."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import polars as pl
import polars.selectors as cs

from feedback_etl.data_files.csv_files import get_csv_sources, list_escaped
from feedback_etl.errors import ExportFileError
from feedback_etl.records.manifest import ADOPTED
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import UTC_TIME
from feedback_etl.schema.model import AGE_RANGE_NAME, EXPORT_DATE, SUBJECT_HASH, TIME, FeedbackSchema
from feedback_etl.schema.requirements import summarize_names
from feedback_etl.training.committed_export import CommittedExport, may_share_pairs, sort_by_recency
from feedback_etl.transform.expressions import ISO_FORMAT, age_ranges
from feedback_etl.transform.formulas import unescape
from feedback_etl.transform.json_lists import decode_list


def list_types(schema: FeedbackSchema) -> dict[str, pl.DataType]:
    """Return the types of the columns of a training set."""
    ages: dict[str, pl.DataType] = {AGE_RANGE_NAME: age_ranges(schema.age_edges)} if schema.age else {}
    types: dict[str, pl.DataType] = {
        **{rating.name: rating.dtype for rating in schema.ratings},
        **{column.name: column.dtype for column in schema.lists},
        **{column.name: column.column_type.dtype for column in schema.all_columns},
        **dict.fromkeys((TIME, EXPORT_DATE), UTC_TIME),
    }
    return {name: (types | ages).get(name, pl.String()) for name in schema.training_columns}


TRAINING_TYPES = pl.Schema(list_types(CLASSIC_SCHEMA))
"""Types of a classic training set, those of `training_schema.TrainingPair`."""

_SUBJECT = SUBJECT_HASH.name
_OCCURRENCE = "occurrence in its file"


def _get_column_types(export: CommittedExport) -> pl.Schema:
    """Return the types of the columns of an export; an undeclared column is text."""
    types = list_types(export.manifest.schema)
    types |= {AGE_RANGE_NAME: export.age_type} if AGE_RANGE_NAME in types else {}
    return pl.Schema({name: types.get(name, pl.String()) for name in export.manifest.columns})


def cluster_by_window(exports: Sequence[CommittedExport]) -> list[list[CommittedExport]]:
    """Group exports so that those of different clusters can have no pair in common; the oldest first in each."""
    clusters: list[list[CommittedExport]] = []
    for export in exports:
        sharing = [cluster for cluster in clusters if any(may_share_pairs(export, other) for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in sharing]
        clusters.append([*chain.from_iterable(sharing), export])
    return clusters


def find_common_age_type(exports: Sequence[CommittedExport]) -> pl.DataType:
    """Return the type of the age ranges of several exports: text if their edges differ, else the one with most."""
    if len({export.kind.age_edges for export in exports}) > 1:
        return pl.String()
    return max((export.age_type for export in exports), key=lambda dtype: len(getattr(dtype, "categories", ())))


def scan_cluster(cluster: Sequence[CommittedExport], age_type: pl.DataType) -> pl.LazyFrame:
    """Scan exports that can have pairs in common, and keep the newest copy of each pair."""
    key = list(cluster[-1].manifest.schema.pair_key)
    frames = [
        scan_pairs(export).with_columns(cs.by_name(AGE_RANGE_NAME, require_all=False).cast(age_type))
        for export in sort_by_recency(cluster)
    ]
    if len(frames) == 1:
        return frames[0]
    if any(_may_repeat_key(export) for export in cluster):
        frames = [frame.with_columns(pl.int_range(pl.len()).over(key).alias(_OCCURRENCE)) for frame in frames]
        key.append(_OCCURRENCE)
    rows = pl.concat(frames, how="diagonal_relaxed")
    if len({_SUBJECT in export.manifest.columns for export in cluster}) > 1:
        rows = rows.with_columns(pl.col(_SUBJECT).drop_nulls().last().over(key))
    return rows.unique(subset=key, keep="last", maintain_order=True).drop(_OCCURRENCE, strict=False)


def _may_repeat_key(export: CommittedExport) -> bool:
    """Return whether rows of an export that are different feedback can have the same key."""
    manifest = export.manifest
    return export.precision != "exact" or "pair_hash" in manifest.overridden or not manifest.schema.has_whole_key


def scan_pairs(export: CommittedExport) -> pl.LazyFrame:
    """Scan the pairs of an export with their types."""
    columns, usual = export.manifest.columns, export.manifest.schema.with_extra_columns(()).training_columns
    if missing := [name for name in usual if name not in columns]:
        raise ExportFileError(f"{export.address} lacks the columns {', '.join(missing)}; exclude it with a pattern.")
    ordered = [*usual, *(name for name in columns if name not in usual)]
    paths = [export.storage.uri(file.path) for file in export.files]
    options: dict[str, Any] = {"glob": False, "storage_options": export.storage.polars_options}
    if not paths[0].endswith(".parquet"):
        # Polars parses times from text three times as fast as with a time type in the schema.
        types = _get_column_types(export)
        times = [name for name, dtype in types.items() if dtype == pl.Datetime]
        lists = [name for name, dtype in types.items() if dtype == pl.List]
        stored = pl.Schema(types | dict.fromkeys((*times, *lists), pl.String()))
        parsed = pl.col(times).str.to_datetime(ISO_FORMAT, time_unit="us", time_zone="UTC")
        sources = get_csv_sources(export.storage, export.manifest, [file.path for file in export.files])
        restored = [unescape(name) for name in list_escaped(export.manifest) if stored[name] == pl.String]
        pairs = pl.scan_csv(sources, schema=stored, **options).with_columns(parsed, *restored)
        pairs = pairs.with_columns(map(decode_list, lists)).select(ordered)
        if export.manifest.mode == ADOPTED:  # all other exports were validated before they were written
            _require_readable(pairs, export)
        return pairs
    frame = pl.scan_parquet(paths, **options)
    if AGE_RANGE_NAME in columns:
        frame = frame.with_columns(pl.col(AGE_RANGE_NAME).cast(_get_column_types(export)[AGE_RANGE_NAME]))
    schema = frame.select(columns).collect_schema()
    if wrong := [name for name, dtype in schema.items() if dtype != _get_column_types(export)[name]]:
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
