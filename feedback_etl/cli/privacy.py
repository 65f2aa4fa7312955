"""The command that runs the pre-production checklist."""

import shlex
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.console import echo_err, measure_width, print_json, print_lines
from feedback_etl.cli.keys import list_available_keys
from feedback_etl.cli.options import (
    AllowRowSecurity,
    DatabaseUrl,
    Folder,
    JsonOutput,
    KeyFiles,
    Query,
    RawFiles,
    load_command_settings,
    open_existing_output,
)
from feedback_etl.errors import CheckFailedError, CheckSkippedError
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feedback_etl.compliance.item import ChecklistItem

_WIDTH, _MAX_WIDTH, _INDENT = 80, 120, 18
_LABELS = {"ok": "ok  ", "failed": "FAIL", "skipped": "skip"}
_PROGRAMS = ("chmod", "feedback-etl", "rm")
"""Programs of the commands among the remedies."""


def check(
    folder: Folder = None,
    write_record: Annotated[
        bool,
        typer.Option("--write-record", help="First write the record of processing activities from the settings."),
    ] = False,
    key_file: KeyFiles = None,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    as_json: JsonOutput = False,
    raw_files: RawFiles = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Run the pre-production checklist.

    The checklist covers pseudonyms, columns, keys, file modes, retention, erasure, the audit log and more, in the files
    and in the database. Exit code 1 if an item failed, 7 if none failed and an item could not be tested (skip); both
    are printed with a remedy where there is one.
    """
    from feedback_etl.compliance.check import check as run_checklist
    from feedback_etl.compliance.record import write_record as write

    settings = load_command_settings(
        folder, raw_files=raw_files, database_url=database_url, query=query, allow_row_security=allow_row_security
    )
    if not write_record:
        open_existing_output(settings)
    else:
        echo_err(f"written: {write(settings)}")
    items = run_checklist(settings, keys=list_available_keys(settings, key_file))
    if as_json:
        print_json([item._asdict() | {"passed": item.passed} for item in items])
    else:
        _print_items(items)
    _require_passed(items)


def _print_items(items: "Sequence[ChecklistItem]") -> None:
    """Print the items of the checklist, those that did not pass with their remedy, and a line with their counts."""
    width = min(measure_width(sys.stdout) or _WIDTH, _MAX_WIDTH) - _INDENT
    print_lines(f"{'':<6}{'Item':<11} Result")
    for item in items:
        first, *more = textwrap.wrap(item.detail, width, break_on_hyphens=False) or [""]
        print_lines(f"{_LABELS[item.status]}  {item.name:<11} {first}")
        remedies = (part for remedy in item.remedy.splitlines() for part in _wrap_remedy(remedy, width))
        for line in [*more, *remedies]:
            print_lines(f"{'':<{_INDENT}}{line}")
    counts = Counter(item.status for item in items)
    print_lines(f"{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped")


def _wrap_remedy(line: str, width: int) -> list[str]:
    """Wrap a command between its words, so that it can be pasted into a shell; wrap other text as usual."""
    width -= len(" \\")
    if line.split(" ")[0] not in _PROGRAMS or not _is_complete_command(line):
        return textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False)
    lines = [""]
    for word in map(shlex.quote, shlex.split(line)):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(f"  {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return [f"{text} \\" for text in lines[:-1]] + lines[-1:]


def _is_complete_command(line: str) -> bool:
    """Return whether a line closes its quotes, as it does unless the name of a file contains a line break."""
    try:
        shlex.split(line)
    except ValueError:
        return False
    return True


def _require_passed(items: "Sequence[ChecklistItem]") -> None:
    """Raise an error if an item failed, or was skipped."""
    names = {status: [item.name for item in items if item.status == status] for status in _LABELS}
    if failed := names["failed"]:
        raise CheckFailedError(f"{pluralize(len(failed), 'item')} of {len(items)} failed: {', '.join(failed)}.")
    if skipped := names["skipped"]:
        raise CheckSkippedError(
            f"{pluralize(len(skipped), 'item')} of {len(items)} could not be tested: {', '.join(skipped)}."
        )
