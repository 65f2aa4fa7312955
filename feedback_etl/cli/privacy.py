"""Commands for privacy officers: the pre-production checklist and the re-identification risk."""

import shlex
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_etl.cli.console import echo_err, print_json, print_lines
from feedback_etl.cli.keys import list_available_keys
from feedback_etl.cli.options import (
    AllowRowSecurity,
    DatabaseUrl,
    JsonOutput,
    KeyFiles,
    OutputFolder,
    Query,
    load_command_settings,
)
from feedback_etl.errors import CheckFailedError, CheckSkippedError
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feedback_etl.columns import ExtraColumn
    from feedback_etl.compliance.item import ChecklistItem

_WIDTH, _INDENT = 80, 18
_LABELS = {"ok": "ok  ", "failed": "FAIL", "skipped": "skip"}
_PROGRAMS = ("chmod", "feedback-etl", "rm")
"""Programs of the commands among the remedies."""
_UNITS = {
    "k": "people in the smallest class",
    "small_rows": "rows in classes of fewer than 5 people",
    "small_people": "people in these classes",
}

DataFiles = Annotated[
    list[Path], typer.Argument(help="CSV (also .gz, .zst) or Parquet files, or folders of parts.", metavar="FILE")
]
QuasiIdentifiers = Annotated[
    list[str] | None,
    typer.Option(
        "--quasi-identifier",
        help="Column that an attacker may know about a person; may be repeated.  [default: age_range, "
        "conditions_detected, timeframe]",
        metavar="COLUMN",
    ),
]
SensitiveColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--sensitive",
        help="Column that an attacker must not learn; may be repeated.  [default: the ratings and columns with the "
        "role sensitive]",
        metavar="COLUMN",
    ),
]
PersonColumn = Annotated[
    str | None,
    typer.Option(
        "--person",
        help="Column that identifies the person of a row; without one, each row counts as a person.  [default: "
        "subject_hash, if the files have it]",
        metavar="COLUMN",
    ),
]


def check(
    output: OutputFolder = None,
    write_record: Annotated[
        bool,
        typer.Option("--write-record", help="First write the record of processing activities from the settings."),
    ] = False,
    key_file: KeyFiles = None,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    as_json: JsonOutput = False,
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
        output, database_url=database_url, query=query, allow_row_security=allow_row_security
    )
    if write_record:
        echo_err(f"written: {write(settings)}")
    items = run_checklist(settings, keys=list_available_keys(settings, key_file))
    if as_json:
        print_json([item._asdict() | {"passed": item.passed} for item in items])
    else:
        _print_items(items)
    _require_passed(items)


def _print_items(items: "Sequence[ChecklistItem]") -> None:
    """Print the items of the checklist, those that did not pass with their remedy, and a line with their counts."""
    for item in items:
        first, *more = textwrap.wrap(item.detail, _WIDTH - _INDENT, break_on_hyphens=False) or [""]
        print_lines(f"{_LABELS[item.status]}  {item.name:<11} {first}")
        for line in [*more, *(part for remedy in item.remedy.splitlines() for part in _wrap_remedy(remedy))]:
            print_lines(f"{'':<{_INDENT}}{line}")
    counts = Counter(item.status for item in items)
    print_lines(f"{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped")


def _wrap_remedy(line: str) -> list[str]:
    """Wrap a command between its words, so that it can be pasted into a shell; wrap other text as usual."""
    width = _WIDTH - _INDENT - len(" \\")
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


def measure_risk(
    files: DataFiles,
    quasi_identifier: QuasiIdentifiers = None,
    sensitive: SensitiveColumns = None,
    person: PersonColumn = None,
    as_json: JsonOutput = False,
) -> None:
    """Measure the re-identification risk of files.

    The figures are k-anonymity, l-diversity, t-closeness and values derived from them, over all files together.
    """
    from feedback_etl.cli.data_files import read_files
    from feedback_etl.columns import RATING_FIELDS, SUBJECT_HASH, all_quasi_identifiers
    from feedback_etl.privacy.risk_measures import risk

    settings = load_command_settings()
    table = read_files(files, numeric=sensitive or RATING_FIELDS)
    extra_columns = [column for column in settings.extra_columns if column.name in table.columns]
    if person is None and SUBJECT_HASH.name in table.columns:
        person = SUBJECT_HASH.name
    result = risk(
        table,
        quasi_identifiers=quasi_identifier or all_quasi_identifiers(settings.quasi_identifiers, extra_columns),
        sensitive=sensitive or _list_sensitive(table.columns, extra_columns),
        person=person,
    ).to_dict()
    if as_json:
        print_json(result)
    else:
        _print_figures(result)
    if person is None:
        echo_err("Each row counts as a person, because no column identifies people (--person).")


def _print_figures(result: "Mapping[str, Any]") -> None:
    """Print each figure with its unit, or the figures of each column, on a line."""
    for name, value in result.items():
        for column, number in (value if isinstance(value, dict) else {_UNITS.get(name, ""): value}).items():
            figure = f"{number:,}" if isinstance(number, int) else f"{number:.4g}"
            print_lines(f"{name:<16}{figure:>12}  {column}".rstrip())


def _list_sensitive(names: list[str], extra_columns: "Sequence[ExtraColumn]") -> list[str]:
    """Return the ratings among the columns of a table, and its extra columns with the role "sensitive"."""
    from feedback_etl.columns import RATING_FIELDS

    return [
        *(name for name in RATING_FIELDS if name in names),
        *(column.name for column in extra_columns if column.role == "sensitive"),
    ]
