"""The committed exports of a folder as one typed frame, read when it is collected and no further than it is needed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from feedback_etl.columns import RATINGS, SUBJECT_HASH, TRAINING_COLUMNS, told
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.adoption import ADOPTED
from feedback_etl.exports.text_scan import csv_sources
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.storage.urls import POLARS_OPTIONS
from feedback_etl.training.export_catalog import Committed, age_of, exports_at, may_share, require_some, settled
from feedback_etl.transform.expressions import AGE_RANGE, ISO_FORMAT
from feedback_etl.transform.transforms import PAIR_KEY

_TIMES = ("feedback_timestamp", "export_date")
TRAINING_TYPES = pl.Schema(
    dict.fromkeys(TRAINING_COLUMNS, pl.String())
    | dict.fromkeys(RATINGS, pl.Int8())
    | {"would_recommend": pl.Boolean(), "age_range": AGE_RANGE}
    | dict.fromkeys(_TIMES, pl.Datetime("us", "UTC"))
)
"""The types of a training set, those of `schema.TrainingPair`."""

_FURTHER: dict[str, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}
_SUBJECT = SUBJECT_HASH.name
_NUMBER = "number among the equals of its file"


def scan_training(exports: str | Path, *, mixed: bool = False, verify: bool = False) -> pl.LazyFrame:
    """All committed exports of a folder as one lazy frame, with the types of `load_training` and no pair twice.

    Only what has a manifest is read: no hidden, temporary, rejected or foreign file. CSV, compressed or not, and
    Parquet may be mixed. Of a pair that several exports hold, the copy of the newest one stays, with the `subject_hash`
    of the newest one that tells it. Looking for such pairs
    needs the columns of the pair, and is left out where the windows of the exports tell that there are none. With times
    cut to the minute, hour or day, rows that are equal in one file are different feedback, and all stay; as do those of
    an application that recognises duplicates itself. Where it names age ranges itself, `age_range` is text.

    Files are looked at now and read when the frame is collected. Polars reads the columns that are needed alone; the
    order of the rows is the same each time. Where to go from there:

        frame = scan_training(folder).collect()         # Polars
        frame.to_arrow()                                # Arrow
        frame.to_arrow().to_pandas(types_mapper=...)    # pandas; frame.to_pandas() makes floats of ratings with nulls
        features(frame).to_numpy()                      # NumPy, float32 and without nulls; scikit-learn takes it
        features(frame).to_torch()                      # a tensor of PyTorch, float32
        datasets.Dataset(frame.to_arrow())              # Hugging Face, or Dataset.from_polars(frame)

    Args:
        exports: A folder of exports; a pattern such as `exports/feedback_training_2025*`, which may also name folders
            (`exports/*/`); or one file. A data file without a manifest is refused (`adopt` gives it one). Or the URL of
            a prefix of an object store, such as `s3://bucket/exports`, perhaps with a pattern at its end; Polars reads
            objects where they are, as far as it needs them.
        mixed: Take exports together whose pseudonyms, recommendations or times do not fit together. No pair of two
            such exports is found to be the same, and of two keys each person has two pseudonyms: a split by
            `subject_hash` puts the same person into several parts.
        verify: Compare the digest of every file with its manifest, which reads it once. Otherwise only files that were
            changed, by their time (in an object store by their ETag), after their manifest was written; sizes are
            compared in any case.

    Returns:
        The twelve columns of `schema.TrainingPair`, then others that exports may hold, null where one lacks them.

    Raises:
        ExportFileError: There is no export, or a file is missing, truncated, changed, or not of these columns.
        UsageError: The exports are of different keys, timestamp precision, age ranges or form of recommendation ids, or
            declare a column with different types.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key="k" * 32, output_dir="scanned")
    >>> scan_training("scanned").select("helpful_rating", "age_range").collect_schema()["helpful_rating"]
    Int8
    """
    found = exports_at(exports)
    if not mixed:
        _require_one_kind(found)
        _require_one_type(found)
    with ThreadPoolExecutor() as pool:
        whole = [export for export in pool.map(partial(settled, verify=verify), found) if export]
    clusters = _clusters(require_some(whole, exports))
    ranges_as_text = len({export.kind.age_edges for export in whole}) > 1
    frames = [_united(cluster, ranges_as_text) for cluster in clusters]
    return pl.concat(frames, how="diagonal_relaxed")


def latest_export(folder: str | Path) -> Path | str:
    """The file of the newest export of a folder, or of what a pattern names; see `scan_training`.

    Of an export in parts it is the folder of the parts, and in an object store its URL, as text.

    Raises:
        ExportFileError: There is no export, or the file of the newest one is missing, truncated or changed.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key="k" * 32, output_dir="latest")
    >>> str(latest_export("latest")) == report.export_filename
    True
    """
    whole = (export for export in reversed(exports_at(folder)) if settled(export, verify=False))
    (newest,) = require_some(list(islice(whole, 1)), folder)
    return newest.address if isinstance(newest.place, ObjectStorage) else Path(newest.address)


def _require_one_kind(exports: Sequence[Committed]) -> None:
    kinds = {
        "keys": {export.kind.key for export in exports},
        "timestamp precisions": {export.kind.precision for export in exports},
        "age ranges": {export.kind.age_edges for export in exports},
        "forms of recommendation_id": {export.kind.recommendation_id for export in exports},
    }
    for what, found in kinds.items():
        if len(found) > 1:
            raise UsageError(
                f"The exports are of {len(found)} {what} ({', '.join(sorted(found))}), and do not fit together. Name "
                "those of one with a pattern, or say that it is meant (mixed=True)."
            )


def _require_one_type(exports: Sequence[Committed]) -> None:
    """Of columns that were declared: those of two types would become text without a word."""
    declared = {(name, kind) for export in exports for name, _, kind in _declared(export)}
    names = [name for name, _ in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"The exports declare {', '.join(twice)} with several types, and do not fit together. Name those of one "
            "type with a pattern, or say that it is meant (mixed=True): it is text then."
        )


def _declared(export: Committed) -> list[tuple[str, str, str]]:
    """Name, role and type of each of its further columns."""
    return list(map(tuple, export.manifest.settings.get("extra_columns", [])))


def _types_of(export: Committed) -> pl.Schema:
    """Of its columns; one that nobody declared is text."""
    types = {name: _FURTHER[kind] if role != "identifier" else pl.String() for name, role, kind in _declared(export)}
    types = {**TRAINING_TYPES, "age_range": export.age_type} | types
    return pl.Schema({name: types.get(name, pl.String()) for name in export.manifest.columns})


def _clusters(exports: Sequence[Committed]) -> list[list[Committed]]:
    """Exports, the oldest first, of which those in different clusters can have no pair in common."""
    clusters: list[list[Committed]] = []
    for export in exports:
        touched = [cluster for cluster in clusters if any(may_share(export, other) for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in touched]
        clusters.append([*(each for cluster in touched for each in cluster), export])
    return clusters


def _united(cluster: Sequence[Committed], ranges_as_text: bool) -> pl.LazyFrame:
    """The rows of exports that may hold the same pairs; the copy of the newest stays."""
    frames, key = [_scanned(export) for export in sorted(cluster, key=age_of)], list(PAIR_KEY)
    if ranges_as_text:
        frames = [frame.with_columns(pl.col("age_range").cast(pl.String)) for frame in frames]
    if len(frames) == 1:
        return frames[0]
    if any(export.precision != "exact" or "pair_hash" in export.manifest.overridden for export in cluster):
        frames = [frame.with_columns(pl.int_range(pl.len()).over(key).alias(_NUMBER)) for frame in frames]
        key.append(_NUMBER)
    united = pl.concat(frames, how="diagonal_relaxed")
    if len({_SUBJECT in export.manifest.columns for export in cluster}) > 1:
        united = united.with_columns(pl.col(_SUBJECT).drop_nulls().last().over(key))
    return united.unique(subset=key, keep="last", maintain_order=True).drop(_NUMBER, strict=False)


def _scanned(export: Committed) -> pl.LazyFrame:
    columns = export.manifest.columns
    if missing := [name for name in TRAINING_COLUMNS if name not in columns]:
        raise ExportFileError(f"{export.address} lacks the columns {', '.join(missing)}; leave it out with a pattern.")
    ordered = [*TRAINING_COLUMNS, *(name for name in columns if name not in TRAINING_COLUMNS)]
    paths = [export.place.address(file.path) for file in export.files]
    options: dict[str, Any] = {"glob": False} | (
        {"storage_options": POLARS_OPTIONS} if isinstance(export.place, ObjectStorage) else {}
    )
    if not paths[0].endswith(".parquet"):
        # Polars reads times three times as fast from text than as a type of the file.
        times = [name for name, dtype in _types_of(export).items() if dtype == pl.Datetime]
        types = {name: pl.String() if name in times else dtype for name, dtype in _types_of(export).items()}
        parsed = pl.col(times).str.to_datetime(ISO_FORMAT, time_unit="us", time_zone="UTC")
        sources = csv_sources(export.place, export.manifest, [file.path for file in export.files])
        pairs = pl.scan_csv(sources, schema=types, **options).with_columns(parsed).select(ordered)
        if export.manifest.mode == ADOPTED:  # others were validated before they were written
            _require_readable(pairs, export)
        return pairs
    frame = pl.scan_parquet(paths, **options).with_columns(pl.col("age_range").cast(_types_of(export)["age_range"]))
    found = frame.select(columns).collect_schema()
    if wrong := [name for name, dtype in found.items() if dtype != _types_of(export)[name]]:
        raise ExportFileError(f"{export.address} has columns of other types ({', '.join(wrong)}); leave it out.")
    return frame.select(ordered)


def _require_readable(pairs: pl.LazyFrame, export: Committed) -> None:
    """Read everything once, so that a value of another form is an error of ours, and of now."""

    def is_readable(names: Sequence[str]) -> bool:
        try:
            pairs.select(pl.col(names).count()).collect()
        except pl.exceptions.PolarsError:  # its text holds values
            return False
        return True

    names = pairs.collect_schema().names()
    if not is_readable(names):
        wrong = told(name for name in names if not is_readable([name]))
        raise ExportFileError(
            f"{export.address} has values of other forms than an export ({wrong}): ratings are whole numbers, times "
            "ISO 8601 with T and without offset. Leave it out with a pattern, or mend it, remove its manifest and "
            "adopt it again."
        )
