"""A committed export, and the properties that decide whether it can be combined with others."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.records.canonical_json import hash_settings
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.schema.record import record_schema
from feedback_etl.storage.base import Storage
from feedback_etl.transform.age_hierarchy import exported_age_ranges


class ExportKind(NamedTuple):
    """Properties that exports must have in common to be combined: otherwise equal people or pairs differ between them.

    Attributes:
        key: Origin of the pseudonyms: the id of the key, "unkeyed", or a function of the application.
        precision: Precision of the times.
        age_edges: Lower bounds of the age ranges, or the function of the application that names them, in words.
        recommendation_id: Form of recommendation_id, "keep" or "hash".
        schema: The ratings of the feedback, and a digest of its schema.
    """

    key: str
    precision: str
    age_edges: str
    recommendation_id: str
    schema: str


class CommittedExport(NamedTuple):
    """An export of a folder with its storage; its files exist unless it was pruned.

    Attributes:
        storage: Storage of the export.
        files: Files of its pairs: one, or its parts in the order of their rows.
        manifest: Its manifest.
        window: Half-open window of its rows; as wide as possible where it is unknown.
        series: Of an incremental export, the storage and settings of its series, and its number in the series.
    """

    storage: Storage
    files: list[DataFile]
    manifest: Manifest
    window: tuple[datetime, datetime]
    series: tuple[str, str, int] | None

    @classmethod
    def from_manifest(cls, storage: Storage, manifest: Manifest) -> Self:
        """Return the export that a manifest describes."""
        start, end = (datetime.fromisoformat(time) if time else None for time in manifest.window)
        series = (str(storage), manifest.settings_digest, manifest.chain["number"]) if manifest.chain else None
        return cls(storage, manifest.all("pairs"), manifest, (start or datetime.min, end or datetime.max), series)

    def with_kind(self, kind: str) -> Self:
        """Return the export with its files of a kind instead of those of its pairs."""
        return self._replace(files=self.manifest.all(kind))

    @property
    def name(self) -> str:
        """Return the name of the file of its pairs, or of the folder of their parts."""
        return self.manifest.data

    @property
    def address(self) -> str:
        """Return the path or URL of its file, or of the folder of its parts."""
        return self.storage.uri(self.name)

    @property
    def age_edges(self) -> tuple[int, ...]:
        """Return the lower bounds of its age ranges."""
        return self.manifest.schema.age_edges

    @property
    def age_type(self) -> pl.DataType:
        """Return the type of its age ranges: text where the application names them itself."""
        return pl.String() if "bucket_age" in self.manifest.overridden else exported_age_ranges(self.manifest.settings)

    def get_setting(self, name: str, default: str) -> str:
        """Return a setting of the export; the default if the manifest does not contain it."""
        return str(self.manifest.settings.get(name, default))

    @property
    def precision(self) -> str:
        """Return the precision of its times."""
        return self.get_setting("timestamp_precision", "exact")

    @property
    def kind(self) -> ExportKind:
        """Return its kind: exports of equal kinds can be combined."""
        function = self.manifest.overridden.get("bucket_age")
        edges = f"by {function}" if function else f"from {', '.join(map(str, self.age_edges))}"
        key = self.manifest.pseudonyms or "unkeyed"
        schema = self.manifest.schema
        ratings = f"{'/'.join(schema.rating_names)} {hash_settings(record_schema(schema)['schema'])[:8]}"
        return ExportKind(key, self.precision, edges, self.get_setting("recommendation_id", "keep"), ratings)


def may_share_pairs(first: CommittedExport, second: CommittedExport) -> bool:
    """Return whether two exports can contain the same pair.

    They can if their windows overlap, unless they are different exports of one incremental series. If that follows
    changes, its exports contain versions of the same pairs.
    """
    (first_start, first_end), (second_start, second_end) = first.window, second.window
    is_overlapping = first_start < second_end and second_start < first_end
    is_one_series = first.series and second.series and first.series[:2] == second.series[:2]
    if is_one_series and first.get_setting("cursor", ""):
        return True
    return is_overlapping and not (is_one_series and first.series != second.series)


def get_recency_key(export: CommittedExport) -> tuple[str, int, str, str]:
    """Return a sort key that puts the newest export last; `..._10.csv` is newer than `..._9.parquet`."""
    stem = export.name.partition(".")[0]
    return export.manifest.created_at, len(stem), stem, export.address


def sort_by_recency(exports: Sequence[CommittedExport]) -> list[CommittedExport]:
    """Return exports with the newest last; those of a series in its order, even if the clock went back meanwhile."""
    newest: dict[tuple[str, str], tuple[str, int, str, str]] = {}
    keys = {}
    for export in sorted(exports, key=lambda export: export.series[2] if export.series else 0):
        key = get_recency_key(export)
        if export.series:
            key = newest[export.series[:2]] = max(key, newest.get(export.series[:2], key))
        keys[export.address] = key, export.series[2] if export.series else 0
    return sorted(exports, key=lambda export: keys[export.address])
