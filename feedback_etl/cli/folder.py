"""Commands for a folder of exports: list, adopt and prune."""

import shlex
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.console import echo_err, print_json, print_lines
from feedback_etl.cli.keys import find_optional_key
from feedback_etl.cli.options import DryRun, JsonOutput, OutputFolder, load_command_settings, open_existing_output
from feedback_etl.errors import UsageError
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from feedback_etl.records.manifest import Manifest
    from feedback_etl.storage.base import Storage


def list_folder(output: OutputFolder = None, as_json: JsonOutput = False) -> None:
    """List the exports and the unmanaged files of a folder.

    Unmanaged files are data files without a manifest: erase and prune do not touch them.
    """
    from feedback_etl.exports.maintenance import list_exports
    from feedback_etl.records.audit import AuditLog
    from feedback_etl.records.audit_records import list_unfinished

    storage = open_existing_output(load_command_settings(output))
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
    existing = storage.stat_files(file.path for manifest in exports for file in manifest.all("pairs"))
    for manifest in exports:
        print_lines(*_format_export(manifest, existing))
        if not manifest.pruned_at and any(file.path not in existing for file in manifest.all("pairs")):
            print_lines(f"    feedback-etl prune --export {manifest.stem} --output {shlex.quote(str(storage))}")
    for path in unmanaged:
        print_lines(*_format_unmanaged(storage, path))
    for stem in unfinished_stems:
        print_lines(f"{stem}  unfinished: still running, or interrupted", "    a later command removes its files")
    if not (exports or unmanaged or unfinished_stems):
        echo_err("There are no exports in this folder.")


def adopt(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file in the folder of the exports.", metavar="FILE")],
    unkeyed: Annotated[bool, typer.Option("--unkeyed", help="The file's pseudonyms are plain SHA-256.")] = False,
) -> None:
    """Create a manifest for a file that has none.

    Afterwards erase and prune include the file. Its pseudonyms are compared with those of the active key in the
    database, if one is configured, and in the exports of the folder: if fewer than half are known, erase cannot search
    the file.
    """
    from feedback_etl.compliance.application_database import summarize_database
    from feedback_etl.exports.adoption import UNKNOWN_SCHEME, has_unknown_rows
    from feedback_etl.exports.adoption import adopt as adopt_file
    from feedback_etl.settings.keys import find_key

    settings = load_command_settings()
    signer = find_optional_key(settings)
    key = None if unkeyed else find_key(settings).key.with_length(settings.pseudonym_length)
    database = summarize_database(settings)
    analyses = database.analyses if database else []
    manifest = adopt_file(file, key=key, analyses=analyses, signer=signer, lock_timeout=settings.lock_timeout)
    print_lines(*_format_export(manifest, {data_file.path for data_file in manifest.files}))
    if manifest.scheme == UNKNOWN_SCHEME:
        echo_err(
            "Its pseudonyms are of an unknown scheme: fewer than half are those of the configured database or of other "
            "exports of this key. erase cannot search it; prune removes it."
        )
    elif has_unknown_rows(manifest):
        echo_err(
            "Some of its rows have pseudonyms that are neither in the configured database nor in other exports of this "
            "key, or none: erase cannot search these rows. erase --not-in-database removes the former."
        )


def prune(
    keep_days: Annotated[
        int | None,
        typer.Option(
            help="Remove the files of exports older than N days.  [default: retention_days of the settings]",
            metavar="N",
        ),
    ] = None,
    keep_last: Annotated[int, typer.Option(help="Always keep the newest N exports, however old.", metavar="N")] = 0,
    export: Annotated[
        list[str] | None,
        typer.Option(help="Remove the files of this export instead, however young; may be repeated.", metavar="NAME"),
    ] = None,
    output: OutputFolder = None,
    dry_run: DryRun = False,
) -> None:
    """Remove the files of old exports, or of named ones.

    Their manifests stay, and the audit log records the removal. Files without a manifest are never touched.
    """
    from feedback_etl.exports.maintenance import prune as prune_folder

    if export and (keep_days is not None or keep_last):
        raise UsageError("--export and --keep-days or --keep-last exclude each other: give one of them.")
    settings = load_command_settings(output)
    days = settings.retention_days if keep_days is None else keep_days
    if days is None and not export:
        raise UsageError("No retention period is configured: pass --keep-days, or set retention_days.")
    result = prune_folder(
        settings.output_dir,
        keep_days=None if export else days,
        keep_last=keep_last,
        exports=export or (),
        key=find_optional_key(settings),
        dry_run=dry_run,
        lock_timeout=settings.lock_timeout,
    )
    for manifest in result.exports:
        print_lines(f"{'would remove' if dry_run else 'removed'} {manifest.stem}")
    pruned = pluralize(len(result.exports), "export")
    echo_err(f"{pruned} {'would be ' if dry_run else ''}pruned, {len(result.kept):,} kept")
    if result.unmanaged:
        files = pluralize(len(result.unmanaged), "file")
        echo_err(f"not touched, without a manifest: {files} (`feedback-etl list` shows them)")


def _format_export(manifest: "Manifest", existing: Container[str]) -> tuple[str, str]:
    """Describe an export in two lines of 80 columns.

    Args:
        manifest: The manifest of the export.
        existing: Paths of the data files that exist.
    """
    from feedback_etl.database.window import parse_window

    files = manifest.all("pairs")
    rows = "pruned" if manifest.pruned_at else pluralize(manifest.rows, "row")
    if not manifest.pruned_at and any(file.path not in existing for file in files):
        rows = "missing: removed, but not by prune"
    is_parted = any("/" in file.path for file in files)
    name = f"{manifest.data}/ ({pluralize(len(files), 'part')})" if is_parted else manifest.data or manifest.stem
    erased = f", {manifest.erased_rows:,} erased" if manifest.erased_rows else ""
    window, key = parse_window(manifest.window) or "unknown window", manifest.pseudonyms or "none (unkeyed)"
    return f"{name}  {rows}{erased}  {manifest.mode}", f"    {window}  key {key}"


def _format_unmanaged(storage: "Storage", path: Path) -> tuple[str, str]:
    """Describe a data file without a manifest, with the remedy on a second line."""
    from feedback_etl.records.layout import STEM

    folder = storage.local_path()
    name = path.relative_to(folder) if folder else path
    if any(STEM.fullmatch(part) for part in name.parts[:-1]):
        return f"{name}  unmanaged: the manifest of this part is missing", "    restore it, or remove the folder"
    remedy = "adopt requires a local folder: copy the file there, or remove it"
    if folder:
        remedy = f"feedback-etl adopt {shlex.quote(str(path))}"
    return f"{name}  unmanaged: no manifest", f"    {remedy}"
