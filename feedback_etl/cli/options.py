"""The options that choose rows, the same for all commands that read feedback."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_etl.errors import UsageError
from feedback_etl.pipeline.configured import selection_of

if TYPE_CHECKING:
    from feedback_etl.settings import Settings

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


def selection(
    settings: "Settings", context: typer.Context, days: int, since: str | None, until: str | None
) -> dict[str, Any]:
    """The arguments of the library that choose rows."""
    source = context.get_parameter_source("days")
    if since is not None and source is not None and source.name == "COMMANDLINE":
        raise UsageError("--days and --since exclude each other.")
    return {
        "days_back": days,
        "since": since,
        "until": until,
        **selection_of(settings),
    }
