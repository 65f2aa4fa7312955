"""The commands that describe exports: a report for people, contracts for programs."""

from pathlib import Path
from typing import Annotated

import typer

from feedback_etl import cli_folder
from feedback_etl.console import print_data


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Data files of exports, instead of a folder.", metavar="FILE")
    ] = None,
    page: Annotated[Path, typer.Option("--page", "-o", help="The page to write.", metavar="FILE.html")] = Path(
        "report.html"
    ),
    output: cli_folder.Folder = None,
    key_file: cli_folder.KeyFiles = None,
) -> None:
    """Write a report of exports as one HTML page.

    What became of the rows, what the columns hold, how risky it is, what has changed, and the audit log. No row, no
    pseudonym and no value of fewer than five people is on it. It needs no network.
    """
    from feedback_etl.report.writing import write_report

    settings = cli_folder.settings_for(output)
    keys = cli_folder.keys_at_hand(settings, key_file)
    print_data(str(write_report(page, files or settings.output_dir, keys=keys)))
