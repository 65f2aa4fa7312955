"""Read the feedback that a request selects: connect, inspect, read batches."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import polars as pl

from feedback_etl.database.batches import ReadAgainError, open_batches
from feedback_etl.database.collations import describe_remedy
from feedback_etl.database.connect import Database, DatabaseConnection, open_connection
from feedback_etl.database.cursor_name import CREATED_AT
from feedback_etl.database.hints import suggest_cursor, suggest_index
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import count_incomparable_ids, count_rows
from feedback_etl.database.statements import fetch_count, fetch_rows
from feedback_etl.database.watermark import Watermark, WatermarkRequest, compute_watermark, fetch_excluded
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError
from feedback_etl.options.read import ReadOptions
from feedback_etl.plurals import pluralize
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import FeedbackSchema

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
PhaseListener = Callable[[str], None]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class ReadRequest:
    """Select rows of a database, and how to read them.

    Attributes:
        database: The database, in any of the accepted forms.
        window: The rows, by their creation time.
        options: The database, and how it is read; the options that select a window have no effect here.
        on_progress: Called after each batch with the number of rows read so far and the total.
        on_phase: Called with the name of each phase when it begins, such as "counting rows".
        watermark: The watermark to compute for an incremental export; None for other exports.
        schema: The schema of the rows.
        use_connectorx: Read with ConnectorX where it supports the database.
        cursor: The column by which an incremental export continues, which is read too.
        changed_since: Read only rows of the window that were created or changed since this time; None for all.
        excluded_since: Count only rows without consent that were created or changed since this time; None for all.
        excluded_before: Count those of earlier times too, as far as there are more than this number of all; None to
            leave them out.
    """

    database: Database = field(repr=False)
    window: Window
    options: ReadOptions
    on_progress: Progress | None = None
    on_phase: PhaseListener | None = None
    watermark: WatermarkRequest | None = None
    schema: FeedbackSchema = CLASSIC_SCHEMA
    use_connectorx: bool = True
    cursor: str = CREATED_AT
    changed_since: datetime | None = None
    excluded_since: datetime | None = None
    excluded_before: int | None = None

    def report_phase(self, name: str) -> None:
        """Report that a phase begins."""
        if self.on_phase:
            self.on_phase(name)


class OpenSource(NamedTuple):
    """Hold an open database and the relation to read from it."""

    source: DatabaseConnection
    relation: SourceRelation


@dataclass(frozen=True)
class FeedbackSource:
    """Describe the source of the rows of a request while the database is open.

    Attributes:
        opened: The database and the relation.
        window: The rows, by their creation time.
        excluded: The number of rows excluded for lack of consent.
        watermark: The watermark of an incremental export.
    """

    opened: OpenSource = field(repr=False)
    window: Window
    excluded: int
    watermark: Watermark

    @property
    def dialect(self) -> str:
        """The dialect of the database."""
        return self.opened.source.dialect

    @property
    def consent(self) -> tuple[str, ...]:
        """The columns by which rows were excluded; empty if none records consent."""
        return self.opened.relation.consent

    def suggest_index(self) -> str:
        """Return a sentence on the index that would speed up reading; "" if none is known."""
        return suggest_index(*self.opened, self.window)

    def suggest_cursor(self) -> str:
        """Return a sentence on the cursor that follows changes; "" if no row was changed, or for a custom query."""
        return suggest_cursor(*self.opened)


@dataclass(frozen=True)
class FeedbackStream(FeedbackSource):
    """Provide the rows of a request while the database is open.

    Attributes:
        batches: The rows that are not excluded as raw frames, in order; at least one frame, which may be empty.
    """

    batches: Iterator[pl.DataFrame]


@contextmanager
def open_feedback(request: ReadRequest) -> Iterator[FeedbackStream]:
    """Open the database of a request and stream its rows; the database is closed at the end of the context.

    Functions that open a stream are decorated with `retry_with_sqlalchemy`.

    Raises:
        ReadAgainError: The rows of an SQLite file have to be read again; raised by the context or the batches.
        UsageError: The request is not valid.
        SourceError: The database cannot be reached, is not as expected, or stopped the query.
    """
    window = request.window
    with open_source(request) as (source, relation):
        if not request.use_connectorx:
            source, relation = replace(source, connectorx_url=None), replace(relation, has_plain_times=False)
        request.report_phase("counting rows")
        watermark = compute_watermark(source, relation, window, request.watermark)
        with open_batches(source, relation, window, request.options) as batches:
            excluded = count_new_excluded(source, relation, request)
            if request.on_progress:
                total = fetch_count(source, count_rows(relation, window))
                batches = _report_progress(batches, request.on_progress, total)
            request.report_phase("reading rows")
            yield FeedbackStream(OpenSource(source, relation), window, excluded, watermark, batches)


def retry_with_sqlalchemy(
    function: Callable[Concatenate[ReadRequest, P], T],
) -> Callable[Concatenate[ReadRequest, P], T]:
    """Call a function of a request again, with SQLAlchemy, if the rows of an SQLite file have to be read again.

    The function starts again from the first row.
    """

    @wraps(function)
    def retrying(request: ReadRequest, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(request, *args, **kwargs)
        except ReadAgainError as error:
            logger.info("reading again with SQLAlchemy: %s", error)
        return function(replace(request, use_connectorx=False), *args, **kwargs)

    return retrying


@contextmanager
def open_source(request: ReadRequest) -> Iterator[OpenSource]:
    """Open the database of a request and inspect its tables.

    Raises:
        UsageError: The request is not valid.
        SourceError: The database cannot be reached, or is not as expected.
    """
    options = request.options
    request.report_phase("connecting")
    with open_connection(request.database, options) as source:
        relation = inspect_source(
            source,
            query=options.source or options.query,
            consent=options.consent,
            schema=request.schema,
            cursor=request.cursor,
        )
        relation = replace(relation, changed_since=request.changed_since)
        _require_comparable_ids(source, relation, request.window)
        yield OpenSource(source, relation)


def count_new_excluded(source: DatabaseConnection, relation: SourceRelation, request: ReadRequest) -> int:
    """Return the number of rows without consent that no earlier run has counted.

    It is a lower bound in a series: rows that were counted, and have consent now, offset others that arrived in the
    lookback. Rows that were created since the last run are never offset.
    """
    recent = fetch_excluded(source, relation, request.window, request.excluded_since)
    if request.excluded_before is None:
        return recent
    return max(recent, fetch_excluded(source, relation, request.window) - request.excluded_before)


def _require_comparable_ids(source: DatabaseConnection, relation: SourceRelation, window: Window) -> None:
    """Refuse ids in the window that may equal others by unknown rules of their collation."""
    names = [name for name, comparison in relation.comparisons.items() if comparison.ascii_only]
    if not names:
        return
    counts = fetch_rows(source, count_incomparable_ids(relation, window))[0]
    for name, rows in zip(names, counts, strict=True):
        if rows:
            collation = relation.comparisons[name].ascii_only
            raise SourceError(
                f"{name} has characters other than printable ASCII in {pluralize(rows, 'row')}. To the "
                f"collation {collation} such ids can be the same as others, by rules that are not known here. "
                f"{describe_remedy(name, collation, source.dialect, relation.query_option)}"
            )


def _report_progress(batches: Iterator[pl.DataFrame], on_progress: Progress, total: int) -> Iterator[pl.DataFrame]:
    """Yield the batches, and report each after it was processed."""
    rows = 0
    for batch in batches:
        yield batch
        rows += batch.height
        on_progress(rows, max(rows, total))
