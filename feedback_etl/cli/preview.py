"""The command that prints the first rows of an export."""

import csv
import io
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.command_group import option
from feedback_etl.cli.console import echo_err, measure_width, print_lines, write_stdout
from feedback_etl.cli.options import (
    AllowRowSecurity,
    DatabaseUrl,
    Days,
    MinFields,
    Query,
    RawFiles,
    Since,
    Until,
    find_given_options,
    load_given_settings,
    require_one_start,
    require_rows,
)
from feedback_etl.cli.progress import show_progress
from feedback_etl.cli.summary import LABEL_WIDTH, explain_empty, format_excluded, format_outcomes
from feedback_etl.cli.tables import print_table
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.read import ReadOptions

if TYPE_CHECKING:
    from feedback_etl.data_files.file_formats import FileFormat
    from feedback_etl.pipeline.load import ReportedTraining

_NAME_WIDTH, _CELL_WIDTH = 24, 26
"""Columns of a terminal for the names of a table's columns, and for the values of a row."""

Rows = Annotated[int, option("--rows", "Maximum number of rows to print.", "N")]
AsTable = Annotated[bool, option("--table", "Print a table that fits the terminal, instead of CSV.")]


def preview(
    context: typer.Context,
    days_back: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    rows: Rows = 10,
    as_table: AsTable = False,
    min_feedback_fields: MinFields = QualityOptions.min_feedback_fields,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    raw_files: RawFiles = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Print the first rows of an export without writing a file.

    The output is CSV; its pseudonyms use a temporary key. Rows that the export would not contain are counted by reason
    on stderr, however many are rejected.
    """
    require_one_start(context)
    require_rows(rows)
    settings = load_given_settings(context)
    options = settings.to_options(**find_given_options(context), max_rejected=1.0)
    database = settings.require_database_url()
    with show_progress() as progress:
        from feedback_etl.pipeline.load import load_with_report
        from feedback_etl.privacy.keys import generate_key

        loaded = load_with_report(database, options, generate_key(), **progress._asdict())
    text = _write_csv(loaded, rows, options.output.file_format)
    if as_table:
        _print_rows(text.decode())
    else:
        write_stdout(text)
    _print_counts(loaded, rows, min_feedback_fields)


def _write_csv(loaded: "ReportedTraining", rows: int, file_format: "FileFormat") -> bytes:
    """Return the first rows as an export would write them."""
    from feedback_etl.data_files.file_formats import RowWriter

    file = io.BytesIO()
    RowWriter(file, file_format).append(loaded.pairs.head(rows))
    return file.getvalue()


def _print_rows(text: str) -> None:
    """Print the rows of a CSV text side by side, as many as fit the terminal, with a line for each column."""
    names, *rows = csv.reader(io.StringIO(text))
    width = measure_width(sys.stdout)
    together = max((width - _NAME_WIDTH) // _CELL_WIDTH, 1) if width else max(len(rows), 1)
    for start in range(0, max(len(rows), 1), together):
        print_lines(*[""] * (start > 0))
        shown = rows[start : start + together]
        headers = ["Column", *(f"Row {start + number}" for number in range(1, len(shown) + 1))]
        print_table(headers, zip(names, *shown, strict=True))


def _print_counts(loaded: "ReportedTraining", rows: int, min_fields: int) -> None:
    """Print how many rows an export would not contain, and why, to stderr."""
    pairs, report = loaded
    for line in (*format_excluded(report), *format_outcomes(report, min_fields)):
        echo_err(line, indent=LABEL_WIDTH)
    limit, rated = QualityOptions.max_rejected, report.total_feedback_records - report.skipped_records
    if report.errors > limit * rated:
        echo_err(f"An export would publish nothing: --max-rejected allows {limit:g} of the rows to be rejected.")
    if pairs.height:
        echo_err(
            f"The first {min(rows, pairs.height):,} of {pairs.height:,} rows. Nothing was written; the pseudonyms use "
            "a temporary key."
        )
    else:
        echo_err(f"Nothing to export: {explain_empty(report, min_fields)}")
