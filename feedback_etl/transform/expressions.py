"""Column expressions.

Each function takes a column name or an expression first and options by keyword, and returns a `pl.Expr`. Nulls stay
null. The functions read no file, no environment variable and no clock.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import polars as pl
import polars.selectors as cs
import polars_hash as plh  # noqa: F401  registers the `chash` namespace

from feedback_etl.errors import KeyUnusableError, UsageError
from feedback_etl.schema.feedback_columns import AGE_EDGES, MAX_AGE, require_age_edges
from feedback_etl.transform.key_strength import MIN_KEY_BITS, estimate_key_bits
from feedback_etl.transform.keyed_digest import hmac_sha256

PSEUDONYM_LENGTH = 16
"""Hex characters of a digest that are kept: 64 bits, so a million ids contain a collision with probability 3e-8."""

PSEUDONYM_LENGTHS = (PSEUDONYM_LENGTH, 32)
"""The lengths of pseudonyms to choose from: 32 for 100 million ids or more."""

MIN_KEY_BYTES = 32
"""The output size of SHA-256: RFC 2104 section 3 discourages shorter HMAC keys."""

ISO_FORMAT = "%Y-%m-%dT%H:%M:%S%.f"
"""The Polars format that parses the result of `iso_timestamp`, with and without a fraction."""

AGE_RANGE = pl.Enum(["<18", "18-25", "25-35", "35-50", "50+"])


def to_expr(column: str | pl.Expr) -> pl.Expr:
    """Return the expression of a column name; return an expression unchanged."""
    return pl.col(column) if isinstance(column, str) else column


class KeyLike(Protocol):
    """An object with the text of a key, such as `privacy.keys.Key`."""

    @property
    def text(self) -> str:
        """The key."""

    @property
    def pseudonym_length(self) -> int:
        """The hex characters of its pseudonyms."""


def hash_id(
    column: str | pl.Expr, *, key: KeyLike | str | None = None, domain: str | None = None, unkeyed: bool = False
) -> pl.Expr:
    """Pseudonymise an id: the first 16 hex characters of a digest.

    Keyed: HMAC-SHA256(key, domain + ":" + id as text), RFC 2104. Unkeyed, only on request: SHA-256(id as text),
    which anyone who can list the possible ids can invert in seconds.

    Ids are integers of any width or text. A float is not an id (42.0 is not 42): Polars raises ComputeError when the
    expression is evaluated for such a column. Null stays null. For several columns use `hash_ids`, which gives each its
    own domain.

    A keyed expression, and a lazy frame with one, cannot be serialised (pickle, `serialize`), since that would store
    the key: Polars raises ComputeError or RuntimeError. Collect the frame first.

    Args:
        column: Name or expression of the ids.
        key: The pseudonym key: a `Key`, or its text of at least 32 bytes in UTF-8, surrounding white space stripped.
        domain: The namespace of the ids: equal ids in two domains get different pseudonyms. The name of the column by
            default.
        unkeyed: Use the plain SHA-256 form.

    Returns:
        A String expression: 16 lower-case hex characters, or as many as `Key.pseudonym_length` says.

    Raises:
        UsageError: Neither `key` nor `unkeyed=True`, or both; or the expression is of several columns.
        KeyUnusableError: The key is bytes or not UTF-8 text of at least 32 bytes, or can be guessed
            (`estimate_key_bits`).

    >>> pl.select(hash_id(pl.lit(42), unkeyed=True)).item()
    '73475cb40a568e8d'
    >>> pl.select(hash_id(pl.lit(42), key="daa0871acd4ebc9edb39ffe5bb8b89c8", domain="analysis_id")).item()
    '5cca56cd36b3f074'
    """
    if (key is None) is not unkeyed:
        raise UsageError("hash_id needs either key=... or unkeyed=True.")
    ids = to_expr(column)
    if ids.meta.has_multiple_outputs():
        raise UsageError("hash_id takes one column; pass several, or a selector, to hash_ids(frame, columns, ...).")
    text = ids.cast(pl.String)
    if key is None:
        digest = text.chash.sha2_256()  # type: ignore[attr-defined]
    else:
        prefixed = pl.lit(f"{domain or ids.meta.output_name()}:") + text
        digest = hmac_sha256(prefixed, _require_usable_key(key) if isinstance(key, str | bytes) else key.text)
    length = PSEUDONYM_LENGTH if key is None or isinstance(key, str) else key.pseudonym_length
    pseudonym: pl.Expr = digest.str.slice(_zero_unless_float(ids), length)
    return pseudonym.alias(ids.meta.output_name())


def _zero_unless_float(ids: pl.Expr) -> pl.Expr:
    """Return 0 once; for floats, an expression that fails when it is evaluated, and says why."""
    is_float = pl.dtype_of(ids).matches(cs.float())
    reason = pl.lit("ids must be integers or text, not floats (pandas: use the dtype Int64)")
    return pl.when(is_float).then(reason).otherwise(pl.lit("0")).str.to_integer()


def require_pseudonym_length(length: int) -> None:
    """Raise UsageError if pseudonyms cannot have this length."""
    if length not in PSEUDONYM_LENGTHS:
        raise UsageError(f"`pseudonym_length` must be one of {', '.join(map(str, PSEUDONYM_LENGTHS))}.")


def _require_usable_key(key: str | bytes) -> str:
    """Return the text of a key without surrounding white space; raise KeyUnusableError if it is not usable."""
    if isinstance(key, bytes):
        raise KeyUnusableError("The key is bytes, but must be text: decode it, with key.decode().")
    key = key.strip()
    encoded = key.encode(errors="ignore")
    if encoded.decode() != key:  # checked here, since an encoder's error would contain the key
        raise KeyUnusableError("The key is not UTF-8 text; `feedback-etl keys new --file FILE` creates one.")
    if len(encoded) < MIN_KEY_BYTES:
        raise KeyUnusableError(
            f"The key has fewer than {MIN_KEY_BYTES} bytes; `feedback-etl keys new --file FILE` creates one."
        )
    if estimate_key_bits(key) < MIN_KEY_BITS:
        raise KeyUnusableError("The key can be guessed; `feedback-etl keys new --file FILE` creates one that cannot.")
    return key


def age_ranges(edges: Sequence[int] = AGE_EDGES) -> pl.Enum:
    """Return the dtype of age ranges: a Polars Enum with a label for each range, in ascending order.

    Args:
        edges: The ages at which a new range begins, ascending.

    Raises:
        UsageError: The edges are not ascending whole numbers from 1 to 130.

    >>> age_ranges([18, 65]).categories.to_list()
    ['<18', '18-65', '65+']
    """
    require_age_edges(edges)
    between = [f"{low}-{high}" for low, high in pairwise(edges)]
    return pl.Enum([f"<{edges[0]}", *between, f"{edges[-1]}+"])


def bucket_age(column: str | pl.Expr, *, edges: Sequence[int] = AGE_EDGES, plausible_only: bool = False) -> pl.Expr:
    """Convert an age in years to its range: `<18`, `18-25`, `25-35`, `35-50` or `50+`.

    Ranges are half-open: 25 is in `25-35`. Ages below 18 become `<18` and ages of 50 and above `50+`, as in the
    classic API; null and NaN become null.

    Args:
        column: Name or expression of ages, any numeric dtype.
        edges: The ages at which a new range begins.
        plausible_only: Return null for ages below 0 or above 130 too, as exports do.

    Returns:
        An expression of the dtype `age_ranges(edges)`, a Polars Enum in ascending order.

    Raises:
        UsageError: The edges are not ascending whole numbers.

    >>> pl.DataFrame({"age": [17, 25, 50, 131, None]}).select(bucket_age("age")).to_series().to_list()
    ['<18', '25-35', '50+', '50+', None]
    """
    age = to_expr(column)
    ranges = age_ranges(edges)
    edges_passed = pl.sum_horizontal([age >= edge for edge in edges])
    is_age = age.is_between(0, MAX_AGE) if plausible_only else age.cast(pl.Float64).is_not_nan()  # null for null
    return pl.when(is_age).then(edges_passed).cast(pl.UInt8).cat.to(ranges).alias(age.meta.output_name())


def iso_timestamp(column: str | pl.Expr) -> pl.Expr:
    """Format a time as `datetime.isoformat()` does: no fraction when it is zero, else six digits.

    Args:
        column: Name or expression of times: Datetime of any unit (truncated to microseconds), naive UTC or with a time
            zone.

    Returns:
        A String expression without offset, in UTC.

    >>> from datetime import datetime
    >>> pl.select(iso_timestamp(pl.lit(datetime(2025, 10, 25, 10)))).item()
    '2025-10-25T10:00:00'
    """
    utc = to_expr(column).dt.cast_time_unit("us").dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return utc.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f").str.strip_suffix(".000000")


def pair_hash(
    analysis_hash: str | pl.Expr = "analysis_hash",
    recommendation_id: str | pl.Expr = "recommendation_id",
    feedback_timestamp: str | pl.Expr = "feedback_timestamp",
) -> pl.Expr:
    """Hash the columns that identify a feedback: SHA-256 of `analysis_hash|recommendation_id|feedback_timestamp`.

    The result is null if one of the three is null.

    Args:
        analysis_hash: Name or expression of the pseudonyms.
        recommendation_id: Name or expression of the recommendations.
        feedback_timestamp: Name of the times, or of their text as `iso_timestamp` returns it; or an expression of text.

    Returns:
        A String expression of 64 lower-case hex characters named `pair_hash`.

    >>> pl.select(pair_hash(pl.lit("a"), pl.lit("b"), pl.lit("c"))).item()[:16]
    'a52dd81bfd5e4e66'
    """
    times = [to_expr(feedback_timestamp)]
    if isinstance(feedback_timestamp, str):  # one selector is empty: times are formatted, text is used unchanged
        named = cs.by_name(feedback_timestamp)
        times = [iso_timestamp(named & cs.datetime()), named - cs.datetime()]
    joined = pl.concat_str([to_expr(analysis_hash), to_expr(recommendation_id), *times], separator="|")
    digest: pl.Expr = joined.chash.sha2_256()  # type: ignore[attr-defined]
    return digest.alias("pair_hash")
