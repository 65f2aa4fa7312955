"""The command that lists the exports of a folder."""

import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feedback_etl.cli.console import echo_err, print_json, print_lines
from feedback_etl.cli.options import Folder, JsonOutput, load_command_settings, open_existing_output
from feedback_etl.cli.tables import print_table
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from feedback_etl.records.manifest import DataFile, Manifest
    from feedback_etl.storage.base import Storage


def list_folder(folder: Folder = None, as_json: JsonOutput = False) -> None:
    """List the exports and the unmanaged files of a folder.

    Unmanaged files are data files without a manifest: erase and prune do not touch them.
    """
    from feedback_etl.exports.maintenance import list_exports
    from feedback_etl.records.audit import AuditLog
    from feedback_etl.records.audit_records import list_unfinished

    storage = open_existing_output(load_command_settings(folder))
    exports, unmanaged = list_exports(storage)
    unfinished_stems = [run["stem"] for run in list_unfinished(AuditLog(storage).records())]
    if as_json:
        listing = {
            "exports": [manifest.to_dict() for manifest in exports],
            "unmanaged": list(map(str, unmanaged)),
            "unfinished": unfinished_stems,
        }
        print_json(listing)
        return
    existing = storage.stat_files(file.path for manifest in exports for file in _list_files(manifest))
    print_exports(exports, existing)
    print_lines(*_suggest_pruning(storage, exports, existing))
    for path in unmanaged:
        print_lines(*_format_unmanaged(storage, path))
    for stem in unfinished_stems:
        print_lines(f"{stem}  unfinished: still running, or interrupted", "    a later command removes its files")
    if not (exports or unmanaged or unfinished_stems):
        echo_err("There are no exports in this folder.")


def print_exports(exports: "Sequence[Manifest]", existing: Collection[str]) -> None:
    """Print a table of the exports of each key, since those of different keys cannot be combined.

    Args:
        exports: Their manifests.
        existing: Paths of the data files that exist.
    """
    for number, key in enumerate(dict.fromkeys(manifest.pseudonyms for manifest in exports)):
        print_lines(*[""] * (number > 0), f"Key: {key or 'none (unkeyed)'}")
        _print_exports([manifest for manifest in exports if manifest.pseudonyms == key], existing)


def _print_exports(exports: "Sequence[Manifest]", existing: Collection[str]) -> None:
    """Print a table of exports, with the numbers of erased rows if there are any."""
    from feedback_etl.database.window import parse_window

    has_erased = any(manifest.erased_rows for manifest in exports)
    rows = []
    for manifest in exports:
        erased = [f"{manifest.erased_rows:,}"] * has_erased
        window = str(parse_window(manifest.window) or "unknown").removesuffix(" UTC")
        rows.append([_get_name(manifest), _count_rows(manifest, existing), *erased, manifest.mode, window])
        for file in manifest.all("items"):
            rows.append([file.path, _count_rows(manifest, existing, file), *[""] * has_erased, "items", window])
    print_table(["Export", "Rows", *["Erased"] * has_erased, "Mode", "Window (UTC)"], rows, right={"Rows", "Erased"})


def _list_files(manifest: "Manifest") -> "list[DataFile]":
    """Return the files with rows that are listed."""
    return manifest.all("pairs") + manifest.all("items")


def _get_name(manifest: "Manifest") -> str:
    """Return the name of the data file, or of the folder of parts."""
    files = manifest.all("pairs")
    is_parted = any("/" in file.path for file in files)
    return f"{manifest.data}/ ({pluralize(len(files), 'part')})" if is_parted else manifest.data or manifest.stem


def _count_rows(manifest: "Manifest", existing: Collection[str], items: "DataFile | None" = None) -> str:
    """Return the number of pairs, or of the rows of a file of items, or what became of the files."""
    if manifest.pruned_at:
        return "pruned"
    files = [items] if items else manifest.all("pairs")
    return f"{sum(file.rows for file in files):,}" if all(file.path in existing for file in files) else "missing"


def _is_missing(manifest: "Manifest", existing: Collection[str]) -> bool:
    """Return whether a data file was removed, but not by prune."""
    return not manifest.pruned_at and any(file.path not in existing for file in _list_files(manifest))


def _suggest_pruning(storage: "Storage", exports: "Iterable[Manifest]", existing: Collection[str]) -> list[str]:
    """Return the commands that record the removal of missing files."""
    folder = shlex.quote(str(storage))
    missing = [manifest.stem for manifest in exports if _is_missing(manifest, existing)]
    heading = "missing: removed, but not by prune, which records it and removes the other files of the export:"
    commands = [f"    feedback-etl prune --export {stem} {folder}" for stem in missing]
    return [heading, *commands] if missing else []


def _format_unmanaged(storage: "Storage", path: Path) -> tuple[str, str]:
    """Describe a data file without a manifest, with the remedy on a second line."""
    from feedback_etl.records.layout import STEM

    folder = storage.local_path()
    name = path.relative_to(folder) if folder else path
    if any(STEM.fullmatch(part) for part in name.parts[:-1]):
        return f"{name}  unmanaged: the manifest of this part is missing", "    restore it, or remove the folder"
    remedy = "adopt requires a local folder: copy the file there, or remove it"
    if folder and not path.is_file():
        remedy = "it is not a regular file: remove it"
    elif folder:
        remedy = f"feedback-etl adopt {shlex.quote(str(path))}"
    return f"{name}  unmanaged: no manifest", f"    {remedy}"
