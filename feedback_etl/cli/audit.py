"""The commands of the audit log: show and verify."""

import json

import typer

from feedback_etl.cli.console import counted, print_data, tell
from feedback_etl.cli.folder import AsJson, KeyFiles, Output, folder_of, keys_at_hand, settings_for
from feedback_etl.errors import CheckFailedError, UsageError

audit_app = typer.Typer(
    help="Who did what to the exports, in a log that shows tampering.",
    epilog="Example: feedback-etl audit verify",
    no_args_is_help=True,
)


@audit_app.command("show", epilog="Example: feedback-etl audit show --json")
def audit_show(output: Output = None, as_json: AsJson = False) -> None:
    """Print the audit log, the oldest record first."""
    from feedback_etl.exports.housekeeping import open_audit_log

    for record in open_audit_log(folder_of(output)).records():
        if as_json:
            print_data(json.dumps(record))
            continue
        told = {
            name: value for name, value in record.items() if name in ("stem", "outcome", "rows", "exports", "error")
        }
        facts = "  ".join(f"{name} {value}" for name, value in told.items())
        print_data(f"{record['at'][:19]}  {record['event']:<10} {record['user']}@{record['host']}  {facts}")


@audit_app.command("verify", epilog="Example: feedback-etl audit verify --key-file old_key")
def audit_verify(output: Output = None, key_file: KeyFiles = None, as_json: AsJson = False) -> None:
    """Check that nobody has changed the audit log.

    Exit code 1 if somebody has.
    """
    from feedback_etl.exports.audit_verification import verify_folder
    from feedback_etl.exports.maintenance import list_exports

    settings = settings_for(output)
    folder = folder_of(output)
    exports, keys = list_exports(folder).exports, keys_at_hand(settings, key_file)
    verdict = verify_folder(folder, exports, keys)
    if not verdict.records and not verdict.faults and not exports:
        raise UsageError(f"There is no audit log in {folder}.")
    if as_json:
        print_data(json.dumps(verdict._asdict()))
    else:
        for fault in verdict.faults:
            print_data(fault)
        print_data(f"{counted(verdict.records, 'record')}, head {verdict.head}")
        if verdict.unsigned:
            tell(f"not signed by a key, so that anybody could have written it: {counted(verdict.unsigned, 'record')}")
    if verdict.faults and verdict.unknown == len(verdict.faults):
        raise CheckFailedError(
            f"{counted(verdict.unknown, 'record')} cannot be checked without their key (--key-file)."
        )
    if verdict.faults:
        raise CheckFailedError(f"The audit log is not as it was written: {counted(len(verdict.faults), 'fault')}.")
