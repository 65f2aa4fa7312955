"""Remove duplicates batch by batch; a filter remembers the keys of earlier batches that can still repeat."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from feedback_etl.transform.dataframes import compact
from feedback_etl.transform.overrides import call
from feedback_etl.transform.pairs import FeedbackTrainingPair, iter_pairs
from feedback_etl.transform.transforms import RAW_KEY, deduplicate


class DuplicateFilter:
    """Remove later rows of the same feedback, before or after pseudonymisation; this base removes none."""

    def filter_raw(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Return the valid raw rows that are not known to be duplicates."""
        return valid

    def filter_pairs(self, raw: pl.DataFrame, pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the raw rows and their training pairs, row by row, without duplicates."""
        return raw, pairs


class RawDuplicateFilter(DuplicateFilter):
    """Remove rows with equal built-in pair hashes from raw rows ordered by time, without computing the hash."""

    def __init__(self, key: Sequence[str] = RAW_KEY) -> None:
        """Identify rows by these raw columns, which contain `created_at`."""
        self._key = list(key)
        # Comparable between batches: a source may return numbers in one batch and text in the next.
        self._key_as_text = [pl.col(name) if name == "created_at" else pl.col(name).cast(pl.String) for name in key]
        self._seen: pl.DataFrame | None = None

    def filter_raw(self, valid: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are the first of their pair.

        Duplicates have equal times, and rows are ordered by time, so only rows of adjacent equal times can be
        duplicates. Of earlier batches, only the keys of the last time have to be remembered.
        """
        if valid.is_empty():
            return valid
        time, last = pl.col("created_at"), valid["created_at"][-1]
        row = pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")
        tied = valid.select(row, *self._key).filter((time == time.shift(1)) | (time == time.shift(-1)))
        repeats = tied.join(deduplicate(tied, by=self._key), on="row", how="anti")["row"]
        unique = valid.filter(~row.is_in(repeats.implode())) if len(repeats) else valid
        keys = unique.filter(time == last).select(self._key_as_text)
        if self._seen is not None and valid["created_at"][0] == self._seen["created_at"][0]:
            unique = unique.join(
                self._seen,
                left_on=self._key_as_text,
                right_on=self._key,
                how="anti",
                nulls_equal=True,
                maintain_order="left",
            )
            keys = pl.concat([self._seen.filter(time == last), keys])
        self._seen = compact(keys)
        return unique


class CustomDuplicateFilter(DuplicateFilter):
    """Remove pairs with equal hashes of an application's function; equal hashes can be far apart, so all are kept."""

    def __init__(self, pair_hash: Callable[[FeedbackTrainingPair], str]) -> None:
        self._pair_hash = pair_hash
        self._seen = set[str]()

    def filter_pairs(self, raw: pl.DataFrame, pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows whose hash no earlier row has; equal rows of the batch are hashed once.

        Raises:
            ValidationError: The function raised an error, or did not return text.
        """
        hashes: dict[tuple[Any, ...], str] = {}
        is_first = []
        for pair in iter_pairs(pairs):
            values = tuple(vars(pair).values())
            if values not in hashes:
                hashes[values] = call("_get_pair_hash", self._pair_hash, pair, (str,))
            is_first.append(hashes[values] not in self._seen)
            self._seen.add(hashes[values])
        mask = pl.Series(is_first, dtype=pl.Boolean)
        return raw.filter(mask), pairs.filter(mask)
