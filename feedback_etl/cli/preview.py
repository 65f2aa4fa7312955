"""The command that prints the first rows of an export."""

import io
from typing import Annotated

import typer

from feedback_etl.cli.console import echo_err, write_stdout
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
from feedback_etl.cli.summary import format_outcomes
from feedback_etl.options.quality import QualityOptions
from feedback_etl.options.read import ReadOptions


def preview(
    context: typer.Context,
    days_back: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    rows: Annotated[int, typer.Option(help="Maximum number of rows to print.", metavar="N")] = 10,
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
    from feedback_etl.data_files.file_formats import RowWriter
    from feedback_etl.pipeline.load import load_with_report
    from feedback_etl.privacy.keys import generate_key

    require_one_start(context)
    require_rows(rows)
    settings = load_given_settings(context)
    options = settings.to_options(**find_given_options(context), max_rejected=1.0)
    pairs, report = load_with_report(settings.require_database_url(), options, generate_key())
    csv = io.BytesIO()
    RowWriter(csv, options.output.file_format).append(pairs.head(rows))
    write_stdout(csv.getvalue())
    for line in format_outcomes(report, min_feedback_fields):
        echo_err(line)
    limit, rated = QualityOptions.max_rejected, report.total_feedback_records - report.skipped_records
    if report.errors > limit * rated:
        echo_err(f"An export would publish nothing: --max-rejected allows {limit:g} of the rows to be rejected.")
    if pairs.height:
        echo_err(
            f"The first {min(rows, pairs.height):,} of {pairs.height:,} rows. Nothing was written; the pseudonyms use "
            "a temporary key."
        )
    else:
        echo_err("No feedback in the window has enough ratings (--days -1 reads everything).")
