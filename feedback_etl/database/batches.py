"""Rows out of a database, as batches of the canonical raw columns."""

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from math import ceil
from typing import Any, NamedTuple

import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.columns import ExtraColumn
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.driver_errors import query_error, query_reason
from feedback_etl.database.ranges import PARALLEL_RANGE_ROWS, plan_ranges
from feedback_etl.database.raw_types import filter_window, to_raw
from feedback_etl.database.read_only import MYSQL_SESSION, READ_ONLY, SNAPSHOT
from feedback_etl.database.reader_client import BATCHES_AHEAD, Reader, ReaderJob, ReaderLostError
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import select_feedback
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError, UsageError

logger = logging.getLogger(__name__)

BATCH_ROWS = 65_536
MAX_BATCH_ROWS = 10_000_000
MAX_WORKERS = 64
"""PostgreSQL accepts 100 connections unless told otherwise, and others need some."""


class BatchOptions(NamedTuple):
    """How rows are read; the defaults need no thought, and the result is the same for all.

    Attributes:
        bulk: Read time ranges side by side (PostgreSQL).
        workers: How many at once; the number of processors, at most 4, unless given.
        batch_size: How many rows are worked on at once.
        read_timeout: Seconds without a row after which the database is given up.
    """

    bulk: bool = False
    workers: int | None = None
    batch_size: int = BATCH_ROWS
    read_timeout: float = 600.0

    def checked(self) -> "BatchOptions":
        """Itself.

        Raises:
            UsageError: A value is not allowed.
        """
        for name, value in (("workers", self.workers), ("batch_size", self.batch_size)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} must be a whole number, 1 or more.")
        if self.batch_size > MAX_BATCH_ROWS:
            raise UsageError(f"batch_size must be {MAX_BATCH_ROWS:,} or fewer: a batch is in memory as a whole.")
        if self.workers is not None and self.workers > MAX_WORKERS:
            raise UsageError(f"workers must be {MAX_WORKERS} or fewer: each is a process and a connection.")
        if not self.read_timeout > 0:
            raise UsageError("read_timeout must be a number of seconds above 0.")
        return self


class ConnectorXValueError(SourceError):
    """An SQLite file stores values that do not fit the types of its columns; SQLAlchemy can read them."""


@contextmanager
def open_batches(
    source: DatabaseConnection, relation: SourceRelation, window: Window, reading: BatchOptions
) -> Iterator[Iterator[pl.DataFrame]]:
    """The rows of a window as raw frames, in order; at least one frame, which may be empty.

    ConnectorX moves them, in processes of its own, where it can be given the database; else SQLAlchemy reads them. The
    database is at work from the beginning of the context on, and left alone at its end.

    The frames raise:
        ConnectorXValueError: Read again, with a source whose `connectorx_url` is None.
        SourceError: The database query_error the query, or a column has a wrong type. No message holds a value.
    """
    with ExitStack() as stack:
        if source.connectorx_url is None or _is_misread(source, relation):
            logger.info("reading with SQLAlchemy: this database cannot be given to ConnectorX")
            rows = _with_sqlalchemy(source, relation, select_feedback(relation, window), reading.batch_size)
            frames: Iterator[pl.DataFrame] = stack.enter_context(closing(rows))
        else:
            readers = _started(stack, source, relation, window, reading)
            frames = _with_connectorx(readers, relation)
        yield (filter_window(raw, window) for raw in frames) if source.dialect == "sqlite" else frames


def _is_misread(source: DatabaseConnection, relation: SourceRelation) -> bool:
    """Where MySQL does not take a query at once, ConnectorX writes it anew, and forgets to escape backslashes."""
    return source.dialect == "mysql" and "\\" in (relation.custom_query or "")


def _started(
    stack: ExitStack,
    source: DatabaseConnection,
    relation: SourceRelation,
    window: Window,
    reading: BatchOptions,
) -> list[Reader]:
    """For each query, in the order of their rows, the reader process that runs it; some run several."""
    workers = (reading.workers or min(os.cpu_count() or 1, 4)) if reading.bulk else None
    ranges = plan_ranges(source, relation, window, parallel=workers)
    queries = [select_feedback(relation, part) for part in ranges.windows]
    prepare = session_statements(source)
    processes = min(workers or 1, len(queries))
    jobs = [
        ReaderJob(str(source.connectorx_url), prepare, queries[n::processes], reading.batch_size)
        for n in range(processes)
    ]
    # Side by side, each reads its next range while the others' are written.
    ahead = ceil(PARALLEL_RANGE_ROWS / reading.batch_size) if reading.bulk else BATCHES_AHEAD
    readers = [stack.enter_context(Reader(job, read_timeout=reading.read_timeout, batches_ahead=ahead)) for job in jobs]
    return [readers[number % processes] for number in range(len(queries))]


def read_job(job: ReaderJob, extra: Sequence[ExtraColumn], *, read_timeout: float) -> Iterator[pl.DataFrame]:
    """The rows of a job of somebody else's, as raw frames; the process that reads them is kept for the next job.

    Raises:
        SourceError: The database query_error the query.
    """
    with Reader(job, read_timeout=read_timeout, is_kept=True) as reader:
        for _ in job.queries:
            for batch in reader.next_stream():
                yield to_raw(pl.DataFrame(batch), extra)


def _with_connectorx(readers: list[Reader], relation: SourceRelation) -> Iterator[pl.DataFrame]:
    try:
        for reader in readers:
            for batch in reader.next_stream():
                yield to_raw(pl.DataFrame(batch), relation.extra)
    except SourceError as error:
        if relation.dialect != "sqlite" or isinstance(error, ReaderLostError):
            raise
        raise ConnectorXValueError(str(error)) from None


def session_statements(source: DatabaseConnection) -> list[str]:
    """What begins every connection of the readers.

    On PostgreSQL they see the state of the database that `source` sees. MySQL has no snapshot to share: a reader sees
    the state at the beginning of its one statement, which is a moment after that of `source`.
    """
    if source.dialect == "mysql":
        return [f"SET SESSION TRANSACTION ISOLATION LEVEL {SNAPSHOT}, READ ONLY", MYSQL_SESSION]
    if source.dialect != "postgresql":
        return []
    snapshot = fetch_rows(source, "SELECT pg_export_snapshot()")[0][0]
    return [f"BEGIN ISOLATION LEVEL {SNAPSHOT}", f"SET TRANSACTION SNAPSHOT '{snapshot}'", *READ_ONLY, *source.settings]


def _with_sqlalchemy(
    source: DatabaseConnection, relation: SourceRelation, sql: str, batch_size: int
) -> Generator[pl.DataFrame, None, None]:
    options: dict[str, Any] = {"no_parameters": True, "stream_results": True, "max_row_buffer": batch_size}
    try:
        with source.connection.exec_driver_sql(sql, execution_options=options) as result:
            names, rows = list(result.keys()), result.fetchmany(batch_size)
            yield to_raw(_frame(names, rows), relation.extra)
            while rows := result.fetchmany(batch_size):
                yield to_raw(_frame(names, rows), relation.extra)
    except SQLAlchemyError as error:
        raise query_error(query_reason(error)) from None


def _frame(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Rows as Python values to a frame; types are found from all values, never from the first alone."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pl.DataFrame(
        [pl.Series(name, list(column), strict=False) for name, column in zip(names, columns, strict=True)]
    )
