"""The committed exports of a folder as one typed frame, read when it is collected and no further than it is needed."""

import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.columns import RATINGS, TRAINING_COLUMNS
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.failures import reading
from feedback_etl.exports.manifest import DataFile, Manifest, manifests_in, sha256_of
from feedback_etl.exports.names import DATA_SUFFIXES, REJECTED_FOLDER, manifest_of
from feedback_etl.expressions import AGE_EDGES, AGE_RANGE, ISO_FORMAT, age_ranges
from feedback_etl.transforms import PAIR_KEY

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
_NUMBER = "number among the equals of its file"


class _Export(NamedTuple):
    """An export whose file is there.

    Attributes:
        path: The file of its pairs.
        window: From when to when, half-open; as wide as can be where that is not known.
        chain: Of an incremental export, the folder and the settings of its chain, and its number there.
    """

    path: Path
    file: DataFile
    manifest: Manifest
    window: tuple[datetime, datetime]
    chain: tuple[str, str, int] | None

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, file: DataFile) -> Self:
        start, end = (datetime.fromisoformat(time) if time else None for time in manifest.window)
        chain = (str(folder), manifest.settings_digest, manifest.chain["number"]) if manifest.chain else None
        return cls(folder / file.path, file, manifest, (start or datetime.min, end or datetime.max), chain)

    @property
    def types(self) -> pl.Schema:
        """Of its columns; one that nobody declared is text."""
        further = self.manifest.settings.get("extra_columns", [])
        types = {name: _FURTHER[kind] if role != "identifier" else pl.String() for name, role, kind in further}
        types = {**TRAINING_TYPES, "age_range": age_ranges(self.age_edges)} | types
        return pl.Schema({name: types.get(name, pl.String()) for name in self.manifest.columns})

    @property
    def age_edges(self) -> tuple[int, ...]:
        return tuple(self.manifest.settings.get("age_edges", AGE_EDGES))

    def setting(self, name: str, usual: str) -> str:
        return str(self.manifest.settings.get(name, usual))

    @property
    def precision(self) -> str:
        return self.setting("timestamp_precision", "exact")


def scan_training(exports: str | Path, *, mixed: bool = False, verify: bool = False) -> pl.LazyFrame:
    """All committed exports of a folder as one lazy frame, with the types of `load_training` and no pair twice.

    Only what has a manifest is read: no hidden, temporary, rejected or foreign file. CSV, compressed or not, and
    Parquet may be mixed. Of a pair that several exports hold, the copy of the newest one stays. Looking for such pairs
    needs the columns of the pair, and is left out where the windows of the exports tell that there are none. With times
    cut to the minute, hour or day, rows that are equal in one file are different feedback, and all stay.

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
            (`exports/*/`); or one file. A data file without a manifest is refused (`adopt` gives it one).
        mixed: Take exports together whose pseudonyms, recommendations or times do not fit together. No pair of two
            such exports is found to be the same.
        verify: Compare the digest of every file with its manifest, which reads it once. Otherwise only files that were
            changed, by their time, after their manifest was written; sizes are compared in any case.

    Returns:
        The twelve columns of `schema.TrainingPair`, then others that exports may hold, null where one lacks them.

    Raises:
        ExportFileError: There is no export, or a file is missing, truncated, changed, or not of these columns.
        UsageError: The exports are of different keys, timestamp precision, age ranges or form of recommendation ids.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo import sample_database
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key="k" * 32, output_dir="scanned")
    >>> scan_training("scanned").select("helpful_rating", "age_range").collect_schema()["helpful_rating"]
    Int8
    """
    found = _exports(exports)
    if not mixed:
        _require_one_kind(found)
    with ThreadPoolExecutor() as pool:
        settled = [export for export in pool.map(partial(_settled, verify=verify), found) if export]
    clusters = _clusters(_some(settled, exports))
    ranges_as_text = len({export.age_edges for export in settled}) > 1
    frames = [_united(cluster, ranges_as_text) for cluster in clusters]
    return pl.concat(frames, how="diagonal_relaxed")


def latest_export(folder: str | Path) -> Path:
    """The file of the newest export of a folder, or of what a pattern names; see `scan_training`.

    Raises:
        ExportFileError: There is no export.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo import sample_database
    >>> with sample_database() as url:
    ...     report = export_feedback(url, days_back=90, key="k" * 32, output_dir="latest")
    >>> str(latest_export("latest")) == report.export_filename
    True
    """
    return _some(_exports(folder), folder)[-1].path


def _exports(where: str | Path) -> list[_Export]:
    """What a folder or a pattern names, the oldest first."""
    named = [str(where)] if Path(where).exists() else glob.glob(str(where), recursive=True)  # noqa: PTH207  absolute too
    folders = [path for path in map(Path, named) if path.is_dir()]
    files = [path for path in map(Path, named) if path.name.endswith(DATA_SUFFIXES)]
    files = [path for path in files if path.parent.name != REJECTED_FOLDER and path not in folders]
    places = {*folders, *(file.parent for file in files)}
    there = {export.path: export for place in places for export in _exports_in(place)}
    if foreign := [file for file in files if file not in there]:
        raise ExportFileError(
            f"{foreign[0]} ({len(foreign):,} in all) has no manifest, so it is no export that is known to be complete. "
            "`feedback-etl adopt FILE` gives it one; or name the folder, which leaves such files out."
        )
    return sorted((export for path, export in there.items() if path in files or path.parent in folders), key=_age)


def _some(exports: list[_Export], where: str | Path) -> list[_Export]:
    if not exports:
        raise ExportFileError(f"{where} holds no export whose file is there; `feedback-etl list` tells what there is.")
    return exports


def _age(export: _Export) -> tuple[str, int, Path]:
    """What the newest export has most of; `..._10` is newer than `..._9`."""
    return export.manifest.created_at, len(export.path.name), export.path


def _exports_in(folder: Path) -> Iterator[_Export]:
    """Those that have pairs and were not pruned."""
    with reading(folder):
        for manifest in manifests_in(folder):
            if not manifest.pruned_at and (file := manifest.file("pairs")):
                yield _Export.of(folder, manifest, file)


def _require_one_kind(exports: Sequence[_Export]) -> None:
    kinds = {
        "keys": {export.manifest.key_id or "unkeyed" for export in exports},
        "timestamp precisions": {export.precision for export in exports},
        "age ranges": {f"from {', '.join(map(str, export.age_edges))}" for export in exports},
        "forms of recommendation_id": {export.setting("recommendation_id", "keep") for export in exports},
    }
    for what, found in kinds.items():
        if len(found) > 1:
            raise UsageError(
                f"The exports are of {len(found)} {what} ({', '.join(sorted(found))}), and do not fit together. Name "
                "those of one with a pattern, or say that it is meant (mixed=True)."
            )


def _settled(export: _Export, *, verify: bool) -> _Export | None:
    """An export whose file is what its manifest says.

    An erasure may have rewritten both since they were read, or a prune removed the file: then there is None.
    """
    with reading(export.path):
        if _is_whole(export, verify):
            return export
        now = next((each for each in _exports_in(export.path.parent) if each.path == export.path), None)
        if now is None or _is_whole(now, verify=True):
            return now
    raise ExportFileError(
        f"{export.path} is not as its manifest says: it is missing, or was truncated or changed. Restore it, or remove "
        "it together with its manifest and export its window again."
    )


def _is_whole(export: _Export, verify: bool) -> bool:
    file, path = export.file, export.path
    if not path.is_file():
        return False
    told = path.stat()
    if told.st_size == file.bytes and not verify and not file.becoming:
        manifest = path.with_name(manifest_of(export.manifest.stem)).stat()
        if told.st_mtime_ns < manifest.st_mtime_ns:  # as it was when the manifest was written
            return True
    allowed = [(file.bytes, file.sha256), (file.becoming.get("bytes"), file.becoming.get("sha256"))]
    return any(size == told.st_size for size, _ in allowed) and (told.st_size, sha256_of(path)) in allowed


def _clusters(exports: Sequence[_Export]) -> list[list[_Export]]:
    """Exports, the oldest first, of which those in different clusters can have no pair in common."""
    clusters: list[list[_Export]] = []
    for export in exports:
        touched = [cluster for cluster in clusters if any(_may_share(export, other) for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in touched]
        clusters.append([*(each for cluster in touched for each in cluster), export])
    return clusters


def _may_share(one: _Export, other: _Export) -> bool:
    """Whether two exports may hold the same pair: their windows overlap, and no chain has kept them apart."""
    (a_start, a_end), (b_start, b_end) = one.window, other.window
    overlap = a_start < b_end and b_start < a_end
    if not (overlap and one.chain and other.chain):
        return overlap
    (*a_chain, a_number), (*b_chain, b_number) = one.chain, other.chain
    return a_chain != b_chain or a_number == b_number


def _united(cluster: Sequence[_Export], ranges_as_text: bool) -> pl.LazyFrame:
    """The rows of exports that may hold the same pairs; the copy of the newest stays."""
    frames, key = [_scanned(export) for export in sorted(cluster, key=_age)], list(PAIR_KEY)
    if ranges_as_text:
        frames = [frame.with_columns(pl.col("age_range").cast(pl.String)) for frame in frames]
    if len(frames) == 1:
        return frames[0]
    if any(export.precision != "exact" for export in cluster):
        frames = [frame.with_columns(pl.int_range(pl.len()).over(key).alias(_NUMBER)) for frame in frames]
        key.append(_NUMBER)
    united = pl.concat(frames, how="diagonal_relaxed")
    return united.unique(subset=key, keep="last", maintain_order=True).drop(_NUMBER, strict=False)


def _scanned(export: _Export) -> pl.LazyFrame:
    columns = export.manifest.columns
    if missing := [name for name in TRAINING_COLUMNS if name not in columns]:
        raise ExportFileError(f"{export.path} lacks the columns {', '.join(missing)}; leave it out with a pattern.")
    ordered = [*TRAINING_COLUMNS, *(name for name in columns if name not in TRAINING_COLUMNS)]
    if not export.path.name.endswith(".parquet"):
        # Polars reads times three times as fast from text than as a type of the file.
        times = [name for name, dtype in export.types.items() if dtype == pl.Datetime]
        types = {name: pl.String() if name in times else dtype for name, dtype in export.types.items()}
        parsed = pl.col(times).str.to_datetime(ISO_FORMAT, time_unit="us", time_zone="UTC")
        return pl.scan_csv(export.path, schema=types, glob=False).with_columns(parsed).select(ordered)
    frame = pl.scan_parquet(export.path, glob=False).with_columns(pl.col("age_range").cast(export.types["age_range"]))
    found = frame.select(columns).collect_schema()
    if wrong := [name for name, dtype in found.items() if dtype != export.types[name]]:
        raise ExportFileError(f"{export.path} has columns of other types ({', '.join(wrong)}); leave it out.")
    return frame.select(ordered)
