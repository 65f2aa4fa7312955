"""Commands that change a folder of exports: adopt and prune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.command_group import option
from feedback_etl.cli.console import echo_err, print_lines
from feedback_etl.cli.keys import find_optional_key
from feedback_etl.cli.listing import print_exports
from feedback_etl.cli.options import DryRun, Folder, load_command_settings
from feedback_etl.errors import UsageError
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from feedback_etl.exports.maintenance import PruneResult
    from feedback_etl.settings.model import Settings


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
    print_exports([manifest], {data_file.path for data_file in manifest.files})
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


KeepDays = Annotated[
    int | None,
    option(
        "--keep-days", "Remove the files of exports older than N days.  [default: retention_days of the settings]", "N"
    ),
]
KeepLast = Annotated[
    int, option("--keep-last", "Keep the newest N exports even if they are older than --keep-days.", "N")
]
Exports = Annotated[
    list[str] | None,
    option("--export", "Remove the files of this export instead, however young; may be repeated.", "NAME"),
]


def prune(
    keep_days: KeepDays = None,
    keep_last: KeepLast = 0,
    export: Exports = None,
    folder: Folder = None,
    dry_run: DryRun = False,
) -> None:
    """Remove the files of old exports, or of named ones.

    Their manifests stay, and the audit log records the removal. Files without a manifest are never touched.
    """
    from feedback_etl.exports.maintenance import prune as prune_folder

    if export and (keep_days is not None or keep_last):
        raise UsageError("--export removes the named exports: leave --keep-days and --keep-last out.")
    settings = load_command_settings(folder)
    result = prune_folder(
        settings.output_dir,
        keep_days=None if export else _resolve_keep_days(settings, keep_days, keep_last),
        keep_last=keep_last,
        exports=export or (),
        key=find_optional_key(settings),
        dry_run=dry_run,
        lock_timeout=settings.lock_timeout,
    )
    _print_pruned(result, dry_run=dry_run)


def _resolve_keep_days(settings: "Settings", keep_days: int | None, keep_last: int) -> int:
    """Return the days of --keep-days, or those of the settings.

    Raises:
        UsageError: Neither names a number of days.
    """
    days = settings.retention_days if keep_days is None else keep_days
    if days is None:
        only = "--keep-last removes nothing by itself. " if keep_last else ""
        raise UsageError(f"{only}No retention period is configured: pass --keep-days, or set retention_days.")
    return days


def _print_pruned(result: "PruneResult", *, dry_run: bool) -> None:
    """Print the names of the removed exports to stdout, and the counts to stderr."""
    for manifest in result.exports:
        print_lines(f"{'would remove' if dry_run else 'removed'} {manifest.stem}")
    pruned = pluralize(len(result.exports), "export")
    echo_err(f"{pruned} {'would be ' if dry_run else ''}pruned, {len(result.kept):,} kept")
    if result.pending_rows:
        rows = pluralize(result.pending_rows, "row")
        echo_err(f"{rows} pending for k people {'would be ' if dry_run else ''}removed")
    if result.unmanaged:
        files = pluralize(len(result.unmanaged), "file")
        echo_err(f"not touched, without a manifest: {files} (`feedback-etl list` shows them)")
