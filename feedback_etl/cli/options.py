"""Options that several commands share, and the settings that they lead to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from feedback_etl.cli.command_group import option, output_option, privacy_option, row_option, speed_option
from feedback_etl.database.files_prefix import FILES_PREFIX
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.settings.model import Settings
    from feedback_etl.storage.base import Storage

DatabaseUrl = Annotated[
    str | None,
    row_option(
        "--database-url", "URL of the database. Prefer FEEDBACK_ETL_DATABASE_URL: process lists show arguments.", "URL"
    ),
]
RawFiles = Annotated[str | None, row_option("--from", "Read CSV, Parquet or JSON lines: 'raw/*.parquet'.", "PATTERN")]
Days = Annotated[int, row_option("--days", "Days back from now, 24 hours each; -1 for all feedback.", "N")]
Since = Annotated[
    str | None, row_option("--since", "Start of the window, instead of --days: an ISO date or time, UTC.", "TIME")
]
Until = Annotated[
    str | None, row_option("--until", "End of the window, exclusive; requires --since.  [default: now]", "TIME")
]
MinFields = Annotated[int, row_option("--min-fields", "Skip rows with fewer ratings, 0 to their number.", "N")]
Query = Annotated[
    Path | None,
    row_option("--query", "File with a SELECT that yields the raw columns, instead of the default tables.", "FILE.sql"),
]
AllowRowSecurity = Annotated[
    bool | None,
    row_option(
        "--allow-row-security",
        "Read only the rows that row-level security shows, instead of failing (PostgreSQL).",
        show_default=False,
    ),
]
OutputFolder = Annotated[
    str | None,
    output_option(
        "--output -o", "Folder of the exports, or s3://bucket/prefix.  [default: ml/feedback_training]", "FOLDER"
    ),
]
Folder = Annotated[
    str | None,
    typer.Argument(
        help="Folder of the exports, or s3://bucket/prefix.  [default: the setting output_dir]", metavar="FOLDER"
    ),
]
FileFormat = Annotated[
    Literal["csv", "parquet"], output_option("--format", "File format; Parquet is compressed with zstd.")
]
Compression = Annotated[Literal["none", "gzip", "zstd"], output_option("--compression", "Compression of CSV files.")]
Formulas = Annotated[
    Literal["escape", "reject", "allow"] | None,
    output_option(
        "--formulas",
        "Texts that spreadsheets would run, in CSV: put an apostrophe before them, reject their rows, or write "
        "them as they are.  [default: escape]",
    ),
]
Workers = Annotated[
    int | None,
    speed_option(
        "--workers",
        "Number of parallel workers. On a cluster it is also the minimum number of time ranges, as long as each "
        "range has at least 20,000 rows.  [default: 64; with --bulk the number of processors, at most 4]",
        "N",
    ),
]
IncludeImageUrls = Annotated[
    bool, privacy_option("--include-image-urls", "Add the column image_url, for users whose image_opt_in is true.")
]
IncludeSubjectHash = Annotated[
    bool,
    privacy_option(
        "--include-subject-hash", "Add the column subject_hash, a pseudonym of the user, to split data by person."
    ),
]
JsonOutput = Annotated[bool, output_option("--json", "Print the result as JSON to stdout.")]
DryRun = Annotated[bool, option("--dry-run", "Show what would be done without doing it.")]
KeyFiles = Annotated[
    list[Path] | None, option("--key-file", "Additional key that exports were made with; may be repeated.", "FILE")
]


def require_one_start(context: typer.Context) -> None:
    """Refuse --days together with --since.

    Raises:
        UsageError: Both options were given.
    """
    if is_given(context, "since") and is_given(context, "days_back"):
        raise UsageError("--days and --since exclude each other: give one of them.")


def require_rows(rows: int) -> None:
    """Refuse a value of --rows below 1.

    Raises:
        UsageError: The value is below 1.
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
    return not url.startswith(("sqlite", "mysql", "mariadb", "duckdb", FILES_PREFIX))


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
        flags["database_url"] = f"{FILES_PREFIX}{raw_files}"
    return load_settings(output_dir=folder, **flags)


def load_given_settings(context: typer.Context) -> "Settings":
    """Return the active settings for a command whose options have the names of settings; raises the same errors."""
    from feedback_etl.settings.model import DECLARATIONS, Settings

    names = {*Settings.model_fields} - DECLARATIONS
    given = {name: value for name, value in context.params.items() if name in names}
    return load_command_settings(given.pop("output_dir", None), raw_files=context.params.get("raw_files"), **given)


def find_given_options(context: typer.Context) -> dict[str, Any]:
    """Return the options of an export, without those that are settings, that have the names of a command's options."""
    from feedback_etl.options.export import list_option_names
    from feedback_etl.settings.model import DECLARATIONS, Settings

    names = {*list_option_names()} - ({*Settings.model_fields} - DECLARATIONS)
    return {name: value for name, value in context.params.items() if name in names}


def open_existing_output(settings: "Settings") -> "Storage":
    """Return the storage of the exports, a local folder or a prefix of an object store, which must exist.

    Raises:
        UsageError: The storage does not exist, as where its name is mistyped.
    """
    from feedback_etl.storage.location import open_storage, require_storage

    storage = open_storage(settings.output_dir)
    require_storage(storage)
    return storage
