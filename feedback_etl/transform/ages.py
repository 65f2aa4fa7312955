"""The age of a person at the time of the feedback."""

import polars as pl

from feedback_etl.schema.feedback_columns import AgeColumn


def age_at_feedback(age: AgeColumn) -> pl.Expr:
    """Return the age in years: the raw age, or the full years between the date of birth and `created_at` (UTC).

    Null where the date or the time is. Who was born on 29 February has their birthday on 1 March of other years.

    >>> from datetime import date, datetime
    >>> rows = {"date_of_birth": [date(2000, 3, 1)] * 2, "created_at": [datetime(2025, 2, 28), datetime(2025, 3, 1)]}
    >>> pl.DataFrame(rows).select(age_at_feedback(AgeColumn(raw_name="date_of_birth"))).to_series().to_list()
    [24, 25]
    """
    if age.raw_name == "age":
        return pl.col("age")
    born, given = pl.col("date_of_birth"), pl.col("created_at").cast(pl.Datetime("us"))
    day_given, day_born = (time.dt.month().cast(pl.Int32) * 100 + time.dt.day() for time in (given, born))
    return (given.dt.year() - born.dt.year() - (day_given < day_born).cast(pl.Int32)).alias(age.raw_name)
