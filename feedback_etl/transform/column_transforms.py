"""Column transforms of whole frames, for frames of any kind: pseudonyms of ids, and ranges of ages."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.column_types import COLUMN_TYPES
from feedback_etl.schema.feedback_columns import AGE_EDGES
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, list_columns
from feedback_etl.transform.expressions import KeyLike, bucket_age, hash_id

Columns = str | Sequence[str] | pl.Expr
"""A name, several names, or a Polars selector."""


@accepts_any_dataframe
def hash_ids(
    frame: Frame,
    columns: Columns,
    *,
    key: KeyLike | str | None = None,
    domain: str | None = None,
    unkeyed: bool = False,
) -> Frame:
    """Replace ids by their pseudonyms, as `hash_id` computes them.

    Args:
        frame: Any frame.
        columns: The columns of ids: integers of any width, or text.
        key: The pseudonym key: a `Key` or its text.
        domain: The namespace of the ids, for columns with ids of the same things; by default the name of each column.
        unkeyed: Use plain SHA-256, which anyone who can list the ids can invert.

    Returns:
        The frame with text in these columns, null where an id is null; lazy if the frame is.

    Raises:
        UsageError: There is no such column, or it has floats or another type that is not an id; or `hash_id` refuses
            the other arguments.
        KeyUnusableError: The key cannot be used.

    >>> import pandas as pd
    >>> visits = pd.DataFrame({"user_id": [42, 7], "page": ["a", "b"]})
    >>> hash_ids(visits, "user_id", unkeyed=True)["user_id"].to_list()
    ['73475cb40a568e8d', '7902699be42c8a8e']
    """
    names, schema = list_columns(frame, columns), frame.collect_schema()
    identifier = COLUMN_TYPES["identifier"]
    if wrong := [name for name in names if schema[name] != pl.Null and not identifier.accepts(schema[name])]:
        position = names.index(wrong[0]) + 1
        raise UsageError(f"Column {position} of {len(names)} is {schema[wrong[0]]}, expected {identifier.expected}.")
    hashed: Frame = frame.with_columns(hash_id(name, key=key, domain=domain, unkeyed=unkeyed) for name in names)
    return hashed


@accepts_any_dataframe
def bucket_ages(
    frame: Frame, columns: Columns = "age", *, edges: Sequence[int] = AGE_EDGES, plausible_only: bool = False
) -> Frame:
    """Replace ages in years by their ranges, as `bucket_age` does.

    Args:
        frame: Any frame.
        columns: The columns of ages, of any numeric dtype.
        edges: The ages at which a new range begins.
        plausible_only: Return null for ages below 0 or above 130 too, as exports do.

    Returns:
        The frame with ordered categories in these columns, null where an age is null; lazy if the frame is.

    Raises:
        UsageError: There is no such column, it has no numbers, or the edges are not ascending whole numbers.

    >>> import pandas as pd
    >>> bucket_ages(pd.DataFrame({"age": [17, 25]}))["age"].to_list()
    ['<18', '25-35']
    """
    names, schema = list_columns(frame, columns), frame.collect_schema()
    if wrong := [name for name in names if schema[name] != pl.Null and not schema[name].is_numeric()]:
        position = names.index(wrong[0]) + 1
        raise UsageError(f"Column {position} of {len(names)} is {schema[wrong[0]]}, expected numbers.")
    ranges: Frame = frame.with_columns(bucket_age(name, edges=edges, plausible_only=plausible_only) for name in names)
    return ranges


def with_age_ranges(table: pl.DataFrame, ranges: pl.Enum) -> pl.DataFrame:
    """Return a frame with age_range as an Enum, if it is text or categories that are all labels of these ranges."""
    if table.schema.get("age_range", ranges) not in (pl.String, pl.Categorical):
        return table
    labels = table["age_range"].cast(pl.String)
    return table.with_columns(labels.cast(ranges)) if labels.is_in([*ranges.categories]).all() else table
