"""The classic script: `FeedbackProcessor` as `python -m feedback_etl.processor --days 7`."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from feedback_etl.cli.command_group import SingleCommand
from feedback_etl.cli.console import run_app
from feedback_etl.cli.options import DatabaseUrl, OutputFolder, load_command_settings
from feedback_etl.cli.summary import print_summary
from feedback_etl.errors import AllRejectedError

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport

app = typer.Typer(
    help="The classic script; `feedback-etl export` has more options.",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command(cls=SingleCommand, epilog="Example: python -m feedback_etl.processor --days 7")
def export(
    days_back: Annotated[
        int | None,
        typer.Option(
            "--days",
            help="Days back from now, 24 hours each; -1 for all feedback.  [default: 1; with --bulk -1]",
            metavar="N",
        ),
    ] = None,
    bulk: Annotated[
        bool,
        typer.Option("--bulk", help="Export everything, unless --days is given, and read time ranges in parallel."),
    ] = False,
    output_dir: OutputFolder = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Export the feedback of the last days."""
    from feedback_etl.processor import FeedbackProcessor

    settings = load_command_settings(database_url=database_url)
    processor = FeedbackProcessor(settings.require_database_url(), output_dir, bulk=bulk)
    if days_back is None:
        days_back = -1 if bulk else 1
    stats = processor.process_and_export(days_back=days_back)
    print_summary(cast("ExportReport", stats), min_fields=1)
    if stats.errors and not stats.export_filename:
        raise typer.Exit(AllRejectedError.exit_code)


def main() -> None:
    """Run the script and exit."""
    run_app(app)
