"""Read each recommendation once, instead of joining its texts to every row of its feedback (PostgreSQL).

The join makes the rows to sort three times as wide: it is more than half of the server's work for a large window. A
million recommendations take about 60 MB here.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import polars as pl
import sqlalchemy as sa

from feedback_etl.database.ages import MIN_ROWS
from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.ranges import estimate_rows
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import select_records
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.window import Window
from feedback_etl.schema.model import RAW_ITEM

MAX_IDS = 1_000_000
"""Most ids from the lowest to the highest one, both included, whose recommendations are kept in memory."""


class RecordQuery(NamedTuple):
    """Describe the recommendations to read.

    Attributes:
        sql: Statement that yields the `id` and the raw columns of each recommendation.
        first: The lowest id.
        last: The highest one.
    """

    sql: str
    first: int
    last: int


def plan_records(source: DatabaseConnection, relation: SourceRelation, window: Window) -> RecordQuery | None:
    """Return the recommendations to read for a window; None if the database is to join them.

    They are read if the tables are the default ones, ids are integers and the table's primary key, and the range of ids
    is not larger than the number of rows that the planner expects in the window.
    """
    records, key = relation.records, relation.record_key
    if source.dialect != "postgresql" or records is None or key is None:
        return None
    rows = estimate_rows(source, relation, window)
    if rows < MIN_ROWS or not _is_primary_key(source, records):
        return None
    (ends,) = fetch_rows(source, relation.render(sa.select(sa.func.min(records.c.id), sa.func.max(records.c.id))))
    used = fetch_rows(source, relation.render(sa.select(key).where(key.is_not(None)).limit(1)))
    if (
        not used
        or not all(isinstance(id_, int) for id_ in (*ends, *used[0]))
        or ends[1] - ends[0] >= min(MAX_IDS, rows)
    ):
        return None
    return RecordQuery(select_records(relation), *ends)


def _is_primary_key(source: DatabaseConnection, records: sa.FromClause) -> bool:
    """Return whether `id` is the primary key of a table, so that no id occurs twice; a view has none."""
    table: sa.TableClause = records.element  # type: ignore[attr-defined]
    keys = sa.inspect(source.connection).get_pk_constraint(table.name, table.schema)
    return keys["constrained_columns"] == ["id"]


class RecordTable(NamedTuple):
    """Contain recommendations by their ids.

    Attributes:
        first: The lowest id.
        positions: The row of each id from the first one on; null for an id without a recommendation.
        rows: The raw columns of the recommendations; lists, which repeat, as categories.
    """

    first: int
    positions: pl.Series
    rows: pl.DataFrame

    @classmethod
    def collect(cls, batches: Iterable[pl.DataFrame], query: RecordQuery) -> Self:
        """Collect the result of a query."""
        rows = pl.concat([_compact(batch) for batch in batches]).rechunk()
        positions = pl.Series("position", dtype=pl.Int32).extend_constant(None, query.last - query.first + 1)
        positions.scatter(
            rows["id"].cast(pl.Int64) - query.first, pl.int_range(rows.height, dtype=pl.Int32, eager=True)
        )
        return cls(query.first, positions, rows.drop("id"))

    def add_to(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with the recommendation of each row in place of its id; null where there is none."""
        id_ = pl.col(RAW_ITEM).cast(pl.Int64)
        is_known = id_.is_between(self.first, self.first + len(self.positions) - 1)
        positions = pl.lit(self.positions).gather(pl.when(is_known).then(id_ - self.first))
        records = frame.select(pl.lit(self.rows[name]).gather(positions).alias(name) for name in self.rows.columns)
        return frame.drop(RAW_ITEM).with_columns(records.with_columns(pl.col(pl.Categorical).cast(pl.String)))


def _compact(batch: pl.DataFrame) -> pl.DataFrame:
    """Return recommendations in memory of their own: a column of a batch keeps the memory of all of its columns."""
    items = pl.DataFrame(batch.select(RAW_ITEM).to_arrow(compat_level=pl.CompatLevel.oldest()))
    return batch.with_columns(pl.col(pl.String).exclude(RAW_ITEM).cast(pl.Categorical), *items)
