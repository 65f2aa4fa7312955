"""Read the rows of a database as batches of the canonical raw columns."""

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.ages import AgeQuery, AgeTable, plan_ages
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.driver_errors import build_query_error, get_query_reason
from feedback_etl.database.plain_times import are_in_order
from feedback_etl.database.ranges import PARALLEL_RANGE_ROWS, plan_ranges
from feedback_etl.database.raw_types import TIME, filter_window, to_raw
from feedback_etl.database.read_only import MYSQL_SESSION, READ_ONLY, SNAPSHOT
from feedback_etl.database.reader_client import BATCHES_AHEAD, Reader, ReaderJob, ReaderLostError
from feedback_etl.database.records import RecordQuery, RecordTable, plan_records
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import select_feedback
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError
from feedback_etl.options.read import ReadOptions
from feedback_etl.schema.model import FeedbackSchema

logger = logging.getLogger(__name__)


class ReadAgainError(SourceError):
    """The rows of an SQLite file have to be read again, with SQLAlchemy and by their instants.

    ConnectorX cannot read a value that does not fit the type of its column, or times were no longer plain.
    """


@contextmanager
def open_batches(
    source: DatabaseConnection, relation: SourceRelation, window: Window, options: ReadOptions
) -> Iterator[Iterator[pl.DataFrame]]:
    """Yield the rows of a window as raw frames, in order; at least one frame, which may be empty.

    ConnectorX reads them in separate processes if it supports the database; otherwise DuckDB itself or SQLAlchemy does.
    The database executes the query from the beginning of the context on; the end of the context cancels it.

    The frames raise:
        ReadAgainError: Read again, with a source whose `connectorx_url` is None and a relation without plain times.
        SourceError: The database stopped the query, or a column has a wrong type. No message contains a value.
    """
    with ExitStack() as stack:
        # On MySQL, ConnectorX retries with a rewritten query in which it does not escape backslashes.
        may_corrupt_query = source.dialect == "mysql" and "\\" in (relation.custom_query or "")
        if source.connectorx_url is None or may_corrupt_query:
            reader = "DuckDB" if source.dialect == "duckdb" else "SQLAlchemy"
            logger.info("reading with %s: ConnectorX cannot read this database", reader)
            streamed = _read_without_connectorx(source, relation, window, options.batch_size)
            frames: Iterator[pl.DataFrame] = stack.enter_context(closing(streamed))
        else:
            ages = plan_ages(source, relation, window)
            records = None if ages is None else plan_records(source, relation, window)
            rows = relation if ages is None else relation.without_ages()
            rows = rows if records is None else relation.without_records()
            ranges = plan_ranges(source, relation, window, parallel=options.processes)
            queries = [select_feedback(rows, part) for part in ranges.windows]
            lookups = _Lookups(ages, records)
            readers = _start_readers(stack, source, queries, options, lookups)
            frames = _read_with_connectorx(readers, relation, lookups)
        yield (filter_window(raw, window) for raw in frames) if source.dialect == "sqlite" else frames


class _Lookups(NamedTuple):
    """Tables that are read once, before the rows that refer to them; None for those that the database joins."""

    ages: AgeQuery | None
    records: RecordQuery | None


def _start_readers(
    stack: ExitStack, source: DatabaseConnection, queries: Sequence[str], options: ReadOptions, lookups: _Lookups
) -> list[Reader]:
    """Return the reader of each query, in the order of the rows; a reader may run several queries.

    The first reader reads the lookups before its rows.
    """
    prepare = list_session_statements(source)
    processes = min(options.processes or 1, len(queries))
    shares = [list(queries[n::processes]) for n in range(processes)]
    shares[0] = [*(lookup.sql for lookup in lookups if lookup is not None), *shares[0]]
    jobs = [ReaderJob(str(source.connectorx_url), prepare, share, options.batch_size) for share in shares]
    # Each reader reads its next range ahead while the ranges of other readers are written.
    ahead = ceil(PARALLEL_RANGE_ROWS / options.batch_size) if options.bulk else BATCHES_AHEAD
    readers = [stack.enter_context(Reader(job, read_timeout=options.read_timeout, batches_ahead=ahead)) for job in jobs]
    return [readers[number % processes] for number in range(len(queries))]


def read_job(job: ReaderJob, schema: FeedbackSchema, *, read_timeout: float) -> Iterator[pl.DataFrame]:
    """Yield the rows of a worker's job as raw frames; the reader process is kept for the next job.

    Raises:
        SourceError: The database stopped the query.
    """
    with Reader(job, read_timeout=read_timeout, is_kept=True) as reader:
        for _ in job.queries:
            for batch in reader.next_stream():
                yield to_raw(pl.DataFrame(batch), schema)


def _read_with_connectorx(readers: list[Reader], relation: SourceRelation, lookups: _Lookups) -> Iterator[pl.DataFrame]:
    try:
        tables: list[AgeTable | RecordTable] = []
        if lookups.ages is not None:
            tables.append(AgeTable.collect(map(pl.DataFrame, readers[0].next_stream()), lookups.ages))
        if lookups.records is not None:
            tables.append(RecordTable.collect(map(pl.DataFrame, readers[0].next_stream()), lookups.records))
        for reader in readers:
            batches: Iterator[pl.DataFrame] = map(pl.DataFrame, reader.next_stream())
            for table in tables:
                batches = map(table.add_to, batches)  # unlike a loop, map keeps no batch while it waits for the next
            yield from _to_raw(batches, relation)
    except SourceError as error:
        if relation.dialect != "sqlite" or isinstance(error, ReaderLostError):
            raise
        raise ReadAgainError(str(error)) from None


def list_session_statements(source: DatabaseConnection) -> list[str]:
    """Return the statements that begin each connection of the readers.

    On PostgreSQL, readers share the snapshot of `source`. MySQL cannot share one: a reader sees the state at the
    beginning of its only statement, slightly later than that of `source`.
    """
    if source.dialect == "mysql":
        return [f"SET SESSION TRANSACTION ISOLATION LEVEL {SNAPSHOT}, READ ONLY", MYSQL_SESSION]
    if source.dialect != "postgresql":
        return []
    snapshot = fetch_rows(source, "SELECT pg_export_snapshot()")[0][0]
    return [f"BEGIN ISOLATION LEVEL {SNAPSHOT}", f"SET TRANSACTION SNAPSHOT '{snapshot}'", *READ_ONLY, *source.settings]


def _read_without_connectorx(
    source: DatabaseConnection, relation: SourceRelation, window: Window, batch_size: int
) -> Generator[pl.DataFrame, None, None]:
    iterate_frames = _iterate_duckdb if source.dialect == "duckdb" else _iterate_sqlalchemy
    with closing(iterate_frames(source, select_feedback(relation, window), batch_size)) as frames:
        yield from _to_raw(frames, relation)


def _to_raw(frames: Iterable[pl.DataFrame], relation: SourceRelation) -> Iterator[pl.DataFrame]:
    """Yield frames as raw frames; verify that rows that are sorted by plain times are in the order of their times."""
    if not relation.has_plain_times:
        yield from map(partial(to_raw, schema=relation.schema), frames)
        return
    before = pl.DataFrame(schema={"text": pl.String, "time": TIME})
    for frame in frames:
        raw = to_raw(frame, relation.schema)
        times = pl.DataFrame([frame["created_at"].cast(pl.String).alias("text"), raw["created_at"].alias("time")])
        times = pl.concat([before, times])
        if not are_in_order(times):
            raise ReadAgainError("A time in another form than that of the others was written to created_at.")
        before = times.tail(1)
        yield raw


def _iterate_duckdb(source: DatabaseConnection, sql: str, batch_size: int) -> Generator[pl.DataFrame, None, None]:
    """Yield the rows of a statement, as Arrow batches from DuckDB; the first frame may be empty."""
    import pyarrow as pa
    from duckdb import Error

    connection: Any = source.connection.connection.driver_connection
    try:
        with connection.sql(sql).to_arrow_reader(batch_size) as reader:
            batch = next(reader, None)
            yield pl.DataFrame(batch if batch is not None else reader.schema.empty_table())
            yield from map(pl.DataFrame, reader)
    except (Error, OSError, pa.ArrowException) as error:  # the reader raises DuckDB's errors as OSError
        raise build_query_error(get_query_reason(error)) from None


def _iterate_sqlalchemy(source: DatabaseConnection, sql: str, batch_size: int) -> Generator[pl.DataFrame, None, None]:
    """Yield the rows of a statement, as SQLAlchemy's tuples; the first frame may be empty."""
    options: dict[str, Any] = {"no_parameters": True, "stream_results": True, "max_row_buffer": batch_size}
    try:
        with source.connection.exec_driver_sql(sql, execution_options=options) as result:
            names, rows = list(result.keys()), result.fetchmany(batch_size)
            yield _to_frame(names, rows)
            while rows := result.fetchmany(batch_size):
                yield _to_frame(names, rows)
    except SQLAlchemyError as error:
        raise build_query_error(get_query_reason(error)) from None


def _to_frame(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Return rows of Python values as a frame; types are inferred from all values, never from the first alone."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pl.DataFrame(
        [pl.Series(name, list(column), strict=False) for name, column in zip(names, columns, strict=True)]
    )
