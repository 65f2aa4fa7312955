"""The commands that describe exports: a report for people, contracts for programs."""

from pathlib import Path
from typing import Annotated

import typer

from feedback_etl.cli.console import print_data
from feedback_etl.cli.folder import KeyFiles, Output, keys_at_hand, settings_for


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Data files or folders, instead of --output.", metavar="FILE")
    ] = None,
    page: Annotated[Path, typer.Option("--page", "-o", help="The page to write.", metavar="FILE.html")] = Path(
        "report.html"
    ),
    output: Output = None,
    key_file: KeyFiles = None,
) -> None:
    """Write a report of exports as one HTML page.

    What became of the rows, what the columns hold, how risky it is, what has changed, and the audit log. No row, no
    pseudonym and no value of fewer than five analyses is on it. It needs no network.
    """
    from feedback_etl.report.write import write_report

    settings = settings_for(output)
    keys = keys_at_hand(settings, key_file)
    print_data(str(write_report(page, files or settings.output_dir, keys=keys)))


def contracts(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Where to write: schemas, unless given; with --croissant a folder of exports.", metavar="FOLDER"
        ),
    ] = None,
    croissant: Annotated[
        bool, typer.Option("--croissant", help="Describe exports in croissant.json beside them instead.")
    ] = False,
    include_image_urls: Annotated[
        bool, typer.Option("--include-image-urls", help="Of exports with the column image_url.")
    ] = False,
    include_subject_hash: Annotated[
        bool, typer.Option("--include-subject-hash", help="Of exports with the column subject_hash.")
    ] = False,
) -> None:
    """Write the contracts of rows and of source tables.

    A JSON Schema of a row with the columns and age ranges of the settings, and SQL for each database with the indexes
    that exports need. With --croissant, a description of exports as data sets for machine learning.
    """
    from feedback_etl.columns import IMAGE_URL, SUBJECT_HASH
    from feedback_etl.report.contracts import write_contracts
    from feedback_etl.report.croissant import write_croissant

    settings = settings_for(None)
    if croissant:
        written = [str(write_croissant(folder or settings.output_dir))]
    else:
        asked = {IMAGE_URL: include_image_urls, SUBJECT_HASH: include_subject_hash}
        extra = [*settings.extra_columns, *(column for column, is_asked in asked.items() if is_asked)]
        paths = write_contracts(folder or Path("schemas"), extra, settings.age_edges)
        written = list(map(str, paths))
    for path in written:
        print_data(path)
