"""The keyed digest of a column, as an expression that refuses to be serialised, since it contains the key."""

from typing import NoReturn

import polars as pl
import polars_hash as plh  # noqa: F401  registers the `chash` namespace


class _KeyedDigest:
    """Compute the HMAC-SHA256 of texts; a Python object, so that no serialised expression contains the key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, text: pl.Series) -> pl.Series:
        column: pl.Expr = pl.col(text.name).chash.hmac_sha256(key=self._key)  # type: ignore[attr-defined]
        return text.to_frame().select(column).to_series()

    def __reduce__(self) -> NoReturn:
        raise TypeError("An expression with a pseudonym key cannot be serialised: that would store the key.")


def hmac_sha256(text: pl.Expr, key: str) -> pl.Expr:
    """Return the HMAC-SHA256 (RFC 2104) of a column of text as 64 hex characters; null stays null."""
    return text.map_batches(_KeyedDigest(key), return_dtype=pl.String, is_elementwise=True)
