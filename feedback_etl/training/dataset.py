"""Read the committed exports of a folder as one typed lazy frame."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl

from feedback_etl.columns import RATINGS, SUBJECT_HASH, TRAINING_COLUMNS, ExtraColumn, summarize_names
from feedback_etl.data_files.csv_files import csv_sources, escaped_columns
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.manifest import ADOPTED
from feedback_etl.training.committed_export import CommittedExport, may_share_pairs, sort_by_recency
from feedback_etl.training.export_catalog import find_exports, refresh, require_exports, require_unchanged
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


def scan_training(
    exports: str | Path,
    *,
    mixed: bool = False,
    verify: bool = False,
    key: Key | str | Sequence[Key | str] = (),
) -> pl.LazyFrame:
    """Scan all committed exports of a folder as one lazy frame, with the types of `load_training` and unique pairs.

    Only files with a manifest are read: no hidden, temporary, rejected or unmanaged file. CSV, compressed or not, and
    Parquet can be mixed. If several exports contain a pair, the copy of the newest is kept, with the `subject_hash` of
    the newest that has one. This deduplication reads the columns of the pair, and is skipped if the windows of the
    exports do not overlap. With truncated times, equal rows of one file are different
    feedback, and all are kept; so are those of an application that recognises duplicates itself. If the application
    names age ranges itself, `age_range` is text; where small classes were generalised, its type has wider ranges too.

    Files are checked now and read when the frame is collected. Polars reads only the columns that are needed; the order
    of the rows is deterministic. To use the frame elsewhere:

        frame = scan_training(folder).collect()         # Polars
        frame.to_arrow()                                # Arrow
        frame.to_arrow().to_pandas(types_mapper=...)    # pandas; frame.to_pandas() turns ratings with nulls into floats
        features(frame).to_numpy()                      # NumPy, float32 and without nulls, as scikit-learn expects
        features(frame).to_torch()                      # PyTorch tensor, float32
        datasets.Dataset(frame.to_arrow())              # Hugging Face, or Dataset.from_polars(frame)

    Args:
        exports: A folder of exports; a pattern such as `exports/feedback_training_2025*`, which may also name folders
            (`exports/*/`); or one file. A data file without a manifest is refused (`adopt` creates one). Or the URL of
            a prefix of an object store, such as `s3://bucket/exports`, optionally with a pattern at its end; Polars
            reads the needed ranges of the objects.
        mixed: Combine exports of different keys, timestamp precision, age ranges or form of recommendation ids. Pairs
            that several such exports contain are not recognised, and with two keys each person has two pseudonyms: a
            split by `subject_hash` puts the same person into several parts.
        verify: Compare the digest of every file with its manifest, which reads it once, and the manifests with the
            audit log. Otherwise only digests of files that were modified after their manifest was written (in an object
            store, by their ETag) are compared; sizes always are. Without `key`, someone who changes file, manifest and
            log together is not detected.
        key: The keys of the exports and of their audit log: verify the MACs of manifests and log, which no one without
            a key can forge. With `verify`, the data files are covered too.

    Returns:
        The twelve columns of `training_schema.TrainingPair`, then extra columns of the exports, null where an export
        lacks them.

    Raises:
        ExportFileError: There is no export, or a file is missing, truncated, changed, or lacks columns.
        UsageError: The exports differ in key, timestamp precision, age ranges or form of recommendation ids, or declare
            a column with different types.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key=generate_key(), output_dir="scanned")
    >>> scan_training("scanned").select("helpful_rating", "age_range").collect_schema()["helpful_rating"]
    Int8
    """
    committed, keys = find_exports(exports), Key.parse_all(key)
    if verify or keys:
        require_unchanged(committed, keys, exports)
    if not mixed:
        _require_one_kind(committed)
        _require_one_type(committed)
    with ThreadPoolExecutor() as pool:
        current = [export for export in pool.map(partial(refresh, verify=verify), committed) if export]
    clusters = _cluster_by_window(require_exports(current, exports))
    age_type = _common_age_type(current)
    frames = [_scan_cluster(cluster, age_type) for cluster in clusters]
    return pl.concat(frames, how="diagonal_relaxed")


def latest_export(folder: str | Path) -> Path | str:
    """Return the file of the newest export of a folder or pattern, as for `scan_training`.

    For an export in parts it is the folder of the parts, in an object store the URL, as text.

    Raises:
        ExportFileError: There is no export, or the file of the newest is missing, truncated or changed.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key=generate_key(), output_dir="latest")
    >>> str(latest_export("latest")) == report.export_filename
    True
    """
    current = (export for export in reversed(find_exports(folder)) if refresh(export, verify=False))
    (newest,) = require_exports(list(islice(current, 1)), folder)
    return newest.storage.local_path(newest.name) or newest.address


def _require_one_kind(exports: Sequence[CommittedExport]) -> None:
    kinds = {
        "keys": {export.kind.key for export in exports},
        "timestamp precisions": {export.kind.precision for export in exports},
        "age ranges": {export.kind.age_edges for export in exports},
        "forms of recommendation_id": {export.kind.recommendation_id for export in exports},
    }
    for noun, values in kinds.items():
        if len(values) > 1:
            raise UsageError(
                f"The exports have {len(values)} {noun} ({', '.join(sorted(values))}) and cannot be combined. Select "
                "those of one with a pattern, or pass mixed=True."
            )


def _require_one_type(exports: Sequence[CommittedExport]) -> None:
    """Refuse declared columns of two types, which would silently become text."""
    declared = {(column.name, column.type) for export in exports for column in _list_declared(export)}
    names = [name for name, _ in declared]
    if conflicting := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"The exports declare {', '.join(conflicting)} with several types and cannot be combined. Select those of "
            "one type with a pattern, or pass mixed=True, which reads it as text."
        )


def _list_declared(export: CommittedExport) -> list[ExtraColumn]:
    """Return the extra columns of an export."""
    return [ExtraColumn(*column) for column in export.manifest.settings.get("extra_columns", [])]


def _column_types(export: CommittedExport) -> pl.Schema:
    """Return the types of the columns of an export; an undeclared column is text."""
    types = {column.name: column.column_type.dtype for column in _list_declared(export)}
    types = {**TRAINING_TYPES, "age_range": export.age_type} | types
    return pl.Schema({name: types.get(name, pl.String()) for name in export.manifest.columns})


def _cluster_by_window(exports: Sequence[CommittedExport]) -> list[list[CommittedExport]]:
    """Group exports so that those of different clusters can have no pair in common; the oldest first in each."""
    clusters: list[list[CommittedExport]] = []
    for export in exports:
        sharing = [cluster for cluster in clusters if any(may_share_pairs(export, other) for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in sharing]
        clusters.append([*chain.from_iterable(sharing), export])
    return clusters


def _common_age_type(exports: Sequence[CommittedExport]) -> pl.DataType:
    """Return the type of the age ranges of several exports: text if their edges differ, else the one with most."""
    if len({export.kind.age_edges for export in exports}) > 1:
        return pl.String()
    return max((export.age_type for export in exports), key=lambda dtype: len(getattr(dtype, "categories", ())))


def _scan_cluster(cluster: Sequence[CommittedExport], age_type: pl.DataType) -> pl.LazyFrame:
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
