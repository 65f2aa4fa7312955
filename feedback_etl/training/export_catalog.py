"""Committed exports that a folder, URL or pattern names, and verification of their files against their manifests."""

import glob
from collections.abc import Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl

from feedback_etl.columns import AGE_EDGES
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.catalog import list_manifests
from feedback_etl.exports.layout import DATA_SUFFIXES, REJECTED_FOLDER, manifest_path
from feedback_etl.exports.manifest import DataFile, Manifest
from feedback_etl.storage.base import FileInfo, Storage
from feedback_etl.storage.errors import explain_read_errors
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url
from feedback_etl.transform.expressions import age_ranges


class ExportKind(NamedTuple):
    """Properties that exports must have in common to be combined: otherwise equal people or pairs differ between them.

    Attributes:
        key: Origin of the pseudonyms: the id of the key, "unkeyed", or a function of the application.
        precision: Precision of the times.
        age_edges: Lower bounds of the age ranges, or the function of the application that names them, in words.
        recommendation_id: Form of recommendation_id, "keep" or "hash".
    """

    key: str
    precision: str
    age_edges: str
    recommendation_id: str


class CommittedExport(NamedTuple):
    """An export whose files exist.

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

    @property
    def name(self) -> str:
        """Return the name of its file, or of the folder of its parts."""
        return self.files[0].path.split("/")[0]

    @property
    def address(self) -> str:
        """Return the path or URL of its file, or of the folder of its parts."""
        return self.storage.uri(self.name)

    @property
    def age_edges(self) -> tuple[int, ...]:
        """Return the lower bounds of its age ranges."""
        return tuple(self.manifest.settings.get("age_edges", AGE_EDGES))

    @property
    def age_type(self) -> pl.DataType:
        """Return the type of its age ranges: text where the application names them itself."""
        return pl.String() if "bucket_age" in self.manifest.overridden else age_ranges(self.age_edges)

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
        return ExportKind(key, self.precision, edges, self.get_setting("recommendation_id", "keep"))


def may_share_pairs(first: CommittedExport, second: CommittedExport) -> bool:
    """Return whether two exports can contain the same pair.

    They can if their windows overlap, unless they are different exports of one incremental series.
    """
    (first_start, first_end), (second_start, second_end) = first.window, second.window
    overlap = first_start < second_end and second_start < first_end
    if not (overlap and first.series and second.series):
        return overlap
    (*first_series, first_number), (*second_series, second_number) = first.series, second.series
    return first_series != second_series or first_number == second_number


def recency_key(export: CommittedExport) -> tuple[str, int, str]:
    """Return a sort key that puts the newest export last; `..._10` is newer than `..._9`."""
    return export.manifest.created_at, len(export.name), export.address


def find_exports(where: str | Path) -> list[CommittedExport]:
    """Find the exports that a folder, URL or pattern names, the oldest first.

    Raises:
        ExportFileError: A data file has no manifest, or a manifest cannot be read.
    """
    refuse_unsupported_url(str(where))
    exports = [export for storage in resolve_pattern(where) for export in list_committed(storage)]
    if is_object_store(str(where)):
        _, pattern = _split_url(str(where))
        exports = [export for export in exports if fnmatchcase(export.name, pattern)]
    else:
        exports = list(_select_named(exports, _expand(where)))
    return sorted(exports, key=recency_key)


def resolve_pattern(where: str | Path) -> list[Storage]:
    """Return the storages that contain what a folder, URL or pattern names."""
    if is_object_store(str(where)):
        prefix, _ = _split_url(str(where))
        return [open_storage(prefix)]
    paths = _expand(where)
    return [open_storage(path) for path in {*map(_exports_folder, paths), *filter(Path.is_dir, paths)}]


def list_committed(storage: Storage) -> Iterator[CommittedExport]:
    """List the exports of a storage that have pairs and were not pruned."""
    with explain_read_errors(storage):
        for manifest in list_manifests(storage):
            if not manifest.pruned_at and manifest.all("pairs"):
                yield CommittedExport.from_manifest(storage, manifest)


def _split_url(url: str) -> tuple[str, str]:
    """Split a URL of an object store into its prefix and the pattern of names at its end."""
    prefix, _, last = url.rpartition("/")
    return (prefix, last) if any(wildcard in last for wildcard in "*?[") else (url, "*")


def _expand(where: str | Path) -> list[Path]:
    """Return the folders and data files that a path or pattern names, without files of rejected rows."""
    names = [str(where)] if Path(where).exists() else glob.glob(str(where), recursive=True)  # noqa: PTH207  absolute too
    return [path for path in map(Path, names) if path.is_dir() or _is_data_file(path)]


def _is_data_file(path: Path) -> bool:
    return path.name.endswith(DATA_SUFFIXES) and REJECTED_FOLDER not in path.parts[-3:-1]


def _exports_folder(path: Path) -> Path:
    """Return the folder of exports that contains a data file, a part, or a folder of parts."""
    is_part = (path.parent.parent / manifest_path(path.parent.name)).is_file()
    return path.parent.parent if is_part else path.parent


def _select_named(exports: Sequence[CommittedExport], paths: Sequence[Path]) -> Iterator[CommittedExport]:
    """Select the exports in the named folders, and the named files of others."""
    folders = {path for path in paths if path.is_dir()}
    files = {path for path in paths if path not in folders}
    known = {Path(export.storage.uri(file.path)) for export in exports for file in export.files}
    if unmanaged := sorted(files - known):
        raise ExportFileError(
            f"{unmanaged[0]} ({len(unmanaged):,} in all) has no manifest, so it may be incomplete. Create one with "
            "`feedback-etl adopt FILE`, or name the folder, which ignores such files."
        )
    for export in exports:
        path = Path(export.address)
        if path in folders or path.parent in folders:
            yield export
        elif named := [file for file in export.files if Path(export.storage.uri(file.path)) in files]:
            yield export._replace(files=named)


def require_exports(exports: list[CommittedExport], where: str | Path) -> list[CommittedExport]:
    """Return the exports.

    Raises:
        ExportFileError: There are none; for a folder or prefix, the message counts pruned exports.
    """
    if not exports:
        pruned = f" ({count:,} pruned)" if (count := _count_pruned(str(where))) else ""
        raise ExportFileError(f"{where} contains no export with its files{pruned}; see `feedback-etl list`.")
    return exports


def _count_pruned(where: str) -> int:
    if not (is_object_store(where) or Path(where).is_dir()):
        return 0
    with explain_read_errors(where):
        return sum(bool(manifest.pruned_at) for manifest in list_manifests(open_storage(where)))


def refresh(export: CommittedExport, *, verify: bool) -> CommittedExport | None:
    """Return an export whose files match its manifest, as it is now; None if it was pruned meanwhile.

    An erasure may have rewritten manifest and files since the manifest was read, so a mismatch is checked again with
    the current manifest.

    Raises:
        ExportFileError: A file is missing, truncated or changed.
    """
    with explain_read_errors(export.address):
        if not (mismatch := _find_mismatch(export, verify=verify)):
            return export
        current = next((other for other in list_committed(export.storage) if other.name == export.name), None)
        if current is None or not (mismatch := _find_mismatch(current, verify=True)):
            return current
    raise ExportFileError(
        f"{export.storage.uri(mismatch)} does not match its manifest: it is missing, truncated or changed. Restore "
        "it, or remove it together with its manifest and export its window again."
    )


def _find_mismatch(export: CommittedExport, *, verify: bool) -> str:
    """Return the path of the first file that does not match the manifest; "" if all do."""
    existing = export.storage.stat_files(file.path for file in export.files)
    matches = (_is_match(export, file, existing.get(file.path), verify=verify) for file in export.files)
    return next((file.path for file, is_match in zip(export.files, matches, strict=True) if not is_match), "")


def _is_match(export: CommittedExport, file: DataFile, info: FileInfo | None, *, verify: bool) -> bool:
    """Return whether a file matches; its digest is compared if it may have changed, or to `verify`."""
    versions = _versions(file)
    if info is None or info.bytes not in dict(versions):
        return False
    is_unchanged = info.bytes == file.bytes and not verify and _is_unchanged(export, file, info)
    return is_unchanged or export.storage.stat_with_digest(file.path) in versions


def _is_unchanged(export: CommittedExport, file: DataFile, info: FileInfo) -> bool:
    """Return whether a file is as it was when its manifest was written: by its ETag, or by its time in a folder."""
    if file.etag:
        return info.version == file.etag
    manifest = manifest_path(export.manifest.stem)
    return not file.becoming and info.modified_ns < export.storage.stat_files([manifest])[manifest].modified_ns


def _versions(file: DataFile) -> list[tuple[int, str]]:
    """Return size and digest of a file, and of its announced replacement."""
    replacement = [(file.becoming["bytes"], file.becoming["sha256"])] if file.becoming else []
    return [(file.bytes, file.sha256), *replacement]
