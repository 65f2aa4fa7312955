"""Build the selection of rows from the options of an export."""

from datetime import datetime

from feedback_etl.database.connect import Database, is_files
from feedback_etl.database.read import PhaseListener, Progress, ReadRequest
from feedback_etl.errors import UsageError
from feedback_etl.options.export import ExportOptions
from feedback_etl.schema.classic import CLASSIC_SCHEMA


def select(
    database: Database,
    options: ExportOptions,
    now: datetime,
    on_progress: Progress | None = None,
    on_phase: PhaseListener | None = None,
) -> ReadRequest:
    """Return the selection of rows that an export at `now` (naive UTC) reads.

    Raises:
        UsageError: The window ends after `now`, or extra columns have no query that yields them.
    """
    read, extra_columns = options.read, options.privacy.extra_columns
    has_query = read.query is not None or read.source is not None or is_files(database)
    if extra_columns and not has_query:
        raise UsageError(f"The default tables have no column {extra_columns[0].name}: extra columns require a query.")
    return ReadRequest(
        database,
        window=read.window(now),
        options=read,
        on_progress=on_progress,
        on_phase=on_phase,
        schema=CLASSIC_SCHEMA.with_extra_columns(options.privacy.all_extra_columns),
    )
