"""The command that erases people from exports."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.command_group import option
from feedback_etl.cli.console import echo_err, print_json, write_stdout
from feedback_etl.cli.keys import list_available_keys
from feedback_etl.cli.options import (
    AllowRowSecurity,
    DatabaseUrl,
    DryRun,
    Folder,
    JsonOutput,
    KeyFiles,
    Query,
    RawFiles,
    load_command_settings,
)
from feedback_etl.errors import CheckFailedError, CheckSkippedError, ExportFileError, UsageError
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from feedback_etl.privacy.eraser import ErasureResult
    from feedback_etl.settings.model import Settings


UserIdsFile = Annotated[str | None, option("--user-ids-file", "File of user ids, one per line; - for stdin.", "FILE")]
AnalysisIdsFile = Annotated[
    str | None, option("--analysis-ids-file", "File of analysis ids, one per line; - for stdin.", "FILE")
]
NotInDatabase = Annotated[bool, option("--not-in-database", "Erase everyone who has no feedback in the database.")]
KeepK = Annotated[
    bool, option("--keep-k", "Also remove rows that erasures left in classes smaller than their export's k.")
]


def erase(
    user_ids_file: UserIdsFile = None,
    analysis_ids_file: AnalysisIdsFile = None,
    not_in_database: NotInDatabase = False,
    keep_k: KeepK = False,
    receipt: Annotated[
        str | None,
        typer.Option(help="Write counts, digests and audit head as JSON, for the person's file.", metavar="FILE"),
    ] = None,
    key_file: KeyFiles = None,
    raw_files: RawFiles = None,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    folder: Folder = None,
    dry_run: DryRun = False,
    as_json: JsonOutput = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Erase people from all exports, and keep them out of later ones.

    Exit code 1 if no rows were found for some ids, which are listed on stdout, or if not every export could be
    inspected. Ids come from a file, because process lists show arguments.
    """
    from feedback_etl.privacy.erasure import erase as erase_people
    from feedback_etl.privacy.erasure_receipt import write_receipt

    _require_writable_receipt(receipt, dry_run=dry_run)
    settings = load_command_settings(
        folder, raw_files=raw_files, database_url=database_url, query=query, allow_row_security=allow_row_security
    )
    result = erase_people(
        settings.output_dir,
        user_ids=_read_ids(user_ids_file),
        analysis_ids=_read_ids(analysis_ids_file),
        not_in_database=not_in_database,
        keep_k=keep_k,
        database=settings.database_url.get_secret_value() if settings.database_url else None,
        keys=list_available_keys(settings, key_file),
        dry_run=dry_run,
        lock_timeout=settings.lock_timeout,
        **settings.to_database_keywords(),
    )
    _print_holders(result)
    if receipt:
        write_receipt(result, receipt)
    if as_json:
        print_json(asdict(result))
    elif not result.damaged:  # an id may be in a file that could not be read
        for unknown_id in result.not_found:
            write_stdout(f"{unknown_id}\n".encode())  # data, as it was given
    _print_result(result, dry_run=dry_run)
    _require_complete(result, settings)


def _require_writable_receipt(receipt: str | None, *, dry_run: bool) -> None:
    """Refuse a receipt of a dry run, and one that would replace another.

    Raises:
        UsageError: `dry_run` is set, or the file exists.
    """
    if receipt and dry_run:
        raise UsageError("--receipt has nothing to confirm with --dry-run; leave one of them out.")
    if receipt and Path(receipt).exists():
        raise UsageError(f"--receipt {receipt} exists, and may be of another erasure: name another file.")


def _print_holders(result: "ErasureResult") -> None:
    """Print which models and recipients still have the rows, to stderr."""
    if result.models:
        echo_err(f"trained on exports with such rows, which are still in the models: {', '.join(result.models)}")
    if result.recipients:
        echo_err(f"shared with {', '.join(result.recipients)}: inform them, since their copies still have these rows")


def _print_result(result: "ErasureResult", *, dry_run: bool) -> None:
    """Print what was erased and what could not be inspected, to stderr."""
    for name in result.damaged:
        echo_err(f"not inspected, damaged: {name}")
    rows, files = pluralize(result.rows, "row"), pluralize(len(result.files), "file")
    echo_err(f"{rows} {'would be ' if dry_run else ''}erased from {files}")
    if result.suppressed:
        suppressed = pluralize(result.suppressed, "row")
        echo_err(f"{suppressed} of these {'would be ' if dry_run else ''}removed to keep k (--keep-k)")
    if result.without_key:
        stems = ", ".join(result.without_key)
        echo_err(f"not inspected, made with other keys (pass --key-file) or by the application itself: {stems}")
    if result.unknown_scheme:
        echo_err(
            f"not inspected, adopted with pseudonyms of an unknown scheme: {', '.join(result.unknown_scheme)}. "
            "People to erase may remain there; prune removes it."
        )
    if result.partly_searched:
        echo_err(
            f"not inspected: rows of {', '.join(result.partly_searched)} with unknown pseudonyms, or without one. "
            "People to erase may remain there."
        )
    if result.unfinished:
        echo_err(
            f"not inspected, unfinished: {', '.join(result.unfinished)}. A run that still publishes excludes these "
            "people; files of an interrupted run are removed by the first command after a day."
        )
    if result.unmanaged:
        files = pluralize(len(result.unmanaged), "file")
        echo_err(f"not inspected, without a manifest: {files} (`feedback-etl list` shows them)")
    if result.hard_links:
        echo_err(f"not inspected: the other hard links of {', '.join(result.hard_links)}, which keep the rows")
    if result.not_inspected:
        files = pluralize(len(result.not_inspected), "file")
        echo_err(f"not inspected, outside all exports: {files}: {result.summarize_not_inspected()}")


def _require_complete(result: "ErasureResult", settings: "Settings") -> None:
    """Raise an error if people may remain in the exports, or if an id has no rows."""
    folder = shlex.quote(str(settings.output_dir))
    if result.damaged:
        damaged = pluralize(len(result.damaged), "file")
        raise ExportFileError(
            f"{damaged} could not be read and may contain people to erase. Restore what is damaged from a backup, or "
            f"remove its export (feedback-etl prune --export NAME {folder}), and run the erasure again."
        )
    if result.not_found:
        raise CheckFailedError(f"No rows were found for {pluralize(len(result.not_found), 'id')}, listed on stdout.")
    if result.without_key:
        raise CheckFailedError("Not every export could be inspected: pass the missing keys with --key-file.")
    if result.unknown_scheme:
        raise CheckFailedError(
            "Not every export could be inspected: remove those of an unknown scheme (feedback-etl prune --export NAME "
            f"{folder})."
        )
    if result.partly_searched:
        raise CheckSkippedError(
            "People to erase may remain in rows of adopted files with unknown pseudonyms: erase what is not in the "
            f"database (feedback-etl erase --not-in-database {folder}), or remove the files (feedback-etl prune "
            f"--export NAME {folder})."
        )
    if not_searched := len(result.unmanaged) + len(result.not_inspected) + len(result.hard_links):
        raise CheckSkippedError(
            f"People to erase may remain in {pluralize(not_searched, 'file')} that no erasure searches: adopt or "
            "remove what contains feedback."
        )


def _read_ids(file: str | None) -> list[str]:
    """Read ids, one per line, from a file or from stdin ("-"); return none without a file."""
    if file is None:
        return []
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"There is no id file {file}.") from None
    except OSError as error:
        raise UsageError(f"The id file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The id file {file} is not UTF-8 text.") from None
    return [line for line in (line.strip("\r\t ") for line in text.split("\n")) if line]
