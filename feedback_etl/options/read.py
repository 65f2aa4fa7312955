"""Options that select the rows to read. Importing this module imports no third-party library."""

import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from feedback_etl.database.window import EVERYTHING, Time, Window, window_between, window_of_days
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    from feedback_etl.database.consent import ConsentColumnNames
    from feedback_etl.schema.source import SourceTable

_MAX_BATCH_ROWS = 10_000_000
_MAX_WORKERS = 64
"""PostgreSQL accepts 100 connections by default, and the application needs some."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options that select the rows to read, and how they are read.

    Attributes:
        days_back: The window in days of 24 hours before the time of the export; -1 for all rows. For an incremental
            export, the window of the first export of its series.
        since: The start of the window as an ISO 8601 date or time (UTC), instead of `days_back`.
        until: The end of the window, exclusive; the time of the export by default. Requires `since`, or -1 days.
        query: A SELECT that yields the raw columns, instead of the default schema.
        source: A declared table or query, instead of the default schema.
        db_schema: The schema of the default tables (on MySQL, the database).
        opt_in_column: A column of users or profiles. If it exists, only feedback of users with true is read.
        opt_out_column: A column of users or profiles. If it exists, feedback of users with true is not read.
        connect_timeout: Seconds to wait for the database.
        allow_row_security: Export only the rows that PostgreSQL's row-level security shows, instead of failing.
        bulk: Read time ranges in parallel (PostgreSQL); the result is the same.
        workers: Number of parallel readers; the number of processors, at most 4, by default. With an executor, the
            tasks in flight (64 by default), and so the minimum number of parts, unless these had under 20,000 rows.
        batch_size: Rows per batch; the result is the same.
        read_timeout: Seconds without a row after which reading fails.
    """

    days_back: int = 30
    since: Time | None = None
    until: Time | None = None
    query: str | None = None
    source: "SourceTable | None" = None
    db_schema: str | None = None
    opt_in_column: str = "training_data_opt_in"
    opt_out_column: str = "training_data_opt_out"
    connect_timeout: float = 2.0
    allow_row_security: bool = False
    bulk: bool = False
    workers: int | None = None
    batch_size: int = 65_536
    read_timeout: float = 600.0

    def __post_init__(self) -> None:
        self.window(datetime.max if self.since else datetime(9999, 1, 1))  # validates: no time is later than these
        for name, value in (("workers", self.workers), ("batch_size", self.batch_size)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"`{name}` must be a whole number, 1 or more.")
        if self.batch_size > _MAX_BATCH_ROWS:
            raise UsageError(f"`batch_size` must be {_MAX_BATCH_ROWS:,} or fewer: a batch is in memory as a whole.")
        if self.workers is not None and self.workers > _MAX_WORKERS:
            raise UsageError(f"`workers` must be {_MAX_WORKERS} or fewer: each is a process and a connection.")
        if self.query is not None and self.source is not None:
            raise UsageError("`query` and [source] exclude each other: name the query in [source].")
        if not self.read_timeout > 0:
            raise UsageError("`read_timeout` must be a number of seconds above 0.")

    def window(self, now: datetime) -> Window:
        """Return the half-open window that ends at `now` (naive UTC) or earlier.

        Raises:
            UsageError: The options do not describe a window, or one that ends after `now`.
        """
        if self.since is None and self.until is not None and self.days_back != EVERYTHING:
            raise UsageError("The end of a window (`until`) requires a start (`since`), or a `days_back` of -1.")
        if self.since is not None or self.until is not None:
            return window_between(self.since, self.until, now=now)
        return window_of_days(self.days_back, now=now)

    @property
    def processes(self) -> int | None:
        """The number of ranges that are read in parallel; None for one after the other."""
        return (self.workers or min(os.cpu_count() or 1, 4)) if self.bulk else None

    @property
    def consent(self) -> "ConsentColumnNames":
        """The columns that record consent."""
        from feedback_etl.database.consent import ConsentColumnNames

        return ConsentColumnNames(self.opt_in_column, self.opt_out_column)
