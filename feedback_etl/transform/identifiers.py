"""Expressions that find ids in text, such as the path of an image."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.transform.expressions import to_expr

_SEPARATE_WORDS = {
    r"%3(\d)": "$1",  # a percent-encoded digit
    r"[^\p{L}\p{N}]+": "/",
    r"(\p{L})(\p{N})": "$1/$2",
    r"(\p{N})(\p{L})": "$1/$2",
    r"(^|/)0+(\p{N})": "$1$2",
}
_LONG_ID = 16
"""Length in characters from which an id is assumed to appear in a text only on purpose."""


def contains_id(column: str | pl.Expr, *, ids: Sequence[str]) -> pl.Expr:
    """Return whether a text contains one of the row's ids: as a separate word or number, or anywhere if it is long.

    Case, separators (including those of UUIDs) and leading zeros are ignored, and percent-encoded digits are decoded;
    an id in another encoding is not found. The result is null where the text is null; an id that is null or empty is
    never found.

    >>> frame = pl.DataFrame({"s3_key": ["photos/User_42/a.jpg", "photos/142.jpg"], "user_id": [42, 42]})
    >>> frame.select(contains_id("s3_key", ids=["user_id"])).to_series().to_list()
    [True, False]
    """
    is_word = [bounded(column).str.contains(bounded(name), literal=True) for name in ids]
    is_substring = [unbroken(column).str.contains(unbroken(name), literal=True).fill_null(value=False) for name in ids]
    return pl.any_horizontal(*is_word, *is_substring)


def bounded(column: str | pl.Expr) -> pl.Expr:
    """Return the words and numbers of a text or an id in lower case, delimited by slashes; null if there are none.

    >>> pl.select(bounded(pl.lit("photos/User42.jpg"))).item()
    '/photos/user/42/jpg/'
    """
    words = to_expr(column).cast(pl.String).str.to_lowercase()
    for pattern, replacement in _SEPARATE_WORDS.items():
        words = words.str.replace_all(pattern, replacement)
    return pl.lit("/") + words.str.strip_chars("/").replace("", None) + pl.lit("/")


def unbroken(column: str | pl.Expr) -> pl.Expr:
    """Return only the letters and digits of a text or an id, in lower case; null for a short one.

    >>> pl.select(unbroken(pl.lit("0B9F7C1E-0d3c-4a52-8f5e-6f1b9d6e7a11"))).item()
    '0b9f7c1e0d3c4a528f5e6f1b9d6e7a11'
    """
    text = to_expr(column).cast(pl.String).str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", "")
    return pl.when(text.str.len_chars() >= _LONG_ID).then(text)
