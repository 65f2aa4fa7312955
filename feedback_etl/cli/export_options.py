"""Options of the command that exports feedback; those that other commands have too are in `cli.options`."""

from typing import Annotated, Literal

import typer

from feedback_etl.cli.command_group import OUTPUT, PRIVACY, ROWS, SERIES, SPEED

RowModel = Annotated[
    str | None,
    typer.Option(
        "--row-model",
        help="Pandera model that every batch must also satisfy.",
        metavar="FILE.py:MODEL",
        rich_help_panel=ROWS,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Publish nothing if any row is rejected.", rich_help_panel=ROWS)]
MaxRejected = Annotated[
    float,
    typer.Option(
        "--max-rejected",
        help="Publish nothing if a larger share of the rows is rejected, for example 0.05.",
        metavar="SHARE",
        rich_help_panel=ROWS,
    ),
]
HashRecommendationId = Annotated[
    bool,
    typer.Option("--hash-recommendation-id", help="Pseudonymise recommendation_id as well.", rich_help_panel=PRIVACY),
]
Items = Annotated[
    str | None,
    typer.Option(
        "--items",
        help="Export item ratings, for example product_ratings, as rows of a second file.",
        metavar="NAME",
        rich_help_panel=ROWS,
    ),
]
PseudonymLength = Annotated[
    int | None,
    typer.Option(
        "--pseudonym-length",
        help="Hex digits of a pseudonym; 32 for 100 million analyses or more.  [default: 16]",
        metavar="16|32",
        rich_help_panel=PRIVACY,
    ),
]
TimestampPrecision = Annotated[
    Literal["exact", "minute", "hour", "day", "week", "month", "quarter"] | None,
    typer.Option(
        "--timestamp-precision",
        help="Truncate feedback_timestamp, after deduplication.  [default: exact]",
        rich_help_panel=PRIVACY,
    ),
]
K = Annotated[
    int | None,
    typer.Option(
        "--k",
        help="Require at least N people in each equivalence class (equal quasi-identifiers).",
        metavar="N",
        rich_help_panel=PRIVACY,
    ),
]
OnSmallClass = Annotated[
    Literal["suppress", "generalize", "fail"] | None,
    typer.Option(
        "--on-small-class",
        help="Suppress the rows of smaller equivalence classes, generalise their quasi-identifiers, or publish "
        "nothing.  [default: suppress]",
        rich_help_panel=PRIVACY,
    ),
]
L = Annotated[
    int | None,
    typer.Option(
        "--l",
        help="With --k, require at least N different answers in each class.",
        metavar="N",
        rich_help_panel=PRIVACY,
    ),
]
T = Annotated[
    float | None,
    typer.Option(
        "--t",
        help="With --k, greatest distance of the answers in a class from those of all, 0 to 1.",
        metavar="DISTANCE",
        rich_help_panel=PRIVACY,
    ),
]
MaxSuppressed = Annotated[
    float | None,
    typer.Option(
        "--max-suppressed",
        help="Publish nothing if a larger share of the rows would be suppressed.  [default: 1.0]",
        metavar="SHARE",
        rich_help_panel=PRIVACY,
    ),
]
Share = Annotated[
    bool,
    typer.Option(
        "--share",
        help="Share with a --recipient outside the organisation: k of at least 5, months instead of times, a pseudonym "
        "for each row, small classes generalised; requires --output, a folder of shared files only.",
        rich_help_panel=PRIVACY,
    ),
]
Recipient = Annotated[
    str | None,
    typer.Option(
        "--recipient",
        help="Who gets the file, for example acme-research; with --share.",
        metavar="NAME",
        rich_help_panel=PRIVACY,
    ),
]
AllowOverlap = Annotated[
    bool,
    typer.Option(
        "--allow-overlap",
        help="Share a window of which the recipient got a part before, with other options or other rows.",
        rich_help_panel=PRIVACY,
    ),
]
Incremental = Annotated[
    bool,
    typer.Option(
        "--incremental",
        help="Export the rows that are new since the last incremental export; the first uses --days.",
        rich_help_panel=SERIES,
    ),
]
Cursor = Annotated[
    str | None,
    typer.Option(
        "--cursor",
        help="Column by which --incremental continues. With updated_at, changed rows are exported again.  "
        "[default: created_at]",
        metavar="COLUMN",
        rich_help_panel=SERIES,
    ),
]
Lookback = Annotated[
    str,
    typer.Option(
        "--lookback",
        help="How late rows may arrive, for example 30m, 2h or 1d.",
        metavar="DURATION",
        rich_help_panel=SERIES,
    ),
]
MaxPending = Annotated[
    str,
    typer.Option(
        "--max-pending",
        help="How long rows of an incremental series may wait for k people, for example 90d.",
        metavar="DURATION",
        rich_help_panel=SERIES,
    ),
]
NewSeries = Annotated[
    bool,
    typer.Option(
        "--new-series",
        help="Begin a series with other settings than the folder's existing one; it exports the rows again.",
        rich_help_panel=SERIES,
    ),
]
Backfill = Annotated[
    bool,
    typer.Option(
        "--backfill",
        help="Export the rows of earlier windows of the series that no export contains.",
        rich_help_panel=SERIES,
    ),
]
Unkeyed = Annotated[
    bool,
    typer.Option(
        "--unkeyed",
        help="Use plain SHA-256 without a key: anyone who can list the ids can invert it.",
        rich_help_panel=PRIVACY,
    ),
]
AllowNewKey = Annotated[
    bool,
    typer.Option(
        "--allow-new-key",
        help="Export even if exports in the folder were made with another key.",
        rich_help_panel=PRIVACY,
    ),
]
Bulk = Annotated[
    bool,
    typer.Option(
        "--bulk", help="Read time ranges in parallel (PostgreSQL); the file is the same.", rich_help_panel=SPEED
    ),
]
Executor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Run the export in parts on a cluster: dask=ADDRESS.",
        metavar="ENGINE",
        rich_help_panel=SPEED,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary.", rich_help_panel=OUTPUT)]
