"""Options of incremental exports."""

from typing import Annotated

import typer

Incremental = Annotated[
    bool,
    typer.Option(
        "--incremental",
        help="Export the rows that are new since the last incremental export; the first uses --days.",
    ),
]
Lookback = Annotated[
    str, typer.Option("--lookback", help="How late rows may arrive, for example 30m, 2h or 1d.", metavar="DURATION")
]
NewSeries = Annotated[
    bool,
    typer.Option(
        "--new-series",
        help="Begin a series with other settings than the folder's existing one; it exports the rows again.",
    ),
]
