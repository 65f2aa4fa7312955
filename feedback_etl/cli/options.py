"""The options that choose rows, the same for all commands that read feedback."""

from pathlib import Path
from typing import Annotated

import typer

from feedback_etl.errors import UsageError

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help="Where the feedback is. Better in FEEDBACK_ETL_DATABASE_URL: arguments show in process lists.",
        metavar="URL",
    ),
]
Days = Annotated[int, typer.Option("--days", help="Days back from now; -1 for everything.", metavar="N")]
Since = Annotated[str | None, typer.Option(help="Start, instead of --days: an ISO date or time, UTC.", metavar="TIME")]
Until = Annotated[str | None, typer.Option(help="End, exclusive, with --since; now unless given.", metavar="TIME")]
MinFields = Annotated[
    int, typer.Option("--min-fields", help="Skip rows with fewer of the four ratings, 0 to 4.", metavar="N")
]
Query = Annotated[Path | None, typer.Option(help="File with a SELECT that yields the raw columns.", metavar="FILE.sql")]
AllowRowSecurity = Annotated[
    bool | None,
    typer.Option(
        "--allow-row-security",
        help="Read only what row-level security shows, instead of refusing (PostgreSQL).",
        show_default="off",
    ),
]


def require_one_start(context: typer.Context, since: str | None) -> None:
    """Refuse --days beside --since.

    Raises:
        UsageError: Both were given.
    """
    source = context.get_parameter_source("days")
    if since is not None and source is not None and source.name == "COMMANDLINE":
        raise UsageError("--days and --since exclude each other.")
