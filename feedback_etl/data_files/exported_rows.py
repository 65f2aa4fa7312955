"""Rows that the exports of an incremental series contain, so that a backfill exports those that none contains.

An export's files contain the analysis, the recommendation and the exact time of each pair, and its list of rejected
rows the ids of those rows. Both are read, so that a backfill depends on no other state, and erased rows stay erased.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.data_files.csv_files import list_escaped
from feedback_etl.data_files.seen_rows import SeenRows
from feedback_etl.data_files.series_cursor import SeriesCursor
from feedback_etl.data_files.verified_files import open_verified
from feedback_etl.privacy.keys import Key
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.schema.model import PSEUDONYM, RAW_ITEM, TIME, FeedbackSchema
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import ISO_FORMAT, hash_id
from feedback_etl.transform.formulas import unescape
from feedback_etl.transform.transforms import has_min_ratings

_TIME = pl.Datetime("us")


class EarlierWindows(NamedTuple):
    """Say which rows a backfill considers.

    Attributes:
        until: The watermark of the series, exclusive: later rows are left to the next export.
        pruned: Windows of exports whose files were pruned, so that their rows are not known.
        hash_recommendation_id: Whether the exports contain pseudonyms of recommendations.
        min_feedback_fields: The number of ratings below which a row is skipped.
        schema: The schema of the rows.
    """

    until: datetime
    pruned: Sequence[tuple[datetime, datetime]]
    hash_recommendation_id: bool
    min_feedback_fields: int
    schema: FeedbackSchema


class ExportedRows(NamedTuple):
    """Contain the pairs of exports, ordered by time, and the feedback ids of rejected rows, as text."""

    pairs: pl.DataFrame
    rejected: pl.Series

    @classmethod
    def read(cls, storage: Storage, exports: Iterable[Manifest], schema: FeedbackSchema) -> "ExportedRows":
        """Read the files of exports that were not pruned.

        Raises:
            ExportFileError: A file is missing or was changed.
        """
        names = [PSEUDONYM, *schema.item_columns, TIME]
        types = pl.Schema(dict.fromkeys(names, pl.String()) | {TIME: _TIME})
        pairs, rejected = [pl.DataFrame(schema=types)], [pl.Series("feedback_id", dtype=pl.String)]
        for export in (export for export in exports if not export.pruned_at):
            pairs += [_read_pairs(storage, file, export, types) for file in export.all("pairs")]
            rejected += [
                _read(storage, file, export, ["feedback_id"])["feedback_id"] for file in export.all("rejected")
            ]
        return cls(pl.concat(pairs).sort("feedback_timestamp"), pl.concat(rejected))

    def select_pairs(self, times: pl.Series) -> pl.DataFrame:
        """Return the pairs between the first and the last of some times, so that a batch is compared with few."""
        if times.null_count() == len(times):
            return self.pairs.clear()
        exported, ends = self.pairs["feedback_timestamp"], pl.Series([times.min(), times.max()], dtype=_TIME)
        start, end = exported.search_sorted(ends, side="left")[0], exported.search_sorted(ends, side="right")[1]
        return self.pairs.slice(start, end - start)


def _read_pairs(storage: Storage, file: DataFile, export: Manifest, types: pl.Schema) -> pl.DataFrame:
    frame = _read(storage, file, export, list(types))
    time = pl.col("feedback_timestamp")
    if frame.schema["feedback_timestamp"] == pl.String:
        time = time.str.to_datetime(ISO_FORMAT, time_unit="us")
        frame = frame.with_columns(unescape(name) for name in list_escaped(export) if name in types)
    return frame.with_columns(time.dt.replace_time_zone(None)).cast(types)


def _read(storage: Storage, file: DataFile, export: Manifest, columns: list[str]) -> pl.DataFrame:
    """Read columns of a file; those of CSV files as text."""
    consequence = (
        "a backfill would export its rows again. Restore it, or remove the export (feedback-etl prune --export "
        f"{export.stem} {shlex.quote(str(storage))})."
    )
    with open_verified(storage, file, consequence) as path:
        if file.path.endswith(".parquet"):
            return pl.read_parquet(path, columns=columns)
        return pl.scan_csv(path, infer_schema=False, glob=False).select(columns).collect()


class BackfillRows(SeenRows):
    """Identify the rows of earlier windows that no export contains; the state of the series stays as it is.

    Rows with too few ratings, and rows that were rejected and are still invalid, are not counted again.
    """

    def __init__(
        self, seen: pl.DataFrame, key: Key | None, cursor: SeriesCursor, windows: EarlierWindows, exported: ExportedRows
    ) -> None:
        super().__init__(seen, key, windows.until, cursor, windows.schema)
        self._windows, self._exported = windows, exported

    def filter_new_rows(self, raw: pl.DataFrame, is_valid: Callable[[pl.DataFrame], pl.Expr]) -> pl.DataFrame:
        """Return the rows of earlier windows that no export contains."""
        windows, time = self._windows, self._time
        is_unknown = pl.any_horizontal(
            pl.lit(value=False),
            *(pl.col("created_at").is_between(*window, closed="left") for window in windows.pruned),
        )
        rows = raw.filter(time < windows.until, ~is_unknown, has_min_ratings(windows.min_feedback_fields, self._schema))
        names, key = self._exported.pairs.columns, [self._pseudonym(), pl.col("created_at").cast(_TIME)]
        if self._schema.item:
            item = pl.col(RAW_ITEM).cast(pl.String)
            if windows.hash_recommendation_id:
                item = hash_id(RAW_ITEM, key=self._key, unkeyed=self._key is None)
            key.insert(1, item)
        keys = {f"key of {name}": value for name, value in zip(names, key, strict=True)}
        # Keys of a join must be elementwise expressions, which pseudonyms are not: they become columns first.
        rows = rows.with_columns(**keys)
        pairs = self._exported.select_pairs(rows[f"key of {TIME}"])
        rows = rows.join(pairs, left_on=list(keys), right_on=names, how="anti", maintain_order="left").drop(keys)
        was_rejected = pl.col("feedback_id").cast(pl.String).is_in(self._exported.rejected.implode())
        return rows.filter(is_valid(rows) | ~was_rejected.fill_null(value=False))
