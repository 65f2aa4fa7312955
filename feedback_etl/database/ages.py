"""Read the age of each person once, instead of joining the profiles to every row (PostgreSQL).

The join needs the lowest profile of each person, and makes the rows to sort wider: it is about a fifth of the server's
work for a large window. The ages of five million people take 20 MB here.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import polars as pl
import sqlalchemy as sa

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.ranges import estimate_rows
from feedback_etl.database.relation import SourceRelation
from feedback_etl.database.sql import select_ages
from feedback_etl.database.statements import fetch_rows
from feedback_etl.database.window import Window

MIN_ROWS = 100_000
"""Rows of a window from which on all ages are read; for fewer rows, the database finds those of their people."""

MAX_IDS = 5_000_000
"""Most ids from the lowest to the highest one, both included, whose ages are kept in memory."""


class AgeQuery(NamedTuple):
    """Describe the ages to read.

    Attributes:
        sql: Statement that yields user_id and age, once for each person with a profile.
        first: The lowest user_id with a profile.
        last: The highest one.
    """

    sql: str
    first: int
    last: int


def plan_ages(source: DatabaseConnection, relation: SourceRelation, window: Window) -> AgeQuery | None:
    """Return the ages to read for a window; None if the database is to join them.

    They are read if the tables are the default ones, user ids are integers, and the range of ids is not larger than the
    number of rows that the planner expects in the window.
    """
    profiles = relation.profiles
    if source.dialect != "postgresql" or profiles is None:
        return None
    rows = estimate_rows(source, relation, window)
    if rows < MIN_ROWS:
        return None
    first, last = sa.func.min(profiles.c.user_id), sa.func.max(profiles.c.user_id)
    (ends,) = fetch_rows(source, relation.render(sa.select(first, last)))
    if not all(isinstance(end, int) for end in ends) or ends[1] - ends[0] >= min(MAX_IDS, rows):
        return None
    return AgeQuery(select_ages(relation), *ends)


class AgeTable(NamedTuple):
    """Contain the ages of all ids from a first one on; null for an id without a profile.

    Attributes:
        first: The id of the first age.
        ages: One age for each id.
    """

    first: int
    ages: pl.Series

    @classmethod
    def collect(cls, batches: Iterable[pl.DataFrame], query: AgeQuery) -> Self:
        """Collect the result of a query: frames with the columns user_id and age."""
        size = query.last - query.first + 1
        ages = pl.Series("age", dtype=pl.Null).extend_constant(None, size)
        for batch in batches:
            if ages.dtype == pl.Null:
                ages = ages.cast(batch["age"].dtype)
            ages.scatter(batch["user_id"].cast(pl.Int64) - query.first, batch["age"])
        return cls(query.first, ages)

    def add_to(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with the age of each row's person; null where there is none."""
        user_id = pl.col("user_id").cast(pl.Int64)
        has_age = user_id.is_between(self.first, self.first + len(self.ages) - 1)
        return frame.with_columns(age=pl.lit(self.ages).gather(pl.when(has_age).then(user_id - self.first)))
