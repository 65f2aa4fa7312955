"""Read the committed exports of a folder as one typed lazy frame."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast, get_args

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.training.committed_export import CommittedExport
from feedback_etl.training.export_catalog import ExportPaths, find_exports, refresh, require_exports, require_unchanged
from feedback_etl.training.export_scan import cluster_by_window, find_common_age_type, scan_cluster
from feedback_etl.transform.transforms import TimestampPrecision


class TrainingDataset(NamedTuple):
    """The pairs of exports, and what their manifests say about them.

    Attributes:
        frame: The pairs, as `scan_training` returns them.
        exports: The exports that were read.
    """

    frame: pl.LazyFrame
    exports: tuple[CommittedExport, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of the manifests and files that were read, 64 hex characters; another order gives the same.

        An erasure changes it, and so does every other change of an export.
        """
        read = (f"{export.manifest.to_json()}{[file.path for file in export.files]}" for export in self.exports)
        digests = sorted(hashlib.sha256(text.encode()).hexdigest() for text in read)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def timestamp_precision(self) -> TimestampPrecision:
        """Precision of the times: the coarsest, if exports of several were combined."""
        order = get_args(TimestampPrecision)
        precisions = [export.precision for export in self.exports]
        return cast(TimestampPrecision, max(precisions, key=order.index))

    @property
    def extra_columns(self) -> tuple[ExtraColumn, ...]:
        """Declarations of the extra columns, for `validate(frame, extra_columns=...)`."""
        return tuple(
            dict.fromkeys(column for export in self.exports for column in export.manifest.schema.extra_columns)
        )

    @property
    def schema(self) -> FeedbackSchema:
        """Schema of the newest export, for `validate(frame, schema=...)`, `label` and `features`."""
        return self.exports[-1].manifest.schema

    @property
    def age_edges(self) -> tuple[int, ...]:
        """Lower bounds of the age ranges of the newest export."""
        return self.exports[-1].age_edges


def open_dataset(
    exports: ExportPaths, *, mixed: bool = False, verify: bool = False, key: Key | str | Sequence[Key | str] = ()
) -> TrainingDataset:
    """Open exports as `scan_training` does, with what their manifests say.

    Args:
        exports: See `scan_training`, also for the other arguments and for errors.
        mixed: Combine exports of different kinds.
        verify: Verify digests and manifests.
        key: The keys of the exports.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, key=generate_key(), timestamp_precision="day", output_dir="opened")
    >>> dataset = open_dataset("opened")
    >>> dataset.timestamp_precision, len(dataset.fingerprint), dataset.frame.collect_schema().len()
    ('day', 64, 12)
    """
    committed, keys = find_exports(exports), Key.parse_all(key)
    if verify or keys:
        require_unchanged(committed, keys, exports)
    if not mixed:
        _require_one_kind(committed)
        _require_one_type(committed)
    with ThreadPoolExecutor() as pool:
        current = [export for export in pool.map(partial(refresh, verify=verify), committed) if export]
    clusters = cluster_by_window(require_exports(current, exports))
    age_type = find_common_age_type(current)
    frames = [scan_cluster(cluster, age_type) for cluster in clusters]
    return TrainingDataset(pl.concat(frames, how="diagonal_relaxed"), tuple(current))


def scan_training(
    exports: ExportPaths,
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
        features(frame, vocabulary=vocabulary).to_numpy()   # NumPy, float32 and without nulls, as scikit-learn expects
        features(frame, vocabulary=vocabulary).to_torch()   # PyTorch tensor, float32
        datasets.Dataset(frame.to_arrow())              # Hugging Face, or Dataset.from_polars(frame)

    Args:
        exports: A folder of exports; a pattern such as `exports/feedback_training_2025*`, which may also name folders
            (`exports/*/`); or one file. A data file without a manifest is refused (`adopt` creates one). Or the URL of
            a prefix of an object store, such as `s3://bucket/exports`, optionally with a pattern at its end; Polars
            reads the needed ranges of the objects. Or a list of these.
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
    return open_dataset(exports, mixed=mixed, verify=verify, key=key).frame


def latest_export(folder: ExportPaths) -> Path | str:
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
        "schemas": {export.kind.schema for export in exports},
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
    declared = {(column.name, column.type) for export in exports for column in export.manifest.schema.all_columns}
    names = [name for name, _ in declared]
    if conflicting := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"The exports declare {', '.join(conflicting)} with several types and cannot be combined. Select those of "
            "one type with a pattern, or pass mixed=True, which reads it as text."
        )
