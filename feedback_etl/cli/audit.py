"""Commands for the audit log: show and verify."""

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
_SHOWN_DETAILS = ("stem", "outcome", "rows", "exports", "error")


@audit_app.command("show", epilog="Example: feedback-etl audit show --json")
def show_log(output: OutputFolder = None, as_json: JsonOutput = False) -> None:
    """Print the audit log, oldest record first."""
    from feedback_etl.exports.audit import AuditLog

    for record in AuditLog(open_existing_output(load_command_settings(output))).records():
        if as_json:
            print_json(record)
            continue
        details = "  ".join(f"{name} {value}" for name, value in record.items() if name in _SHOWN_DETAILS)
        print_lines(f"{record['at'][:19]}  {record['event']:<10} {record['user']}@{record['host']}  {details}")


@audit_app.command("verify", epilog="Example: feedback-etl audit verify --key-file old_key")
def verify_log(output: OutputFolder = None, key_file: KeyFiles = None, as_json: JsonOutput = False) -> None:
    """Verify that the audit log has not been changed.

    The log is also compared with the manifests of the exports and with the list of erased people; `check` verifies the
    data files. Exit code 1 if the log was changed, or if a record cannot be verified without its key.
    """
    from feedback_etl.exports.audit_verification import verify_folder
    from feedback_etl.exports.maintenance import list_exports

    settings = load_command_settings(output)
    storage = open_existing_output(settings)
    exports = list_exports(storage).exports
    result = verify_folder(storage, exports, list_available_keys(settings, key_file))
    if not result.records and not result.problems and not exports:
        raise UsageError(f"{storage} contains no audit log and no exports: check --output.")
    if as_json:
        print_json(result._asdict())
    else:
        for problem in result.problems:
            print_lines(problem)
        print_lines(f"{pluralize(result.records, 'record')}, head {result.head}")
        if result.unsigned:
            echo_err(f"{pluralize(result.unsigned, 'record')} without a signature: anyone could have written them")
    if result.problems and result.unknown == len(result.problems):
        unknown = pluralize(result.unknown, "record")
        raise CheckFailedError(f"{unknown} cannot be verified without the signing key: pass it with --key-file.")
    if result.problems:
        raise CheckFailedError(f"The audit log does not verify: {pluralize(len(result.problems), 'problem')} found.")
