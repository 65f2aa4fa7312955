"""Options of the command that exports feedback; those that other commands have too are in `cli.options`."""

from typing import Annotated, Literal

from feedback_etl.cli.command_group import output_option, privacy_option, row_option, series_option, speed_option

RowModel = Annotated[
    str | None, row_option("--row-model", "Pandera model that every batch must also satisfy.", "FILE.py:MODEL")
]
Strict = Annotated[bool, row_option("--strict", "Publish nothing if any row is rejected.")]
MaxRejected = Annotated[
    float,
    row_option(
        "--max-rejected", "Publish nothing if a larger share of the rows is rejected, for example 0.05.", "SHARE"
    ),
]
HashRecommendationId = Annotated[
    bool, privacy_option("--hash-recommendation-id", "Pseudonymise recommendation_id as well.")
]
Items = Annotated[
    str | None, row_option("--items", "Item ratings to export in a second file, such as product_ratings.", "NAME")
]
PseudonymLength = Annotated[
    int | None,
    privacy_option(
        "--pseudonym-length", "Hex digits of a pseudonym; 32 for 100 million analyses or more.  [default: 16]", "16|32"
    ),
]
TimestampPrecision = Annotated[
    Literal["exact", "minute", "hour", "day", "week", "month", "quarter"] | None,
    privacy_option("--timestamp-precision", "Truncate feedback_timestamp, after deduplication.  [default: exact]"),
]
K = Annotated[
    int | None,
    privacy_option("--k", "Require at least N people in each equivalence class (equal quasi-identifiers).", "N"),
]
OnSmallClass = Annotated[
    Literal["suppress", "generalize", "fail"] | None,
    privacy_option(
        "--on-small-class",
        "Suppress the rows of smaller equivalence classes, generalise their quasi-identifiers, or publish "
        "nothing.  [default: suppress]",
    ),
]
L = Annotated[int | None, privacy_option("--l", "With --k, require at least N different answers in each class.", "N")]
T = Annotated[
    float | None,
    privacy_option(
        "--t", "With --k, maximum distance of the answers in a class from those of all, 0 to 1.", "DISTANCE"
    ),
]
MaxSuppressed = Annotated[
    float | None,
    privacy_option(
        "--max-suppressed",
        "Publish nothing if a larger share of the rows would be suppressed.  [default: 1.0]",
        "SHARE",
    ),
]
Share = Annotated[
    bool,
    privacy_option(
        "--share",
        "Share with a --recipient outside the organisation: k of at least 5, months instead of times, a "
        "pseudonym for each row, small classes generalised; requires --output, a folder of shared files only.",
    ),
]
Recipient = Annotated[
    str | None, privacy_option("--recipient", "Who gets the file, for example acme-research; with --share.", "NAME")
]
AllowOverlap = Annotated[
    bool,
    privacy_option(
        "--allow-overlap", "Share a window of which the recipient got a part before, with other options or other rows."
    ),
]
Incremental = Annotated[
    bool,
    series_option(
        "--incremental", "Export the rows that are new since the last incremental export; the first uses --days."
    ),
]
Cursor = Annotated[
    str | None,
    series_option(
        "--cursor",
        "Column by which --incremental continues. With updated_at, changed rows are exported again.  [default: "
        "created_at]",
        "COLUMN",
    ),
]
Lookback = Annotated[
    str, series_option("--lookback", "How late rows may arrive, for example 30m, 2h or 1d.", "DURATION")
]
MaxPending = Annotated[
    str,
    series_option(
        "--max-pending", "How long rows of an incremental series may be pending, for example 90d.", "DURATION"
    ),
]
NewSeries = Annotated[
    bool,
    series_option(
        "--new-series", "Begin a series with other settings than the folder's existing one; it exports the rows again."
    ),
]
Backfill = Annotated[
    bool, series_option("--backfill", "Export the rows of earlier windows of the series that no export contains.")
]
Unkeyed = Annotated[
    bool, privacy_option("--unkeyed", "Use plain SHA-256 without a key: anyone who can list the ids can invert it.")
]
AllowNewKey = Annotated[
    bool, privacy_option("--allow-new-key", "Export even if exports in the folder were made with another key.")
]
Bulk = Annotated[bool, speed_option("--bulk", "Read time ranges in parallel (PostgreSQL); the file is the same.")]
Executor = Annotated[
    str | None, speed_option("--executor", "Run the export in parts on a cluster: dask=ADDRESS.", "ENGINE")
]
Quiet = Annotated[bool, output_option("--quiet -q", "Print no progress and no summary.")]
