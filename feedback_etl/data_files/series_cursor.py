"""The time by which an incremental series continues, as expressions over raw rows."""

from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.transform.timestamps import readable


class SeriesCursor(NamedTuple):
    """Say by which time a series continues.

    Attributes:
        column: "created_at", or the column with the time of the last change.
        changed_since: The last watermark, if changes are followed: rows without a change since then have been read.
    """

    column: str = "created_at"
    changed_since: datetime | None = None

    @property
    def follows_changes(self) -> bool:
        """Whether changed rows are exported again."""
        return self.column != "created_at"

    def time(self) -> pl.Expr:
        """Return the time of a row: the later of `created_at` and the cursor, if that is a readable time."""
        created = pl.col("created_at")
        if not self.follows_changes:
            return created
        changed = readable(self.column)
        return pl.when(changed > created).then(changed).otherwise(pl.coalesce(created, changed))

    def is_changed(self) -> pl.Expr:
        """Return whether a row was changed after it was created."""
        return self.time() > pl.col("created_at")

    def is_old(self) -> pl.Expr:
        """Return whether a row has not changed since the last watermark, and so has been read."""
        return self._is_before_watermark(self.time())

    def was_exported(self) -> pl.Expr:
        """Return whether a row was created before the last watermark: so it was exported, unless it arrived late."""
        return self._is_before_watermark(pl.col("created_at"))

    def _is_before_watermark(self, time: pl.Expr) -> pl.Expr:
        is_before = pl.lit(value=False) if self.changed_since is None else time < self.changed_since
        return is_before.fill_null(value=False)
