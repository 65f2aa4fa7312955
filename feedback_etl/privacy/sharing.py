"""Pseudonyms of data that leaves the organisation: of a key for its recipient, and another one for each row."""

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM
from feedback_etl.data_files.sorting import sort_by_pseudonym
from feedback_etl.errors import KeyUnusableError, UsageError
from feedback_etl.privacy.keys import Key, derive_key, sign
from feedback_etl.transform.expressions import hash_id
from feedback_etl.transform.json_lists import encode_lists
from feedback_etl.transform.key_strength import MIN_KEY_BITS, estimate_key_bits

_PUBLISHED_KEYS = {"daa0871acd4ebc9edb39ffe5bb8b89c8"}
"""The key of the examples in this package; that of the sample data can be guessed besides."""

_DIGEST_LENGTH = 11
"""Hex digits, 44 bits: the sum over a batch of less than 2**19 rows fits into 63 bits."""


def require_shareable_key(key: Key | None) -> Key:
    """Return a key that protects shared data.

    Raises:
        UsageError: There is no key.
        KeyUnusableError: It is published, or can be guessed, though it is accepted for exports that stay.
    """
    if key is None:
        raise UsageError("`recipient` needs a key: anyone who can list the ids can invert unkeyed pseudonyms.")
    if key.text in _PUBLISHED_KEYS or estimate_key_bits(key.text) < MIN_KEY_BITS:
        raise KeyUnusableError(
            "`recipient` needs a key that no one else can have: this one is published, or can be guessed. Create one "
            "with `feedback-etl keys new --file FILE`."
        )
    return key


def derive_recipient_key(key: Key, recipient: str) -> Key:
    """Derive the key of a recipient: HMAC-SHA256 (RFC 2104) of "feedback_etl recipient:NAME" as 64 hex characters.

    >>> derive_recipient_key(Key("daa0871acd4ebc9edb39ffe5bb8b89c8"), "acme").text[:16]
    'dbec9afc6b4f5506'
    """
    return Key(derive_key(key, f"recipient:{recipient}"), accept_weak=True).with_length(key.pseudonym_length)


class SharedRows(NamedTuple):
    """Rows for a recipient.

    Attributes:
        pairs: The rows as the recipient gets them.
        links: The pseudonym of each row, and that of its analysis, for erasure.
    """

    pairs: pl.DataFrame
    links: pl.DataFrame


class RowPseudonyms:
    """Give each row of an export a pseudonym of its own, in place of that of its analysis.

    It is that of the row's number after a random nonce of the export, under the recipient's key. So rows of an
    analysis, of two exports and of two recipients have no id in common, and their order says nothing. The
    recommendation gets another one: where each analysis has recommendations of its own, these would link its rows.

    Args:
        key: The pseudonym key of the organisation.
        recipient: The name of the recipient.
        folder: The folder of a temporary file without a name; that of the system by default.
        nonce: Random by default.
        item: The column of the recommendation, or of another item; None if there is none.
    """

    def __init__(
        self,
        key: Key,
        recipient: str,
        *,
        folder: Path | None = None,
        nonce: str = "",
        item: str | None = "recommendation_id",
    ) -> None:
        self._item = item
        self._key, self._signer, self._folder = derive_recipient_key(key, recipient), key, folder
        self._nonce = nonce or secrets.token_hex(16)
        self._rows = self._sum = 0

    def prepare(self, frames: Iterable[pl.DataFrame], rows: int) -> Iterator[SharedRows]:
        """Yield the rows with pseudonyms for the recipient, sorted by these, and the links of the rows.

        Args:
            frames: The rows.
            rows: Their number, or a greater one.
        """
        for frame in sort_by_pseudonym(self.replace(frames), rows, self._folder):
            yield SharedRows(frame.drop(LINKED), frame.select(PSEUDONYM, LINKED))

    def replace(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the frames with pseudonyms for the recipient, and the former one of each analysis as `linked_hash`."""
        for frame in frames:
            self._add_digests(frame)
            number = pl.lit(f"{self._nonce}:") + pl.int_range(self._rows, self._rows + pl.len()).cast(pl.String)
            yield frame.with_columns(
                pl.col(PSEUDONYM).alias(LINKED),
                hash_id(number, key=self._key, domain="row").alias(PSEUDONYM),
                *([hash_id(number, key=self._key, domain="recommendation").alias(self._item)] if self._item else []),
            )
            self._rows += frame.height

    def _add_digests(self, frame: pl.DataFrame) -> None:
        """Add the digests of rows to the sum over all, which does not depend on their order."""
        texts = frame.with_columns(encode_lists(frame.schema))
        values = [pl.col(name).cast(pl.String).fill_null("\0") for name in frame.columns if name != "export_date"]
        digest = pl.concat_str(values, separator="\x1f").chash.sha2_256()  # type: ignore[attr-defined]
        number = digest.str.slice(0, _DIGEST_LENGTH).str.to_integer(base=16, dtype=pl.Int64)
        self._sum += int(texts.select(number.sum()).item())

    @property
    def digest(self) -> str:
        """A keyed digest that is equal for equal rows in any order; `export_date` does not count."""
        return sign(self._signer, "shared rows", f"{self._rows} {self._sum}".encode())
