"""Find the committed exports that a folder, URL or pattern names, and compare their files with their manifests."""

import glob
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import DATA_FOLDERS, DATA_SUFFIXES, manifest_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import FileInfo, Storage
from feedback_etl.storage.errors import explain_read_errors
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.urls import is_object_store, refuse_unsupported_url
from feedback_etl.training.committed_export import CommittedExport, get_recency_key

ExportPaths = str | Path | Sequence[str | Path]
"""A folder, URL, pattern or file, or several of them."""


def find_exports(where: ExportPaths) -> list[CommittedExport]:
    """Find the exports that folders, URLs, patterns or files name, each once, the oldest first.

    Raises:
        ExportFileError: A data file has no manifest, or a manifest cannot be read; or one of several names nothing.
        UsageError: The URL is not supported.
    """
    if isinstance(where, str | Path):
        refuse_unsupported_url(str(where))
        find = _find_in_object_store if is_object_store(str(where)) else _find_in_folders
        return sorted(find(str(where)), key=get_recency_key)
    exports: dict[str, CommittedExport] = {}
    for export in (export for path in where for export in require_exports(find_exports(path), path)):
        files = {file.path: file for file in (*exports.get(export.address, export).files, *export.files)}
        ordered = [file for file in export.manifest.all("pairs") if file.path in files]
        exports[export.address] = export._replace(files=ordered)
    return sorted(exports.values(), key=get_recency_key)


def _find_in_object_store(url: str) -> Iterator[CommittedExport]:
    """Find the exports below a prefix, whose last part can be a pattern of names."""
    prefix, _, last = url.rpartition("/")
    has_pattern = any(wildcard in last for wildcard in "*?[")
    exports = list_committed(open_storage(prefix if has_pattern else url))
    return (export for export in exports if not has_pattern or fnmatchcase(export.name, last))


def _find_in_folders(pattern: str) -> Iterator[CommittedExport]:
    """Find the exports in the named folders, and the named files of other exports."""
    paths = _expand(pattern)
    folders = {path for path in paths if path.is_dir()}
    files = {path for path in paths if path not in folders}
    exports = [
        export for folder in {*map(_find_folder, paths), *folders} for export in list_committed(open_storage(folder))
    ]
    managed = {Path(export.storage.uri(file.path)) for export in exports for file in export.files}
    if unmanaged := sorted(files - managed):
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


def list_committed(storage: Storage) -> Iterator[CommittedExport]:
    """List the exports of a storage that have pairs and were not pruned."""
    with explain_read_errors(storage):
        for manifest in list_manifests(storage):
            if not manifest.pruned_at and manifest.all("pairs"):
                yield CommittedExport.from_manifest(storage, manifest)


def _expand(pattern: str) -> list[Path]:
    """Return the folders and data files that a path or pattern names, without files of rejected rows and of items."""
    names = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)  # noqa: PTH207  absolute too
    return [path for path in map(Path, names) if path.is_dir() or _is_data_file(path)]


def _is_data_file(path: Path) -> bool:
    return path.name.endswith(DATA_SUFFIXES) and {*DATA_FOLDERS}.isdisjoint(path.parts[-3:-1])


def _find_folder(path: Path) -> Path:
    """Return the folder of exports that contains a data file, a part, or a folder of parts."""
    is_part = (path.parent.parent / manifest_path(path.parent.name)).is_file()
    return path.parent.parent if is_part else path.parent


def require_exports(exports: list[CommittedExport], where: ExportPaths) -> list[CommittedExport]:
    """Return the exports.

    Raises:
        ExportFileError: There are none; for a folder or prefix, the message counts pruned exports.
    """
    if not exports:
        where = where if isinstance(where, str | Path) else ", ".join(map(str, where)) or "An empty list"
        raise build_no_export_error(where, _count_pruned(str(where)))
    return exports


def build_no_export_error(where: object, pruned: int) -> ExportFileError:
    """Return the error for a folder without an export that has its files."""
    note = f" ({pruned:,} pruned)" if pruned else ""
    return ExportFileError(f"{where} contains no export with its files{note}; create one with `feedback-etl export`.")


def _count_pruned(where: str) -> int:
    if not (is_object_store(where) or Path(where).is_dir()):
        return 0
    with explain_read_errors(where):
        return sum(bool(manifest.pruned_at) for manifest in list_manifests(open_storage(where)))


def require_unchanged(exports: list[CommittedExport], keys: Sequence[Key], where: ExportPaths) -> None:
    """Require that the manifests of exports and the audit logs of their folders agree, and verify their MACs with keys.

    Without keys, a folder without a log passes: it may be a copy.

    Raises:
        ExportFileError: They were changed, or cannot be verified.
    """
    with explain_read_errors(where):
        for storage in {str(export.storage): export.storage for export in exports}.values():
            result = verify_folder(storage, keys)
            problems = result.problems if keys else result.tampering if result.records else []
            problems += ["no key protects it"] if keys and not result.is_protected else []
            if problems:
                raise ExportFileError(
                    f"{storage} does not verify: {problems[0]} ({len(problems):,} in all). Restore its files; "
                    "`feedback-etl audit verify` shows all problems."
                )


def refresh(export: CommittedExport, *, verify: bool, kind: str = "pairs") -> CommittedExport | None:
    """Return an export whose files match its manifest, as it is now; None if it was pruned meanwhile.

    An erasure may have rewritten manifest and files since the manifest was read, so a mismatch is checked again with
    the current manifest, whose files of one kind are returned.

    Raises:
        ExportFileError: A file is missing, truncated or changed.
    """
    with explain_read_errors(export.address):
        if not (mismatch := _find_mismatch(export, verify=verify)):
            return export
        stem, others = export.manifest.stem, list_committed(export.storage)
        current = next((other.with_kind(kind) for other in others if other.manifest.stem == stem), None)
        if current is None or not (mismatch := _find_mismatch(current, verify=True)):
            return current
    prune = f"feedback-etl prune --export {export.manifest.stem} {shlex.quote(str(export.storage))}"
    raise ExportFileError(
        f"{export.storage.uri(mismatch)} does not match its manifest: it is missing, truncated or changed. Restore "
        f"it, or remove its export with `{prune}` and export its window again."
    )


def _find_mismatch(export: CommittedExport, *, verify: bool) -> str:
    """Return the path of the first file that does not match the manifest; "" if all do."""
    existing = export.storage.stat_files(file.path for file in export.files)
    matches = (_is_match(export, file, existing.get(file.path), verify=verify) for file in export.files)
    return next((file.path for file, is_match in zip(export.files, matches, strict=True) if not is_match), "")


def _is_match(export: CommittedExport, file: DataFile, info: FileInfo | None, *, verify: bool) -> bool:
    """Return whether a file matches; its digest is compared if it may have changed, or to `verify`."""
    if info is None or info.bytes not in dict(file.versions):
        return False
    is_unchanged = info.bytes == file.bytes and not verify and _is_unchanged(export, file, info)
    return is_unchanged or export.storage.stat_with_digest(file.path) in file.versions


def _is_unchanged(export: CommittedExport, file: DataFile, info: FileInfo) -> bool:
    """Return whether a file is as it was when its manifest was written: by its ETag, or by its time in a folder."""
    if file.etag:
        return info.version == file.etag
    manifest = manifest_path(export.manifest.stem)
    return not file.becoming and info.modified_ns < export.storage.stat_files([manifest])[manifest].modified_ns
