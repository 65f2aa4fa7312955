"""The command line: each command parses its options, calls the library once and prints the result."""

from collections.abc import Callable
from shutil import get_terminal_size
from typing import Annotated

import typer

from feedback_etl import __version__
from feedback_etl.cli import (
    audit,
    config,
    demo,
    erase,
    export,
    folder,
    init,
    keys,
    listing,
    plan,
    preview,
    privacy,
    report,
    risk,
    series,
)
from feedback_etl.cli.command_group import CommandGroup, FolderCommand, GroupedCommand
from feedback_etl.cli.console import print_lines, run_app

MAX_HELP_WIDTH = 120
"""Columns; longer lines are hard to read."""

_EXAMPLES = (
    "preview --days 7 --table",
    "export --incremental --days 90",
    "export --share --recipient acme-research --output shared",
    "erase --user-ids-file ids.txt",
    "report --output report.html",
)
"""The commonest uses after the demo."""

app = typer.Typer(
    name="feedback-etl",
    cls=CommandGroup,
    help="Export an application's feedback tables as a pseudonymised training set. To try it: feedback-etl demo",
    epilog="\b\n" + "\n".join(f"Example: feedback-etl {words}" for words in _EXAMPLES),  # not wrapped after \b
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": min(get_terminal_size().columns, MAX_HELP_WIDTH),
    },
)


@app.callback(invoke_without_command=True)
def _print_version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print_lines(f"feedback-etl {__version__}")
        raise typer.Exit


app.add_typer(keys.keys_app, name="keys")
app.add_typer(audit.audit_app, name="audit")
app.command(cls=GroupedCommand, epilog="Example: feedback-etl export --days 90 --output ml/feedback_training")(
    export.export
)
app.command(epilog="Example: feedback-etl init sqlite:///shop.db --yes")(init.init)
app.command(epilog="Example: feedback-etl preview --days 7 --rows 5")(preview.preview)
app.command(epilog="Example: feedback-etl demo --rows 100000")(demo.demo)
app.command("config", epilog="Example: feedback-etl config")(config.print_settings)
app.command("list", cls=FolderCommand, epilog="Example: feedback-etl list")(listing.list_folder)
app.command("status", cls=FolderCommand, epilog="Example: feedback-etl status --fail-if-older 36h")(series.print_status)
app.command(epilog="Example: feedback-etl adopt ml/feedback_training/old.csv")(folder.adopt)
app.command(cls=FolderCommand, epilog="Example: feedback-etl erase --user-ids-file ids.txt --dry-run")(erase.erase)
app.command(cls=FolderCommand, epilog="Example: feedback-etl prune --keep-days 90")(folder.prune)
app.command(cls=FolderCommand, epilog="Example: feedback-etl check --json")(privacy.check)
app.command("risk", epilog="Example: feedback-etl risk ml/feedback_training/*.csv")(risk.measure_risk)
app.command(epilog="Example: feedback-etl plan --days 365 --workers 32")(plan.plan)
app.command("report", epilog="Example: feedback-etl report -o report.html")(report.write_page)
app.command("notebooks", epilog="Example: feedback-etl notebooks -o notebooks")(report.copy_notebooks)
app.command("contracts", epilog="Example: feedback-etl contracts -o schemas")(report.write_contracts)


@app.command("help", epilog="Example: feedback-etl help export")
def _print_help(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(help="Command, such as export or keys new.", metavar="COMMAND")
    ] = None,
) -> None:
    """Print the help of a command."""
    app([*(command or []), "--help"], prog_name=ctx.find_root().info_name)


def main(run: Callable[[], None] = app) -> None:
    """Run the command line and exit."""
    run_app(run)
