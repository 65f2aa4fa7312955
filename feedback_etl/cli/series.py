"""The command that prints the status of incremental series."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.console import echo_err, print_json
from feedback_etl.cli.options import Folder, JsonOutput, load_command_settings, open_existing_output
from feedback_etl.cli.tables import print_table
from feedback_etl.plurals import pluralize

if TYPE_CHECKING:
    from feedback_etl.exports.series_status import SeriesStatus


def print_status(
    folder: Folder = None,
    fail_if_older: Annotated[
        str | None,
        typer.Option(
            help="Exit with code 1 if a series was last exported longer ago, for example 36h.", metavar="DURATION"
        ),
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Print the status of the incremental series of a folder.

    It contains the watermark, the last run, and the numbers of rows, late-arriving rows and pending rows. A run that
    found nothing new counts as a run. A series that another one has replaced does not have to be fresh.
    """
    from feedback_etl.clock import parse_duration, resolve_now
    from feedback_etl.exports.series_status import find_stale, list_series

    age = None if fail_if_older is None else parse_duration(fail_if_older, "fail_if_older")
    series = list_series(open_existing_output(load_command_settings(folder)))
    if as_json:
        print_json({"series": [status.to_dict() for status in series]})
    else:
        for status in series:
            _print_series(status)
    within = f"within the last {fail_if_older} (--fail-if-older)"
    if not series:
        echo_err(f"There is no incremental series in this folder{f', so none was exported {within}' if age else ''}.")
    elif age is not None and find_stale(series, resolve_now() - age):
        echo_err(f"A series was not exported {within}.")
    else:
        return
    if age is not None:
        raise typer.Exit(1)


def _print_series(series: "SeriesStatus") -> None:
    """Print a table of a series, with the settings that differ from their defaults."""
    from feedback_etl.schema.record import describe_schema

    settings = {name: value for name, value in series.settings.items() if value not in (None, "", [], {}, "created_at")}
    schema = settings.pop("schema", None)
    settings.pop("query_sha256", None)  # a digest, for programs
    watermark = f"{series.watermark:%Y-%m-%d %H:%M:%S} UTC" if series.watermark else "the beginning"
    rows = [
        ("exports", f"{series.exports:,} with {pluralize(series.rows, 'row')}"),
        ("last run", f"{series.last_run:%Y-%m-%d %H:%M:%S} UTC, read until {series.read_until:%Y-%m-%d %H:%M:%S} UTC"),
        ("next", f"reads from {watermark} on"),
        ("settings", ", ".join(f"{name} {json.dumps(value)}" for name, value in settings.items())),
    ]
    if schema:
        rows.append(("schema", describe_schema(schema)))
    if series.late_records:
        late = pluralize(series.late_records, "row")
        missing = "export --incremental --backfill exports those that no export contains"
        rows.append(("late", f"at least {late} arrived after the lookback; {missing}"))
    if series.pending_records:
        rows.append(("pending", pluralize(series.pending_records, "row")))
    print_table(["Series", "ended: another series began" if series.has_ended else f"by {series.cursor}"], rows)
