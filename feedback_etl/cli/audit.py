"""Commands for the audit log: show and verify."""

from typing import Annotated, Any

import typer

from feedback_etl.cli.command_group import FolderCommand, option
from feedback_etl.cli.console import echo_err, print_json, print_lines
from feedback_etl.cli.keys import list_available_keys
from feedback_etl.cli.options import Folder, JsonOutput, KeyFiles, load_command_settings, open_existing_output
from feedback_etl.cli.tables import print_table
from feedback_etl.errors import CheckFailedError, UsageError
from feedback_etl.plurals import pluralize

audit_app = typer.Typer(
    help="Show and verify the tamper-evident audit log of exports.",
    epilog="Example: feedback-etl audit verify",
    no_args_is_help=True,
)
StoredHead = Annotated[str | None, option("--head", "A head of the log that was stored elsewhere.")]
_SHOWN_DETAILS = ("stem", "outcome", "rows", "exports", "error")


@audit_app.command("show", cls=FolderCommand, epilog="Example: feedback-etl audit show --json")
def show_log(folder: Folder = None, as_json: JsonOutput = False) -> None:
    """Print the audit log, oldest record first."""
    from feedback_etl.records.audit import AuditLog

    records = AuditLog(open_existing_output(load_command_settings(folder))).records()
    if as_json:
        for record in records:
            print_json(record)
        return
    rows = [
        (
            record["at"][:19].replace("T", " "),
            record["event"],
            f"{record['user']}@{record['host']}",
            "; ".join(_format_detail(name, record[name]) for name in _SHOWN_DETAILS if name in record),
        )
        for record in records
    ]
    if rows:
        print_table(["Time (UTC)", "Event", "By", "Details"], rows)
    else:
        echo_err("There is no audit log in this folder.")


def _format_detail(name: str, value: Any) -> str:
    """Return a field of a record with its name; the name of an export by itself."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if name == "stem" else f"{name} {text}"


@audit_app.command("verify", cls=FolderCommand, epilog="Example: feedback-etl audit verify --key-file old_key")
def verify_log(
    folder: Folder = None, key_file: KeyFiles = None, head: StoredHead = None, as_json: JsonOutput = False
) -> None:
    """Verify audit log, manifests and data files.

    The list of erased people is verified too. Exit code 1 if something was changed, if it cannot be verified without
    its key, or if no key protects the folder.
    """
    from feedback_etl.records.audit_verification import verify_folder

    if head == "":  # an unset variable in a script
        raise UsageError("--head is empty: pass the head that was stored.")
    settings = load_command_settings(folder)
    storage = open_existing_output(settings)
    result = verify_folder(storage, list_available_keys(settings, key_file), data=True, head=head or "")
    if not result.records and not result.problems:
        raise UsageError(f"{storage} contains no audit log and no exports: check the name of the folder.")
    if as_json:
        print_json(result._asdict())
    else:
        for problem in result.problems:
            print_lines(problem)
        print_lines(f"{pluralize(result.records, 'record')}, head {result.head}")
        if result.unsigned and result.is_protected:
            echo_err(f"{pluralize(result.unsigned, 'record')} without a signature: anyone could have written them")
    if result.unknown and result.unknown == len(result.problems):
        unknown = pluralize(result.unknown, "signature")
        raise CheckFailedError(f"{unknown} cannot be verified without the signing key: pass it with --key-file.")
    if result.records and not result.is_protected and not result.problems:
        raise CheckFailedError(
            f"No key protects {storage}: anyone who can write there can change everything. Export with a key into "
            "another folder (--output); `feedback-etl keys new` creates a key."
        )
    if not (result.problems or result.unsigned or as_json):
        echo_err("No change was found: audit log, manifests, data files and the list of erased people verify.")
    if result.problems:
        raise CheckFailedError(f"The audit log does not verify: {pluralize(len(result.problems), 'problem')} found.")
