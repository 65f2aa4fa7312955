"""Read the rows of exports as text, a few columns at a time to bound memory."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from feedback_etl.data_files.csv_files import scan_text
from feedback_etl.errors import ExportFileError
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.training.committed_export import CommittedExport
from feedback_etl.transform.transforms import PAIR_KEY

_OCCURRENCE = "occurrence in its file"


class Export(NamedTuple):
    """An export and its storage."""

    storage: Storage
    manifest: Manifest

    @property
    def paths(self) -> list[str]:
        """Return its data file or parts; empty if it was pruned."""
        return [] if self.manifest.pruned_at else [file.path for file in self.manifest.all("pairs")]

    @property
    def committed(self) -> CommittedExport:
        """Return the export as `training` represents it."""
        return CommittedExport.from_manifest(self.storage, self.manifest)

    def read(self, names: Sequence[str]) -> pl.DataFrame:
        """Read columns of its file; missing columns are null.

        Raises:
            ExportFileError: The file cannot be read, or lacks a column of its manifest.
        """
        missing = [pl.lit(None, pl.String).alias(name) for name in names if name not in self.manifest.columns]
        try:
            return scan_text(self.storage, self.manifest).with_columns(missing).select(names).collect()
        except (OSError, pl.exceptions.PolarsError):  # their messages may contain values
            file = self.storage.uri(self.manifest.data)
            raise ExportFileError(f"{file} cannot be read: it is missing, or damaged.") from None


class Rows:
    """Rows of exports, the oldest first; a pair in several exports is read from the newest.

    Equal rows of one file are distinct feedback whose times were truncated, so all of them are kept.
    """

    def __init__(self, exports: Sequence[Export]) -> None:
        self._exports = exports
        self._kept = _last_copies(exports) if len(exports) > 1 else None

    def read(self, *names: str) -> pl.DataFrame:
        """Read columns of all rows.

        Raises:
            ExportFileError: A file cannot be read.
        """
        columns = list(dict.fromkeys(names))
        frames = [export.read(columns) for export in self._exports]
        rows = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        return rows if self._kept is None else rows.filter(self._kept)


def _last_copies(exports: Sequence[Export]) -> pl.Series:
    """Return a mask of the rows that have no newer copy."""
    frames = (export.read(PAIR_KEY) for export in exports)
    numbered = pl.concat(
        [frame.with_columns(pl.int_range(pl.len()).over(PAIR_KEY).alias(_OCCURRENCE)) for frame in frames]
    )
    return numbered.select(pl.struct(*PAIR_KEY, _OCCURRENCE).is_last_distinct()).to_series()
