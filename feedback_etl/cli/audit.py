"""Commands for the audit log: show and verify."""

from typing import Annotated

import typer

from feedback_etl.cli.console import echo_err, print_json, print_lines
from feedback_etl.cli.keys import list_available_keys
from feedback_etl.cli.options import JsonOutput, KeyFiles, OutputFolder, load_command_settings, open_existing_output
from feedback_etl.errors import CheckFailedError, UsageError
from feedback_etl.plurals import pluralize

audit_app = typer.Typer(
    help="Show and verify the tamper-evident audit log of exports.",
    epilog="Example: feedback-etl audit verify",
    no_args_is_help=True,
)
StoredHead = Annotated[str | None, typer.Option("--head", help="A head of the log that was stored elsewhere.")]
_SHOWN_DETAILS = ("stem", "outcome", "rows", "exports", "error")


@audit_app.command("show", epilog="Example: feedback-etl audit show --json")
def show_log(output: OutputFolder = None, as_json: JsonOutput = False) -> None:
    """Print the audit log, oldest record first."""
    from feedback_etl.records.audit import AuditLog

    for record in AuditLog(open_existing_output(load_command_settings(output))).records():
        if as_json:
            print_json(record)
            continue
        details = "  ".join(
            f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in record.items()
            if name in _SHOWN_DETAILS
        )
        print_lines(f"{record['at'][:19]}  {record['event']:<10} {record['user']}@{record['host']}  {details}")


@audit_app.command("verify", epilog="Example: feedback-etl audit verify --key-file old_key")
def verify_log(
    output: OutputFolder = None, key_file: KeyFiles = None, head: StoredHead = None, as_json: JsonOutput = False
) -> None:
    """Verify audit log, manifests and data files.

    The list of erased people is verified too. Exit code 1 if something was changed, if it cannot be verified without
    its key, or if no key protects the folder.
    """
    from feedback_etl.records.audit_verification import verify_folder

    if head == "":  # an unset variable in a script
        raise UsageError("--head is empty: pass the head that was stored.")
    settings = load_command_settings(output)
    storage = open_existing_output(settings)
    result = verify_folder(storage, list_available_keys(settings, key_file), data=True, head=head or "")
    if not result.records and not result.problems:
        raise UsageError(f"{storage} contains no audit log and no exports: check --output.")
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
    if result.problems:
        raise CheckFailedError(f"The audit log does not verify: {pluralize(len(result.problems), 'problem')} found.")
