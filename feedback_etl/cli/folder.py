"""The commands that look after a folder of exports: list, adopt, erase and prune."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_etl.cli.console import counted, print_data, tell
from feedback_etl.cli.options import AllowRowSecurity
from feedback_etl.errors import CheckFailedError, ExportFileError, KeyMissingError, UsageError

if TYPE_CHECKING:
    from feedback_etl.exports.manifest import Manifest
    from feedback_etl.privacy.eraser import ErasureResult
    from feedback_etl.privacy.keys import Key
    from feedback_etl.settings import Settings
    from feedback_etl.storage.base import LocalStorage
    from feedback_etl.storage.object_store import ObjectStorage

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        help="Folder of the exports, or s3://bucket/prefix.",
        metavar="FOLDER",
        show_default="ml/feedback_training",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option("--key-file", help="Another key that made exports; may be repeated.", metavar="FILE"),
]


def list_exports(output: Output = None, as_json: AsJson = False) -> None:
    """List the exports of a folder, and the files that are not ours."""
    from feedback_etl.exports.housekeeping import open_audit_log
    from feedback_etl.exports.maintenance import list_exports
    from feedback_etl.exports.object_recovery import list_unfinished_stems

    folder = folder_of(output)
    exports, foreign = list_exports(folder)
    begun = list_unfinished_stems(open_audit_log(folder).records())
    there = folder.present(file.path for each in exports for file in each.all("pairs"))
    if as_json:
        told = {
            "exports": [each.to_dict() for each in exports],
            "foreign": list(map(str, foreign)),
            "unfinished": begun,
        }
        print_data(json.dumps(told))
        return
    for manifest in exports:
        print_data(_line(manifest, there))
    for path in foreign:
        print_data(_foreign_line(folder, path))
    for stem in begun:
        print_data(f"{stem}  not finished: it is under way, or was killed and is cleared away by a later command")
    if not (exports or foreign or begun):
        tell("There are no exports here.")


def _foreign_line(place: "LocalStorage | ObjectStorage", path: Path) -> str:
    """A data file without a manifest, and what to do about it."""
    from feedback_etl.exports.layout import STEM
    from feedback_etl.storage.base import LocalStorage

    name = path.relative_to(place.path) if isinstance(place, LocalStorage) else path
    if any(STEM.fullmatch(part) for part in name.parts[:-1]):
        return f"{name}  not ours: a part without the manifest of its export (restore that, or remove the folder)"
    advice = (
        f"feedback-etl adopt {path}"
        if isinstance(place, LocalStorage)
        else "adopt takes files of a folder: copy it to one, or remove it"
    )
    return f"{name}  not ours: no manifest ({advice})"


def _line(manifest: "Manifest", there: set[str]) -> str:
    pairs, (start, end) = manifest.all("pairs"), manifest.window
    rows = "pruned" if manifest.pruned_at else counted(manifest.rows, "row")
    if not manifest.pruned_at and any(file.path not in there for file in pairs):
        rows = "missing: not removed by prune"
    is_parted = any("/" in file.path for file in pairs)
    name = f"{manifest.data}/ ({counted(len(pairs), 'part')})" if is_parted else manifest.data or manifest.stem
    erased = f", {manifest.erased_rows:,} erased" if manifest.erased_rows else ""
    window = f"{start or 'the beginning'} to {end}" if end else "of an unknown window"
    return f"{name}  {rows}{erased}  {window}  {manifest.mode}  key {manifest.key_id or 'none: unkeyed'}"


def adopt(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file in the folder.", metavar="FILE")],
    unkeyed: Annotated[bool, typer.Option("--unkeyed", help="Its pseudonyms are plain SHA-256.")] = False,
) -> None:
    """Give a file a manifest, so that erase and prune reach it.

    For older exports and copies. Its pseudonyms are taken to be of the key in force.
    """
    from feedback_etl.exports.adoption import adopt as adopt_file
    from feedback_etl.settings import find_key

    settings = settings_for(None)
    signer = _optional_key(settings)
    key = None if unkeyed else find_key(settings).key
    manifest = adopt_file(file, key=key, signer=signer, lock_timeout=settings.lock_timeout)
    print_data(_line(manifest, {file.path for file in manifest.files}))


def prune(
    keep_days: Annotated[
        int | None,
        typer.Option(
            help="Remove files of exports that are older.", min=0, metavar="N", show_default="retention_days, if set"
        ),
    ] = None,
    keep_last: Annotated[int, typer.Option(help="But keep the newest so many.", min=0, metavar="N")] = 0,
    output: Output = None,
    dry_run: DryRun = False,
) -> None:
    """Remove the files of old exports.

    Their manifests stay, and what has no manifest is never touched.
    """
    from feedback_etl.exports.maintenance import prune as prune_folder

    settings = settings_for(output)
    days = settings.retention_days if keep_days is None else keep_days
    if days is None:
        raise UsageError("Say how long exports are kept: --keep-days 90, or retention_days in the settings.")
    pruned = prune_folder(
        settings.output_dir,
        keep_days=days,
        keep_last=keep_last,
        key=_optional_key(settings),
        dry_run=dry_run,
        lock_timeout=settings.lock_timeout,
    )
    for manifest in pruned.exports:
        print_data(f"{'would remove' if dry_run else 'removed'} {manifest.stem}")
    tell(f"{counted(len(pruned.exports), 'export')} {'would be ' if dry_run else ''}pruned, {len(pruned.kept):,} kept")
    if pruned.foreign:
        tell(f"not ours, and left alone: {counted(len(pruned.foreign), 'file')} (feedback-etl list)")


def erase(
    user_ids_file: Annotated[
        str | None, typer.Option(help="Ids of users, one a line; - for stdin.", metavar="FILE")
    ] = None,
    analysis_ids_file: Annotated[
        str | None, typer.Option(help="Ids of analyses, one a line; - for stdin.", metavar="FILE")
    ] = None,
    not_in_database: Annotated[
        bool, typer.Option("--not-in-database", help="Everybody of whom the database has no feedback.")
    ] = False,
    key_file: KeyFiles = None,
    query: Annotated[
        Path | None, typer.Option(help="File with a SELECT that yields the raw columns.", metavar="FILE.sql")
    ] = None,
    allow_row_security: AllowRowSecurity = None,
    output: Output = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    database_url: Annotated[
        str | None, typer.Option("--database-url", help="Where the feedback is.", metavar="URL")
    ] = None,
) -> None:
    """Erase people from all exports and keep them out.

    Exit code 1 if nothing was found of some ids, which are listed, or if exports were made with keys that are not at
    hand. Ids come from a file, since arguments show in process lists.
    """
    from feedback_etl.database.custom_query import read_query_file
    from feedback_etl.privacy.erasure import erase as erase_from

    settings = settings_for(
        output,
        database_url=database_url,
        query=query,
        allow_row_security=allow_row_security,
    )
    done = erase_from(
        settings.output_dir,
        user_ids=_ids(user_ids_file),
        analysis_ids=_ids(analysis_ids_file),
        not_in_database=not_in_database,
        database=settings.database_url.get_secret_value() if settings.database_url else None,
        query=read_query_file(settings.query) if settings.query else None,
        db_schema=settings.db_schema,
        opt_in_column=settings.opt_in_column,
        opt_out_column=settings.opt_out_column,
        connect_timeout=settings.connect_timeout,
        allow_row_security=settings.allow_row_security,
        keys=keys_at_hand(settings, key_file),
        dry_run=dry_run,
        lock_timeout=settings.lock_timeout,
    )
    if as_json:
        print_data(json.dumps(asdict(done), default=str))
    _tell(done, "would be " if dry_run else "")
    if done.damaged:
        raise ExportFileError(f"{counted(len(done.damaged), 'file')} could not be read, and may hold people to erase.")
    if done.not_found:
        if not as_json:
            for each in done.not_found:
                print_data(each)
        raise CheckFailedError(f"Nothing was found of {counted(len(done.not_found), 'id')}, listed on stdout.")
    if done.without_key:
        raise CheckFailedError("Not every export could be looked into.")


def _tell(done: "ErasureResult", would: str) -> None:
    """What was erased, and what could not be looked into."""
    for name in done.damaged:
        tell(f"damaged, and not looked into: {name}")
    tell(f"{counted(done.rows, 'row')} {would}erased from {counted(len(done.files), 'file')}")
    if done.without_key:
        others = ", ".join(done.without_key)
        tell(f"not looked into, made with other keys (--key-file) or by the application itself: {others}")
    if done.unfinished:
        tell(
            f"not finished, and not looked into: {', '.join(done.unfinished)}. What is published leaves these people "
            "out; what was killed is removed by the first command a day after it began."
        )
    if done.unmanaged:
        tell(f"not looked into, not ours: {counted(len(done.unmanaged), 'file')} (feedback-etl list tells which)")


def _ids(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"The file of ids {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The file of ids {file} is no UTF-8 text.") from None
    return [line for line in (line.strip("\r\t ") for line in text.split("\n")) if line]


def settings_for(output: str | None, **flags: Any) -> "Settings":
    """The settings in force for a command that looks after a folder."""
    from feedback_etl.settings import load_settings

    if output == "":
        raise UsageError("--output is empty: name a folder, or leave the option out.")
    return load_settings(output_dir=output, **flags)


def folder_of(output: str | None) -> "LocalStorage | ObjectStorage":
    """The folder or the prefix of an object store that a command looks at."""
    from feedback_etl.storage.base import open_storage

    return open_storage(settings_for(output).output_dir)


def _optional_key(settings: "Settings") -> "Key | None":
    """The configured key; none where there is none."""
    from feedback_etl.settings import find_key

    try:
        return find_key(settings).key
    except KeyMissingError:
        return None


def keys_at_hand(settings: "Settings", files: list[Path] | None) -> "list[Key]":
    """The keys at hand: the configured one first, then those of the command line, then the retired ones."""
    from feedback_etl.privacy.keys import read_key, read_retired_keys
    from feedback_etl.settings import retired_folder

    key = _optional_key(settings)
    retired = [each.key for each in read_retired_keys(retired_folder(settings))]
    keys = [*([key] if key else []), *map(read_key, files or []), *retired]
    return list(dict.fromkeys(keys))
