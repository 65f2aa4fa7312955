"""The classic script, `python -m feedback_etl.processor --days 7`: `FeedbackProcessor` from the command line."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from feedback_etl.cli.console import run_politely, tell_summary
from feedback_etl.cli.options import DatabaseUrl
from feedback_etl.errors import AllRejectedError

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport

app = typer.Typer(
    help="The classic script; `feedback-etl export` has more options.",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command(epilog="Example: python -m feedback_etl.processor --days 7")
def export(
    days: Annotated[
        int | None,
        typer.Option(help="Days back from now; -1 for everything.", metavar="N", show_default="1; with --bulk -1"),
    ] = None,
    bulk: Annotated[
        bool, typer.Option("--bulk", help="Everything, unless --days is given; time ranges are read side by side.")
    ] = False,
    output: Annotated[
        str | None, typer.Option(help="Folder of the exports.", metavar="FOLDER", show_default="ml/feedback_training")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Export the last days' feedback."""
    from feedback_etl.processor import FeedbackProcessor
    from feedback_etl.settings import load_settings

    settings = load_settings(database_url=database_url)
    processor = FeedbackProcessor(settings.require_database_url(), output, bulk=bulk)
    if days is None:
        days = -1 if bulk else 1
    stats = processor.process_and_export(days_back=days)
    tell_summary(cast("ExportReport", stats), min_fields=1)
    if stats.errors and not stats.export_filename:
        raise typer.Exit(AllRejectedError.exit_code)


def main() -> None:
    """Run the script."""
    run_politely(app)
