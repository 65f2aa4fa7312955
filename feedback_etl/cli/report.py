"""Commands that describe exports: an HTML report for people, contracts for programs."""

from pathlib import Path
from typing import Annotated

import typer

from feedback_etl.cli.console import print_lines
from feedback_etl.cli.keys import list_available_keys
from feedback_etl.cli.options import (
    IncludeImageUrls,
    IncludeSubjectHash,
    KeyFiles,
    load_command_settings,
)
from feedback_etl.errors import UsageError


def write_page(
    exports: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of exports, or data files.  [default: the setting output_dir]", metavar="FOLDER|FILE"
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="HTML file to write.  [default: report.html]", metavar="FILE.html"),
    ] = None,
    key_file: KeyFiles = None,
) -> None:
    """Write an HTML report about exports.

    It contains row counts, column distributions, privacy risk, drift and the audit log, but no row, no pseudonym and no
    value of fewer than five analyses. The page is self-contained.
    """
    from feedback_etl.report.write import write_report

    pages = output or [Path("report.html")]
    if len(pages) > 1 or pages[0].is_dir():  # earlier versions named the folder of the exports by --output
        raise UsageError(
            "--output names the HTML file to write: name the folder of the exports without an option (feedback-etl "
            "report FOLDER --output FILE.html)."
        )
    settings = load_command_settings()
    keys = list_available_keys(settings, key_file)
    print_lines(str(write_report(pages[0], exports or settings.output_dir, keys=keys)))


def copy_notebooks(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to copy to; created if missing.", metavar="FOLDER")
    ] = Path("notebooks"),
) -> None:
    """Copy the notebooks of this version to a folder.

    They run on sample data; exploring_feedback and training_a_baseline also on your own exports. The extra `notebook`
    installs Jupyter.
    """
    from feedback_etl.report.bundled_files import copy_notebooks as copy

    for path in copy(output):
        print_lines(str(path))


def write_contracts(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of the exports that --croissant describes.  [default: the setting output_dir]",
            metavar="FOLDER",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to.  [default: schemas]", metavar="FOLDER")
    ] = None,
    croissant: Annotated[
        bool, typer.Option("--croissant", help="Write croissant.json, which describes the exports, into their folder.")
    ] = False,
    include_image_urls: IncludeImageUrls = False,
    include_subject_hash: IncludeSubjectHash = False,
) -> None:
    """Write a JSON Schema of a row, and SQL of the source tables.

    The schema has the columns and age ranges of the settings; the SQL, one file for each kind of database, has the
    indexes that exports need. Examples of a role that can only read and of a row model are written too. With
    --croissant, write Croissant metadata of the exports instead.
    """
    from feedback_etl.report.contracts import write_contracts as write_schemas
    from feedback_etl.report.croissant import write_croissant
    from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH

    settings = load_command_settings()
    if croissant and (include_image_urls or include_subject_hash):
        raise UsageError("--croissant describes the exports as they are: leave --include-... options out.")
    if croissant and output:
        raise UsageError("--croissant writes into the folder of the exports: leave --output out.")
    if folder and not croissant:
        raise UsageError(
            "FOLDER is that of the exports, which --croissant describes: name the folder to write to with --output."
        )
    if croissant:
        paths = [str(write_croissant(folder or settings.output_dir))]
    else:
        optional = {IMAGE_URL: include_image_urls, SUBJECT_HASH: include_subject_hash}
        columns = [*settings.extra_columns, *(column for column, is_included in optional.items() if is_included)]
        edges = settings.age_edges if "age_edges" in settings.model_fields_set else None
        paths = list(map(str, write_schemas(output or Path("schemas"), columns, edges, settings.feedback_schema)))
    for path in paths:
        print_lines(path)
