"""Deterministic splits into training, validation and test rows."""

import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import accumulate, pairwise
from math import ceil
from numbers import Real

import polars as pl
import polars_hash as plh  # noqa: F401  registers the `chash` namespace

from feedback_etl.errors import UsageError
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.transform.dataframes import Frame, accepts_any_dataframe, require_columns

_NOT_PER_PERSON = {"analysis_hash": "analyses", "recommendation_id": "recommendations"}
"""Columns of which a person can have several values, with the plural for messages."""

_PREFIX = "digest prefix"
_DIGITS = 15
"""Hex digits of a digest that are compared: 60 bits, so that shares are exact to one part in 10^18."""

_END = "g"
"""Greater than every digest, whose digits are at most "f"."""


class PersonOverlapWarning(UserWarning):
    """Warn that the same person can be in several parts of a split."""


class NullGroupWarning(UserWarning):
    """Warn that all rows without a value to split by are in one part."""


@accepts_any_dataframe
def split_by_hash(frame: Frame, shares: Mapping[str, float], *, by: str, seed: int = 0) -> dict[str, Frame]:
    """Split a frame into parts, with all rows of equal `by` in the same part.

    The part of a value depends on the value, the shares, their order and the seed alone: SHA-256 of "seed|value", as a
    fraction of its range, is compared with the cumulative shares from the last part to the second; the first part gets
    the remainder. The names of the parts do not matter. A split is therefore the same on every machine, and later rows
    do not move earlier ones. Shares are met up to chance: for 100,000 values within one percentage point.

    Put the part that is to be carved up first and the test part last. A new part belongs directly after the first:
    {"train": 0.9, "test": 0.1} can become {"fit": 0.8, "val": 0.1, "test": 0.1}, and the same people stay in test.

    Null is a value of its own: all rows without a value are in one part, which becomes too large if they are many.
    `NullGroupWarning` reports their number; it is unknown for a lazy frame, which is not collected.

    Split by person (`subject_hash`) if the frame has that column. By `analysis_hash` or `recommendation_id` a person
    can be in several parts, since people have several analyses and share recommendations, and the test score of a model
    is too optimistic. The same happens by `subject_hash` if the rows are from exports of two keys
    (`scan_training(..., mixed=True)`), where a person has two pseudonyms.

    Args:
        frame: Any frame.
        shares: Share of each part by its name, greater than 0, in the order described above; their sum is 1 up to
            rounding (1e-9).
        by: Column whose equal values stay together: text, integers or categories.
        seed: Integer; another one gives another split.

    Returns:
        The parts by name, frames of the given kind, with the rows in their order.

    Raises:
        UsageError: The shares are not positive numbers with the sum 1, `by` cannot be split by, or the seed is not an
            int.

    >>> pairs = pl.DataFrame({"person": ["e", "a", "b", "e", "c"]})
    >>> parts = split_by_hash(pairs, {"train": 0.5, "test": 0.5}, by="person")
    >>> parts["train"]["person"].to_list(), parts["test"]["person"].to_list()
    (['e', 'e'], ['a', 'b', 'c'])
    """
    bounds = _digest_bounds(shares)
    _require_exact(frame, by, seed)
    for warning in list_warnings(frame, by):
        warnings.warn(warning, stacklevel=3)
    hashed = frame.with_columns(_digest_prefix(by, f"{seed}").alias(_PREFIX))
    parts = {name: pl.col(_PREFIX).is_between(*bounds[name], closed="left") for name in shares}
    return {name: hashed.filter(is_in_part).drop(_PREFIX) for name, is_in_part in parts.items()}


@accepts_any_dataframe
def k_folds(frame: Frame, folds: int = 5, *, by: str, seed: int = 0, name: str = "fold") -> Frame:
    """Add the number of a fold to each row, from 0, with all rows of equal `by` in the same fold.

    As for `split_by_hash`, a fold depends on the value, the number of folds and the seed alone. Folds are independent
    of a split with the same seed: the training rows of `split_by_hash` have all folds.

    Args:
        frame: Any frame.
        folds: Number of folds, 2 to 100.
        by: Column whose equal values stay together: text, integers or categories. Null is a value of its own.
        seed: Integer; another one gives other folds.
        name: Name of the column; a column of this name is replaced.

    Returns:
        The frame with an additional Int8 column without nulls, lazy if the frame is.

    Raises:
        UsageError: The number of folds is not an integer from 2 to 100, `by` cannot be split by, the seed is not an
            int, or the name is not text.

    >>> pairs = pl.DataFrame({"person": ["e", "a", "b", "e", "c"]})
    >>> k_folds(pairs, 3, by="person")["fold"].to_list()
    [2, 1, 0, 2, 2]
    """
    if not isinstance(folds, int) or isinstance(folds, bool) or not 2 <= folds <= 100:
        raise UsageError("`folds` must be an integer from 2 to 100.")
    if not isinstance(name, str):
        raise UsageError("`name` must be text.")
    _require_exact(frame, by, seed)
    for warning in list_warnings(frame, by):
        warnings.warn(warning, stacklevel=3)
    digest = _digest_prefix(by, f"fold {seed}").str.to_integer(base=16)
    width = -(-(16**_DIGITS) // folds)
    numbered: Frame = frame.with_columns((digest // width).cast(pl.Int8).alias(name))
    return numbered


def _digest_bounds(shares: Mapping[str, float]) -> dict[str, tuple[pl.Expr, pl.Expr]]:
    """Return the half-open range of digests of each part, in hex digits; equal lengths order text as numbers."""
    if not isinstance(shares, Mapping) or not all(
        isinstance(name, str) and isinstance(share, Real) for name, share in shares.items()
    ):
        raise UsageError('`shares` must map names to numbers, such as {"train": 0.8, "test": 0.2}.')
    if not shares or not all(share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise UsageError(f"`shares` must be greater than 0 and have the sum 1; their sum is {sum(shares.values()):g}.")
    names = [*shares]
    cumulative = accumulate(Fraction(float(shares[name])) for name in reversed(names[1:]))  # exact for any first one
    ends = map(pl.lit, ["", *map(_format_hex, cumulative), _END])
    return dict(zip(reversed(names), pairwise(ends), strict=True))


def _format_hex(end: Fraction) -> str:
    """Return the first digest that is not below a fraction of the range."""
    first = ceil(end * 16**_DIGITS)
    return f"{first:0{_DIGITS}x}" if first < 16**_DIGITS else _END


def _require_exact(frame: pl.DataFrame | pl.LazyFrame, by: str, seed: int) -> None:
    """Refuse columns whose equal values can have different text on another machine, and seeds that can."""
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UsageError("`seed` must be an integer.")
    require_group(frame, by)
    dtype = frame.collect_schema()[by]
    if not (dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise UsageError(
            f"{by} is {dtype}, but must be integers, text or categories: floats are not exact (pandas: use the "
            "dtype Int64)."
        )


def require_group(frame: pl.DataFrame | pl.LazyFrame, by: str) -> None:
    """Raise if a frame has no such column to split by.

    Raises:
        UsageError: It has not; the message says how an export gets the column of people.
    """
    if not isinstance(by, str):
        raise UsageError('`by` must be the name of one column, such as by="subject_hash".')
    is_person = by == SUBJECT_HASH.name
    option = " Exports with --include-subject-hash (include_subject_hash=True) contain it." if is_person else ""
    require_columns(frame, [by], option)


def list_warnings(frame: pl.DataFrame | pl.LazyFrame, by: str) -> Iterator[Warning]:
    """List warnings about splits that the caller may not have meant."""
    if by in _NOT_PER_PERSON:
        yield PersonOverlapWarning(
            f"Split by {by}: a person with several {_NOT_PER_PERSON[by]} can be in several parts. Split by "
            "subject_hash, which exports with --include-subject-hash contain."
        )
    if isinstance(frame, pl.DataFrame) and (nulls := frame[by].null_count()):
        note = " as if they were of one person" if by == SUBJECT_HASH.name else ""
        yield NullGroupWarning(
            f"{nulls:,} of {frame.height:,} rows have no {by}: they are all in one part{note}. Filter them "
            "out first if that is not intended."
        )


def _digest_prefix(by: str, seed: str) -> pl.Expr:
    value = pl.concat_str(pl.lit(f"{seed}|"), pl.col(by).cast(pl.String))
    text = pl.coalesce(value, pl.lit(seed))  # null: no value gives a text without the bar
    digits: pl.Expr = text.chash.sha2_256().str.slice(0, _DIGITS)  # type: ignore[attr-defined]
    return digits
