"""Rows out of a database, as batches of the canonical raw columns."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.errors import SourceError
from feedback_etl.schema import RAW_COLUMNS
from feedback_etl.source.connect import READ_ONLY, Source
from feedback_etl.source.raw import cut_exactly, to_raw
from feedback_etl.source.window import Window

logger = logging.getLogger(__name__)

BATCH_ROWS = 65_536

_STOPPED = {
    "statement timeout": "it took longer than the server's statement_timeout allows",
    "lock timeout|locked": "another program holds a lock on the database",
    "user request": "somebody cancelled it",
    "permission denied": "this user may not read all of the tables",
    "read-only transaction|before any query": "it would write, and nothing here may write",
    "terminating connection|closed": "the connection was lost",
    "division by zero": "it divides by zero in some row",
    "invalid input syntax|out of range|malformed": "a value of some row cannot be converted as it asks",
}
"""What databases say (as regular expressions), and what we say instead: their texts can hold rows' values."""


def read_batches(source: Source, sql: str, window: Window, *, batch_rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """Run a statement and give its rows as raw frames, in order; at least one frame, which may be empty.

    ConnectorX moves the rows where it can. Where it cannot (no URL of its own, or values that do not fit the declared
    types of SQLite), SQLAlchemy reads them in batches of `batch_rows`.

    Raises:
        SourceError: The database stopped the query, or a column has a wrong type. No message holds a value.
    """
    for raw in _raw_frames(source, sql, batch_rows):
        yield cut_exactly(raw, window) if source.dialect == "sqlite" else raw


def stopped(error: BaseException) -> SourceError:
    """What to tell of a statement that failed while it read rows."""
    error = getattr(error, "orig", None) or error
    reason = next((reason for sign, reason in _STOPPED.items() if re.search(sign, str(error))), None)
    state = getattr(error, "sqlstate", None)
    told = reason or f"it failed while it read rows ({f'SQLSTATE {state}' if state else type(error).__name__})"
    return SourceError(f"The database stopped the query: {told}. Nothing was exported.")


def _raw_frames(source: Source, sql: str, batch_rows: int) -> Iterator[pl.DataFrame]:
    if source.connectorx_url is None:
        logger.info("reading with SQLAlchemy: this database cannot be given to ConnectorX")
    else:
        try:
            raw = to_raw(_with_connectorx(source.connectorx_url, sql, source.dialect))
        except Exception as error:
            if source.dialect != "sqlite":
                raise (error if isinstance(error, SourceError) else stopped(error)) from None
            logger.info("reading with SQLAlchemy: ConnectorX cannot read what this SQLite file stores")
        else:
            yield raw
            return
    yield from map(to_raw, _with_sqlalchemy(source, sql, batch_rows))


def _with_connectorx(url: str, sql: str, dialect: str) -> pl.DataFrame:
    os.environ.setdefault("RUST_LOG", "off")  # read once, when ConnectorX is imported
    import connectorx

    begin = ["BEGIN", *READ_ONLY] if dialect == "postgresql" else None
    try:
        table = connectorx.read_sql(url, sql, return_type="arrow", pre_execution_query=begin)
    except Exception:
        raise
    except BaseException as panic:  # a Rust panic is no Exception
        if type(panic).__name__ != "PanicException":
            raise
        raise RuntimeError(str(panic)) from None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  a table is no series
    return frame


def _with_sqlalchemy(source: Source, sql: str, batch_rows: int) -> Iterator[pl.DataFrame]:
    options: dict[str, Any] = {"no_parameters": True, "stream_results": True, "max_row_buffer": batch_rows}
    try:
        with source.connection.exec_driver_sql(sql, execution_options=options) as result:
            rows = result.fetchmany(batch_rows)
            yield _frame(rows)
            while rows := result.fetchmany(batch_rows):
                yield _frame(rows)
    except SQLAlchemyError as error:
        raise stopped(error) from None


def _frame(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Rows as Python values to a frame; types are found from all values, never from the first alone."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in RAW_COLUMNS)
    return pl.DataFrame(
        [pl.Series(name, list(column), strict=False) for name, column in zip(RAW_COLUMNS, columns, strict=True)]
    )
