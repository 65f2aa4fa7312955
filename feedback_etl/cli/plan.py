"""The command that estimates the size and duration of an export on a cluster."""

from typing import TYPE_CHECKING

import typer

from feedback_etl.cli.console import echo_err, print_json
from feedback_etl.cli.options import (
    AllowRowSecurity,
    Compression,
    DatabaseUrl,
    Days,
    FileFormat,
    JsonOutput,
    Query,
    RawFiles,
    Since,
    Until,
    Workers,
    find_given_options,
    load_given_settings,
    require_one_start,
)
from feedback_etl.cli.summary import LABEL_WIDTH
from feedback_etl.database.reader_pool import prestart
from feedback_etl.options.output import OutputOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedback_etl.pipeline.estimate import Plan


def plan(
    context: typer.Context,
    days_back: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    workers: Workers = None,
    format: FileFormat = OutputOptions.format,  # noqa: A002  as the option
    compression: Compression = OutputOptions.compression,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    as_json: JsonOutput = False,
    raw_files: RawFiles = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Estimate the size and duration of an export on a cluster.

    Rows are counted (estimated above ten million). One time range is processed here to measure the speed; nothing is
    written.
    """
    prestart()
    from feedback_etl.pipeline.estimate import plan as plan_export

    require_one_start(context)
    settings = load_given_settings(context)
    options = settings.to_options(**find_given_options(context))
    estimate = plan_export(settings.require_database_url(), options=options)
    if as_json:
        print_json(estimate.to_dict())
        return
    for line in _format_estimate(estimate):
        echo_err(line, indent=LABEL_WIDTH)


def _format_estimate(estimate: "Plan") -> "Iterator[str]":
    """Yield the lines of an estimate."""
    yield f"window     {estimate.window}"
    yield f"rows       {estimate.rows:,}"
    yield f"ranges     {estimate.ranges:,} of about {round(estimate.rows / estimate.ranges):,} rows"
    if not estimate.measured_rows:
        yield "measured   nothing: the window contains no rows"
        return
    from rich.filesize import decimal

    rows, size = pluralize(estimate.measured_rows, "row"), decimal(estimate.measured_bytes)
    yield f"measured   {rows} in {estimate.measured_seconds:.2f} s with one worker"
    yield f"           {estimate.rows_a_second:,.0f} rows/s, {size}"
    yield f"size       about {decimal(round(estimate.bytes))} in {pluralize(estimate.ranges, 'part')}"
    workers = pluralize(estimate.workers, "worker")
    yield f"duration   about {_format_duration(estimate.seconds)} with {workers} as fast as this machine,"
    yield "           if database and storage keep up with as many connections"


def _format_duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
