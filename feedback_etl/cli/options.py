"""Options that several commands share, and the settings that they lead to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from feedback_etl.cli.command_group import OUTPUT, PRIVACY, ROWS, SPEED
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.settings.model import Settings
    from feedback_etl.storage.base import Storage

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="URL of the database. Prefer FEEDBACK_ETL_DATABASE_URL: process lists show arguments.",
        metavar="URL",
        rich_help_panel=ROWS,
    ),
]
RawFiles = Annotated[
    str | None,
    typer.Option(
        "--from", help="Read CSV, Parquet or JSON lines: 'raw/*.parquet'.", metavar="PATTERN", rich_help_panel=ROWS
    ),
]
Days = Annotated[
    int,
    typer.Option(
        "--days", help="Days back from now, 24 hours each; -1 for all feedback.", metavar="N", rich_help_panel=ROWS
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Start of the window, instead of --days: an ISO date or time, UTC.",
        metavar="TIME",
        rich_help_panel=ROWS,
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        help="End of the window, exclusive; requires --since.  [default: now]",
        metavar="TIME",
        rich_help_panel=ROWS,
    ),
]
MinFields = Annotated[
    int,
    typer.Option(
        "--min-fields", help="Skip rows with fewer ratings, 0 to their number.", metavar="N", rich_help_panel=ROWS
    ),
]
Query = Annotated[
    Path | None,
    typer.Option(
        "--query",
        help="File with a SELECT that yields the raw columns, instead of the default tables.",
        metavar="FILE.sql",
        rich_help_panel=ROWS,
    ),
]
AllowRowSecurity = Annotated[
    bool | None,
    typer.Option(
        "--allow-row-security",
        help="Read only the rows that row-level security shows, instead of failing (PostgreSQL).",
        show_default=False,
        rich_help_panel=ROWS,
    ),
]
OutputFolder = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder of the exports, or s3://bucket/prefix.  [default: ml/feedback_training]",
        metavar="FOLDER",
        rich_help_panel=OUTPUT,
    ),
]
Folder = Annotated[
    str | None,
    typer.Argument(
        help="Folder of the exports, or s3://bucket/prefix.  [default: the setting output_dir]", metavar="FOLDER"
    ),
]
FileFormat = Annotated[
    Literal["csv", "parquet"],
    typer.Option("--format", help="File format; Parquet is compressed with zstd.", rich_help_panel=OUTPUT),
]
Compression = Annotated[
    Literal["none", "gzip", "zstd"],
    typer.Option("--compression", help="Compression of CSV files.", rich_help_panel=OUTPUT),
]
Formulas = Annotated[
    Literal["escape", "reject", "allow"] | None,
    typer.Option(
        "--formulas",
        help="Texts that spreadsheets would run, in CSV: put an apostrophe before them, reject their rows, or write "
        "them as they are.  [default: escape]",
        rich_help_panel=OUTPUT,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Number of parallel workers. On a cluster it is also the minimum number of time ranges, as long as each "
        "range has at least 20,000 rows.  [default: 64; with --bulk the number of processors, at most 4]",
        metavar="N",
        rich_help_panel=SPEED,
    ),
]
IncludeImageUrls = Annotated[
    bool,
    typer.Option(
        "--include-image-urls",
        help="Add the column image_url, for users whose image_opt_in is true.",
        rich_help_panel=PRIVACY,
    ),
]
IncludeSubjectHash = Annotated[
    bool,
    typer.Option(
        "--include-subject-hash",
        help="Add the column subject_hash, a pseudonym of the user, to split data by person.",
        rich_help_panel=PRIVACY,
    ),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout.", rich_help_panel=OUTPUT)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done without doing it.")]
KeyFiles = Annotated[
    list[Path] | None,
    typer.Option("--key-file", help="Additional key that exports were made with; may be repeated.", metavar="FILE"),
]


def require_one_start(context: typer.Context) -> None:
    """Refuse --days together with --since.

    Raises:
        UsageError: Both were given.
    """
    if is_given(context, "since") and is_given(context, "days_back"):
        raise UsageError("--days and --since exclude each other: give one of them.")


def require_rows(rows: int) -> None:
    """Refuse a value of --rows below 1.

    Raises:
        UsageError: It is.
    """
    if rows < 1:
        raise UsageError("--rows must be 1 or more.")


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter comes from the command line, not from its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def require_effective(context: typer.Context, requirements: Mapping[str, tuple[str, object]]) -> None:
    """Refuse options that would be ignored silently.

    Args:
        context: The command's context.
        requirements: By parameter, the options that it requires, and whether one of them is active.

    Raises:
        UsageError: A parameter was given without them.
    """
    for name, (required, is_active) in requirements.items():
        if is_given(context, name) and not is_active:
            raise UsageError(f"--{name.replace('_', '-')} has no effect without {required}.")


def has_row_security(settings: "Settings") -> bool:
    """Return whether the configured database may have row-level security; true if none is configured."""
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    return not url.startswith(("sqlite", "mysql", "mariadb", "duckdb", "files:"))


def load_command_settings(folder: str | None = None, *, raw_files: str | None = None, **flags: Any) -> "Settings":
    """Return the active settings for the options of a command.

    Args:
        folder: The folder of exports that was named.
        raw_files: The value of --from.
        flags: Values of other options by the names of settings; None is ignored.

    Raises:
        UsageError: The name is empty, as it is where a shell variable is unset, or a setting is invalid.
    """
    from feedback_etl.settings.model import load_settings

    if folder == "":
        raise UsageError("The name of the folder is empty: name a folder, or leave it out.")
    if raw_files is not None:
        if flags.get("database_url") is not None:
            raise UsageError("--from and --database-url exclude each other: give one of them.")
        flags["database_url"] = f"files:{raw_files}"
    return load_settings(output_dir=folder, **flags)


def load_given_settings(context: typer.Context) -> "Settings":
    """Return the active settings for a command whose options have the names of settings; raises the same errors."""
    from feedback_etl.settings.model import DECLARATIONS, Settings

    names = {*Settings.model_fields} - DECLARATIONS
    given = {name: value for name, value in context.params.items() if name in names}
    return load_command_settings(given.pop("output_dir", None), raw_files=context.params.get("raw_files"), **given)


def find_given_options(context: typer.Context) -> dict[str, Any]:
    """Return the options of an export, without those that are settings, that have the names of a command's options."""
    from feedback_etl.options.export import option_names
    from feedback_etl.settings.model import DECLARATIONS, Settings

    names = {*option_names()} - ({*Settings.model_fields} - DECLARATIONS)
    return {name: value for name, value in context.params.items() if name in names}


def open_output(settings: "Settings") -> "Storage":
    """Return the storage of the exports: a local folder or a prefix of an object store."""
    from feedback_etl.storage.location import open_storage

    return open_storage(settings.output_dir)


def open_existing_output(settings: "Settings") -> "Storage":
    """Return the storage of the exports, which must exist.

    Raises:
        UsageError: It does not exist, as where its name is mistyped.
    """
    from feedback_etl.storage.location import require_storage

    storage = open_output(settings)
    require_storage(storage)
    return storage
