"""From a selection of rows to raw batches: connect, look, read, and read again another way where that is needed."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import polars as pl

from feedback_etl.columns import CONSENT, ExtraColumn
from feedback_etl.database.batches import Reading, UnfitForConnectorX, open_reading
from feedback_etl.database.collations import describe_remedy
from feedback_etl.database.connect import Database, Source, open_source
from feedback_etl.database.consent import ConsentColumns
from feedback_etl.database.hints import missing_index
from feedback_etl.database.inspection import fetch_count, fetch_rows, look_at
from feedback_etl.database.relation import Relation
from feedback_etl.database.sql import count_in, excluded_in, incomparable_in
from feedback_etl.database.watermark import Settled, Settling, settle
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """Which rows, and how to reach them."""

    database: Database = field(repr=False)
    window: Window
    query: str | None
    db_schema: str | None
    connect_timeout: float
    reading: Reading
    progress: Progress | None
    settling: Settling | None = None
    consent: ConsentColumns = field(default_factory=ConsentColumns)
    extra: tuple[ExtraColumn, ...] = ()
    allow_row_security: bool = False


class Found(NamedTuple):
    """What a selection yields, while the database is open.

    Attributes:
        excluded: The number of rows left out for lack of consent.
        batches: The others as raw frames, in order; at least one frame, which may be empty.
        advice: How reading could be faster; "" where nothing is known.
        source: The kind of database.
        consent: The columns by which rows were left out; none where nothing records consent.
        settled: What is so old that an incremental export will not read it again.
    """

    excluded: int
    batches: Iterator[pl.DataFrame]
    advice: Callable[[], str]
    source: str
    settled: Settled
    consent: tuple[str, ...]


def read(selection: Selection, work: Callable[[Found], T]) -> T:
    """Do some work on what a selection yields. It may be begun a second time, on the same rows.

    Raises:
        UsageError: What was asked for cannot be.
        SourceError: The database cannot be reached, is not as expected, or stopped the query.
    """
    try:
        with _found(selection) as found:
            return work(found)
    except UnfitForConnectorX:
        logger.info("reading again with SQLAlchemy: ConnectorX cannot read what this SQLite file stores")
    with _found(selection, with_connectorx=False) as found:
        return work(found)


class Opened(NamedTuple):
    """The database of a selection, looked at: where its rows are, and what the types of their columns are called."""

    source: Source
    relation: Relation
    types: dict[str, str]


@contextmanager
def opened(selection: Selection) -> Iterator[Opened]:
    """Open the database of a selection and look at its tables.

    Raises:
        UsageError: What was asked for cannot be.
        SourceError: The database cannot be reached, or is not as expected.
    """
    with open_source(
        selection.database,
        query=selection.query,
        db_schema=selection.db_schema,
        connect_timeout=selection.connect_timeout,
        allow_row_security=selection.allow_row_security,
    ) as source:
        relation, types = look_at(
            source,
            query=selection.query,
            consent=selection.consent,
            extra=selection.extra,
        )
        _require_comparable(source, relation, selection.window, types)
        yield Opened(source, relation, types)


def _require_comparable(source: Source, relation: Relation, window: Window, types: dict[str, str]) -> None:
    """Refuse ids of which nobody could say whether they are the same to the database."""
    names = [name for name, comparison in relation.comparisons.items() if comparison.ascii_only]
    if not names:
        return
    counts = fetch_rows(source, incomparable_in(relation, window, types))[0]
    for name, rows in zip(names, counts, strict=True):
        if rows:
            collation = relation.comparisons[name].ascii_only
            raise SourceError(
                f"{name} has characters other than printable ASCII in {rows:,} row{'' if rows == 1 else 's'}. To the "
                f"collation {collation} such ids can be the same as others, by rules that are not known here. "
                f"{describe_remedy(name, collation, source.dialect)}"
            )


@contextmanager
def _found(selection: Selection, *, with_connectorx: bool = True) -> Iterator[Found]:
    window, reading = selection.window, selection.reading.checked()
    with opened(selection) as (source, relation, types):
        if not with_connectorx:
            source = replace(source, connectorx_url=None)
        settled = settle(source, relation, window, types, selection.settling)
        with open_reading(source, relation, window, types, reading) as batches:
            excluded = total = 0
            if CONSENT in relation.columns:
                excluded = fetch_count(source, excluded_in(relation, window, types))
            if selection.progress:
                total = fetch_count(source, count_in(relation, window, types))
            yield Found(
                excluded,
                _told(batches, selection.progress, total),
                lambda: missing_index(source, relation, window, types),
                source.dialect,
                settled,
                relation.consent,
            )


def _told(batches: Iterator[pl.DataFrame], progress: Progress | None, total: int) -> Iterator[pl.DataFrame]:
    """The batches, each told of after it has been worked on."""
    rows = 0
    for raw in batches:
        yield raw
        rows += raw.height
        if progress:
            progress(rows, max(rows, total))
