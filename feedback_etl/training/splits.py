"""Splits into training, validation and test rows that stay the same wherever and whenever they are made."""

import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import accumulate, pairwise
from math import ceil
from numbers import Real

import polars as pl
import polars_hash as plh  # noqa: F401  registers the `chash` namespace

from feedback_etl.errors import UsageError
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, require_columns

_SHARED = {"analysis_hash": "analyses", "recommendation_id": "recommendations"}
"""What keeps no person together, and what a person has several of."""

_MARK = "digits that decide"
_DIGITS = 15
"""Hex digits of a digest that decide: 60 bits, so that a share is met to one part in 10^18."""

_BEYOND = "g"
"""Greater than every digest, whose digits are at most "f"."""


class PersonOverlapWarning(UserWarning):
    """A split may have the same person in several of its parts."""


class NullGroupWarning(UserWarning):
    """A split keeps all rows together that have no value to split by."""


@accepts_any_dataframe
def split_by_hash(frame: Frame, shares: Mapping[str, float], *, by: str, seed: int = 0) -> dict[str, Frame]:
    """Split a frame into parts, all rows with the same value of `by` in the same one.

    Which part a value goes to follows from the value, the shares and the seed alone: SHA-256 of "seed|value" as a
    fraction of its range, against the shares one after the other, by the names of their parts: in which order the
    mapping has them does not matter. So a split is the same on every machine and in every version, and rows that come
    later do not move those that were there. Shares are met as closely as chance allows: at 100,000
    values within a percentage point (the tests hold half of one).

    Null is a value like any other: all rows without one are in the same part, which gets too large if they are many.
    `NullGroupWarning` tells their number; a lazy frame, which is not run, does not know it.

    Split by person (`subject_hash`) where the frame tells it. By `analysis_hash` or `recommendation_id` the same person
    can be in two parts, since people have several analyses and share recommendations; a model then may know the people
    that it is tested on, and looks better than it is. So it is by `subject_hash` too if the rows are of exports of two
    keys (`scan_training(..., mixed=True)`): these hold the same person under two pseudonyms.

    Args:
        frame: Any frame.
        shares: The share of each part, by its name; together 1, but for rounding (1e-9).
        by: The column whose equal values stay together: text, integers or categories.
        seed: Another whole number gives another split.

    Returns:
        The parts by their names, frames of the kind that was given, with the rows in their order.

    Raises:
        UsageError: The shares are not positive numbers that make 1, `by` is not a column that can be split by, or the
            seed is no int.

    >>> pairs = pl.DataFrame({"person": ["e", "a", "b", "e", "c"]})
    >>> parts = split_by_hash(pairs, {"train": 0.5, "test": 0.5}, by="person")
    >>> parts["train"]["person"].to_list(), parts["test"]["person"].to_list()
    (['e', 'e'], ['a', 'b', 'c'])
    """
    bounds = _bounds(shares)
    _require_exact(frame, by)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UsageError("The seed is a whole number (an int).")
    for warning in _doubts(frame, by):
        warnings.warn(warning, stacklevel=3)
    marked = frame.with_columns(_digits(by, seed).alias(_MARK))
    parts = {name: pl.col(_MARK).is_between(*bounds[name], closed="left") for name in shares}
    return {name: marked.filter(is_in_part).drop(_MARK) for name, is_in_part in parts.items()}


def _bounds(shares: Mapping[str, float]) -> dict[str, tuple[pl.Expr, pl.Expr]]:
    """For each part its digests, half-open, in hex digits; text of one length has the order of its numbers."""
    if not isinstance(shares, Mapping) or not all(
        isinstance(name, str) and isinstance(share, Real) for name, share in shares.items()
    ):
        raise UsageError('The shares are a mapping of names to numbers, such as {"train": 0.8, "test": 0.2}.')
    if not shares or not all(share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise UsageError(f"The shares must be greater than 0 and make 1 together; they make {sum(shares.values()):g}.")
    names = sorted(shares)
    reached = list(accumulate(Fraction(float(shares[name])) for name in names))  # exact, whatever the order
    inner = [_hex(end / reached[-1]) for end in reached[:-1]]
    ends = map(pl.lit, ["", *inner, _BEYOND])
    return dict(zip(names, pairwise(ends), strict=True))


def _hex(end: Fraction) -> str:
    """The first digest that does not lie below a fraction of their range."""
    first = ceil(end * 16**_DIGITS)
    return f"{first:0{_DIGITS}x}" if first < 16**_DIGITS else _BEYOND


def _require_exact(frame: pl.DataFrame | pl.LazyFrame, by: str) -> None:
    """Make sure that equal values have equal text, on every machine."""
    if not isinstance(by, str):
        raise UsageError('A split is by one column, given by its name, such as by="subject_hash".')
    require_columns(frame, [by])
    dtype = frame.collect_schema()[by]
    if not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise UsageError(
            f"{by} is {dtype}; a split is by integers, text or categories (floats are not exact; pandas: the dtype "
            "Int64)."
        )


def _doubts(frame: pl.DataFrame | pl.LazyFrame, by: str) -> Iterator[Warning]:
    """What the caller may not have meant."""
    if by in _SHARED:
        yield PersonOverlapWarning(
            f"Split by {by}: a person with several {_SHARED[by]} can be in several parts. Split by subject_hash, "
            "which exports hold if they are asked for it."
        )
    if isinstance(frame, pl.DataFrame) and (nulls := frame[by].null_count()):
        whose = " as if they were of one person" if by == "subject_hash" else ""
        yield NullGroupWarning(
            f"{nulls:,} of {frame.height:,} rows have no {by}: they are in one part together{whose}. Leave them "
            "out before if that is not meant."
        )


def _digits(by: str, seed: int) -> pl.Expr:
    value = pl.concat_str(pl.lit(f"{seed}|"), pl.col(by).cast(pl.String))
    text = pl.coalesce(value, pl.lit(str(seed)))  # null: no value gives a text without the stroke
    digits: pl.Expr = text.chash.sha2_256().str.slice(0, _DIGITS)  # type: ignore[attr-defined]
    return digits
