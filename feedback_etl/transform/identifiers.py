"""Expressions that find ids in texts, such as the path of an image."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.transform.expressions import to_expr

_PARTED = {
    r"%3(\d)": "$1",  # a digit in a URL
    r"[^\p{L}\p{N}]+": "/",
    r"(\p{L})(\p{N})": "$1/$2",
    r"(\p{N})(\p{L})": "$1/$2",
    r"(^|/)0+(\p{N})": "$1$2",
}
_LONG_ID = 16
"""The length from which an id appears in no text by chance."""


def contains_id(column: str | pl.Expr, *, ids: Sequence[str]) -> pl.Expr:
    """Return whether a text contains one of the row's ids: as a separate word or number, or a long one anywhere.

    Case, separators (of a UUID, too), leading zeros and digits written as %31 do not matter; an id in another encoding
    is not found. Null where the text is null; no text contains an id that is null or empty.

    >>> frame = pl.DataFrame({"s3_key": ["photos/User_42/a.jpg", "photos/142.jpg"], "user_id": [42, 42]})
    >>> frame.select(contains_id("s3_key", ids=["user_id"])).to_series().to_list()
    [True, False]
    """
    as_words = [bounded(column).str.contains(bounded(name), literal=True) for name in ids]
    anywhere = [unbroken(column).str.contains(unbroken(name), literal=True).fill_null(value=False) for name in ids]
    return pl.any_horizontal(*as_words, *anywhere)


def bounded(column: str | pl.Expr) -> pl.Expr:
    """Return the words and numbers of a text or an id in lower case, delimited by slashes; null if there are none.

    >>> pl.select(bounded(pl.lit("photos/User42.jpg"))).item()
    '/photos/user/42/jpg/'
    """
    words = to_expr(column).cast(pl.String).str.to_lowercase()
    for pattern, parted in _PARTED.items():
        words = words.str.replace_all(pattern, parted)
    return pl.lit("/") + words.str.strip_chars("/").replace("", None) + pl.lit("/")


def unbroken(column: str | pl.Expr) -> pl.Expr:
    """Return only the letters and digits of a text or an id, in lower case; null for a short one.

    >>> pl.select(unbroken(pl.lit("0B9F7C1E-0d3c-4a52-8f5e-6f1b9d6e7a11"))).item()
    '0b9f7c1e0d3c4a528f5e6f1b9d6e7a11'
    """
    text = to_expr(column).cast(pl.String).str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", "")
    return pl.when(text.str.len_chars() >= _LONG_ID).then(text)
