"""The kinds of columns that a schema of feedback declares: ratings, lists and the age."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.column_types import RawTypeName

AGE_EDGES = (18, 25, 35, 50)
"""The default ages at which a new age range begins."""

STEP_TOLERANCE = 1e-6
"""The part of a step by which a value may differ from a multiple of it: 0.1 is not an exact binary fraction."""

MAX_AGE = 130
"""The largest plausible age in years; the oldest documented person died at 122."""


class Label(NamedTuple):
    """A rating that a label is derived from.

    Attributes:
        rating: Column of the rating.
        least: Least value of the rating.
        greatest: Greatest value of the rating.
        threshold: Default threshold of the binary label; None requires one.
        step: Distance of valid values.
    """

    rating: str
    least: float
    greatest: float
    threshold: float | None
    step: float = 1

    @property
    def class_type(self) -> pl.DataType:
        """The dtype of ordinal classes."""
        return pl.Int8() if (self.greatest - self.least) / self.step < 2**7 else pl.Int32()


@dataclass(frozen=True, kw_only=True)
class Rating:
    """A rating: a number on a scale, or an answer of yes or no.

    Attributes:
        name: Name in the raw rows and in the export.
        type: "number", or "boolean", which has no scale.
        min: Minimum valid value.
        max: Maximum valid value.
        step: Distance of valid values, counted from `min`.
        label: Name of the label that is derived from the rating; the rating's own name by default.
        threshold: Default threshold of a binary label.
        description: Description in contracts and reports.
    """

    name: str
    type: Literal["number", "boolean"] = "number"
    min: float = 0
    max: float = 1
    step: float = 1
    label: str = ""
    threshold: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if self.type not in ("number", "boolean"):
            raise UsageError(f'The rating {self.name} must be of the type "number" or "boolean".')
        if not self.min < self.max:
            raise UsageError(f"The rating {self.name} needs a `min` below its `max`.")
        if not self.step > 0:
            raise UsageError(f"The rating {self.name} needs a `step` above 0.")
        if self.threshold is not None and not self.min < self.threshold <= self.max:
            raise UsageError(
                f"The `threshold` of the rating {self.name} must be above its `min` and at most its `max`."
            )

    @property
    def is_whole(self) -> bool:
        """Whether the rating has only whole numbers as values."""
        return all(float(number).is_integer() for number in (self.min, self.step))

    @property
    def is_whole_number(self) -> bool:
        """Whether every whole number of the scale is a value."""
        return self.is_whole and self.step == 1

    @property
    def step_reason(self) -> str:
        """The reason for rejecting a value between the steps."""
        return f"{self.name}_{'not_whole' if self.is_whole_number else 'not_on_step'}"

    @property
    def dtype(self) -> pl.DataType:
        """The dtype in a training set: Boolean, Int8 or Int64 for whole numbers, or Float64."""
        if self.type == "boolean":
            return pl.Boolean()
        if not self.is_whole:
            return pl.Float64()
        return pl.Int8() if self.min >= -(2**7) and self.max < 2**7 else pl.Int64()

    @property
    def label_source(self) -> Label:
        """The scale of labels of this rating."""
        is_boolean = self.type == "boolean"
        return Label(self.name, self.min, self.max, 1 if is_boolean else self.threshold, self.step)


@dataclass(frozen=True, kw_only=True)
class ListColumn:
    """A list of short texts, in the raw rows as a JSON array.

    Attributes:
        raw_name: Name in the raw rows.
        name: Name in the export.
        reason: Reason for rejecting a value that is not an array of texts.
        role: Role of the elements.
        is_joined: Whether elements are exported joined by commas, so that they may contain none. Otherwise the column
            is a list in Parquet and the text of a JSON array in CSV.
        description: Description in contracts and reports.
    """

    raw_name: str
    name: str
    reason: str
    role: Literal["quasi_identifier", "sensitive", "insensitive"] = "insensitive"
    is_joined: bool = False
    description: str = ""

    @property
    def dtype(self) -> pl.DataType:
        """The dtype in a training set."""
        return pl.String() if self.is_joined else pl.List(pl.String())


@dataclass(frozen=True, kw_only=True)
class AgeColumn:
    """The age of a person, exported as the range `age_range`.

    Attributes:
        edges: The ages at which a new range begins.
        raw_name: "age" in years, or "date_of_birth", from which the age at the time of the feedback is computed.
    """

    edges: tuple[int, ...] = AGE_EDGES
    raw_name: Literal["age", "date_of_birth"] = "age"

    def __post_init__(self) -> None:
        require_age_edges(self.edges)

    @property
    def raw_type(self) -> RawTypeName:
        """The name of the type of the raw column."""
        return "number" if self.raw_name == "age" else "date"


def find_narrow_ranges(edges: Sequence[int], years: int) -> list[str]:
    """Return the age ranges of fewer years.

    >>> find_narrow_ranges([18, 20, 30], 5)
    ['18-20']
    """
    return [f"{low}-{high}" for low, high in pairwise(edges) if high - low < years]


def require_age_edges(edges: Sequence[int], name: str = "age_edges") -> None:
    """Raise if these ages cannot begin age ranges; `name` is their name in messages.

    Raises:
        UsageError: The edges are not ascending whole numbers from 1 to 130.
    """
    edges = list(edges)
    whole = all(isinstance(edge, int) and not isinstance(edge, bool) and 1 <= edge <= MAX_AGE for edge in edges)
    if not edges or not whole or edges != sorted({*edges}):
        raise UsageError(f"{name} must be ascending whole numbers from 1 to {MAX_AGE}, for example 18, 25, 35, 50.")
