"""Functions of an application that replace built-in expressions.

In the classic API a subclass can override how ids are hashed, ages bucketed and duplicates recognised. Such a function
is called once for each distinct value of a batch, and its results are joined to the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from feedback_etl.errors import ValidationError
from feedback_etl.transform.dataframes import replace_nan
from feedback_etl.transform.pairs import FeedbackTrainingPair


@dataclass(frozen=True)
class Overrides:
    """Functions that replace expressions; None selects the built-in expression.

    Attributes:
        hash_id: Takes an analysis id, an int or a str; returns its pseudonym.
        bucket_age: Takes an age or None; returns the label of its range or None.
        pair_hash: Takes a `FeedbackTrainingPair`; returns a str that is equal for the same feedback.
    """

    hash_id: Callable[[Any], str] | None = None
    bucket_age: Callable[[Any], str | None] | None = None
    pair_hash: Callable[[FeedbackTrainingPair], str] | None = None

    def names(self) -> dict[str, str]:
        """Map the name of each overridden expression to the full name of its function, as manifests record them."""
        functions = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _get_full_name(function) for name, function in functions.items() if function is not None}

    def apply(self, pairs: pl.DataFrame, raw: pl.DataFrame) -> pl.DataFrame:
        """Replace the columns of training pairs that are overridden.

        Args:
            pairs: The result of `anonymize`.
            raw: The raw rows of the pairs, in the same order.

        Raises:
            ValidationError: A function raised an error, or returned a value of a wrong type.
        """
        columns = []
        if self.hash_id is not None:
            columns.append(self.pseudonyms(raw["analysis_id"]))
        if self.bucket_age is not None:
            labels = _map_distinct("_bucket_age", self.bucket_age, replace_nan(raw["age"]), (str, type(None)))
            columns.append(labels.replace("", None).alias("age_range"))
        return pairs.with_columns(columns) if columns else pairs

    def pseudonyms(self, ids: pl.Series) -> pl.Series:
        """Return the pseudonyms of ids by the application's function; null stays null."""
        assert self.hash_id is not None  # noqa: S101  callers verify it
        return _map_distinct("_hash_id", self.hash_id, ids, (str,)).alias("analysis_hash")


def _get_full_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"


def _map_distinct(name: str, function: Callable[[Any], Any], values: pl.Series, types: tuple[type, ...]) -> pl.Series:
    """Map a function over the distinct values of a column; it is called for null only if it may return None."""
    distinct = values.unique(maintain_order=True)
    takes_null = type(None) in types
    results = [call(name, function, value, types) if value is not None or takes_null else None for value in distinct]
    mapping = pl.DataFrame({"value": distinct, "result": pl.Series(results, dtype=pl.String)})
    rows = values.to_frame("value")
    return rows.join(mapping, on="value", how="left", nulls_equal=True, maintain_order="left")["result"]


def call(name: str, function: Callable[[Any], Any], value: object, types: tuple[type, ...]) -> Any:
    """Call an application's function with a value, and return its result, which must have one of these types.

    Raises:
        ValidationError: The function raised an error, or its result has another type; the message contains no value.
    """
    try:
        result = function(value)
        if isinstance(result, str):
            result.encode()  # raises for lone surrogates
    except Exception as error:
        problem = f"raised {type(error).__name__}{_describe_position(error)}"
    else:
        if isinstance(result, types):
            return result
        expected = " or ".join("None" if choice is type(None) else choice.__name__ for choice in types)
        problem = f"returned {type(result).__name__} instead of {expected}"
    # Raised outside the `except` block, so that it is not chained to an error whose text may contain a value.
    raise ValidationError(f"{name} is overridden, and {problem}; nothing was exported. Correct that method.")


def _describe_position(error: Exception) -> str:
    """Return the file and line of the application's function that raised an error."""
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""
