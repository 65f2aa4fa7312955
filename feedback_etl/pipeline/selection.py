"""Build the selection of rows from the options of an export."""

from datetime import datetime

from feedback_etl.database.connect import Database, is_files
from feedback_etl.database.read import PhaseListener, Progress, ReadRequest
from feedback_etl.errors import UsageError
from feedback_etl.options.export import ExportOptions
from feedback_etl.schema.classic import is_classic


def select(
    database: Database,
    options: ExportOptions,
    now: datetime,
    on_progress: Progress | None = None,
    on_phase: PhaseListener | None = None,
) -> ReadRequest:
    """Return the selection of rows that an export at `now` (naive UTC) reads.

    Raises:
        UsageError: The window ends after `now`, or a declared schema or extra columns have no source that yields them.
    """
    read, extra_columns = options.read, options.privacy.extra_columns
    is_default = read.query is None and read.source is None and not is_files(database)
    if read.source is not None and options.privacy.include_image_urls:
        raise UsageError("`include_image_urls` reads the default tables, and cannot be combined with [source].")
    if is_default and not is_classic(options.privacy.schema):
        raise UsageError("A declared schema needs [source] or a query: the default tables do not have its columns.")
    if extra_columns and is_default:
        raise UsageError(f"The default tables have no column {extra_columns[0].name}: extra columns require a query.")
    return ReadRequest(
        database,
        window=read.window(now),
        options=read,
        on_progress=on_progress,
        on_phase=on_phase,
        schema=options.full_schema,
    )
