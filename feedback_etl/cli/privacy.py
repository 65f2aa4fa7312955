"""Commands for privacy officers: the pre-production checklist and the re-identification risk."""

import textwrap
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
from feedback_etl.errors import CheckFailedError
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feedback_etl.columns import ExtraColumn
    from feedback_etl.compliance.item import ChecklistItem

_WIDTH = 100
_UNITS = {
    "k": "people in the smallest class",
    "small_rows": "rows in classes of fewer than 5 people",
    "small_people": "people in these classes",
}


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
    and in the database. Exit code 1 if an item fails; each failed item names its remedy.
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
        print_json([item._asdict() for item in items])
    else:
        _print_items(items)
    if failed := [item.name for item in items if not item.passed]:
        raise CheckFailedError(f"{pluralize(len(failed), 'item')} of {len(items)} failed: {', '.join(failed)}.")


def _print_items(items: "Sequence[ChecklistItem]") -> None:
    """Print the items of the checklist, those that failed with their remedy."""
    for item in items:
        first, *more = textwrap.wrap(item.detail, _WIDTH) or [""]
        print_lines(f"{'ok  ' if item.passed else 'FAIL'}  {item.name:<11} {first}")
        for line in [*more, item.remedy]:
            if line:
                print_lines(f"{'':<18}{line}")


def measure_risk(
    files: Annotated[
        list[Path], typer.Argument(help="CSV (also .gz, .zst) or Parquet files, or folders of parts.", metavar="FILE")
    ],
    quasi_identifier: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that an attacker may know about a person; may be repeated.  [default: age_range, "
            "conditions_detected, timeframe]",
            metavar="COLUMN",
        ),
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that an attacker must not learn; may be repeated.  [default: the ratings and columns with the "
            "role sensitive]",
            metavar="COLUMN",
        ),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(
            help="Column that identifies the person of a row; without one, each row counts as a person.  [default: "
            "subject_hash, if the files have it]",
            metavar="COLUMN",
        ),
    ] = None,
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
