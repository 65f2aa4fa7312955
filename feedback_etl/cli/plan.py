"""The command that tells what a large export would take."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feedback_etl.cli.console import counted, print_data, tell
from feedback_etl.cli.options import AllowRowSecurity, DatabaseUrl, Days, Query, Since, Until, require_one_start
from feedback_etl.database.reader_pool import prestart
from feedback_etl.options import OutputOptions, ReadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feedback_etl.pipeline.estimate import Plan


def plan(
    context: typer.Context,
    days: Days = ReadOptions.days_back,
    since: Since = None,
    until: Until = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="How many would work at once, and so how many ranges there are at least, unless these had fewer than "
            "20,000 rows: as for `export --executor`.",
            show_default="64",
            metavar="N",
            min=1,
            max=64,
        ),
    ] = None,
    format: Annotated[  # noqa: A002  as the option
        Literal["csv", "parquet"], typer.Option(help="CSV, or Parquet compressed with zstd.")
    ] = OutputOptions.format,
    compression: Annotated[
        Literal["none", "gzip", "zstd"], typer.Option(help="Compression of CSV.")
    ] = OutputOptions.compression,
    query: Query = None,
    allow_row_security: AllowRowSecurity = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON on stdout.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Tell what an export by many workers would take.

    Rows are counted (above ten million, estimated), and one range is made here and thrown away: nothing is written.
    """
    prestart()
    from feedback_etl.pipeline.estimate import plan as plan_export
    from feedback_etl.settings import load_settings

    require_one_start(context, since)
    settings = load_settings(database_url=database_url, query=query, allow_row_security=allow_row_security)
    options = settings.to_options(
        days_back=days, since=since, until=until, workers=workers, format=format, compression=compression
    )
    planned = plan_export(settings.require_database_url(), options=options)
    if as_json:
        print_data(json.dumps(planned.to_dict()))
        return
    for line in _told(planned):
        tell(line)


def _told(planned: "Plan") -> "Iterator[str]":
    yield f"window     {planned.window}"
    yield f"rows       {planned.rows:,}"
    yield f"ranges     {planned.ranges:,} of about {round(planned.rows / planned.ranges):,} rows"
    if not planned.measured_rows:
        yield "measured   nothing: there are no rows"
        return
    yield (
        f"measured   {planned.measured_rows:,} rows in {planned.measured_seconds:.2f} s by one worker "
        f"({planned.rows_a_second:,.0f} a second), {_size(planned.measured_bytes)}"
    )
    yield f"estimated  {_size(planned.bytes)} in {counted(planned.ranges, 'part')}"
    yield (
        f"estimated  {_duration(planned.seconds)} with {counted(planned.workers, 'worker')} as fast as this machine "
        "and as many connections, while database and storage keep up"
    )


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
