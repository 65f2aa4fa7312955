"""Read the rows of exports as text, a few columns at a time to bound memory."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.data_files.csv_files import scan_text
from feedback_etl.errors import ExportFileError
from feedback_etl.training.committed_export import CommittedExport

_OCCURRENCE = "occurrence in its file"


def read_columns(export: CommittedExport, names: Sequence[str]) -> pl.DataFrame:
    """Read columns of the files of an export; missing columns are null.

    Raises:
        ExportFileError: A file cannot be read, or lacks a column of its manifest.
    """
    missing = [pl.lit(None, pl.String).alias(name) for name in names if name not in export.manifest.columns]
    try:
        return scan_text(export.storage, export.manifest).with_columns(missing).select(names).collect()
    except (OSError, pl.exceptions.PolarsError):  # their messages may contain values
        raise ExportFileError(f"{export.address} cannot be read: it is missing, or damaged.") from None


class Rows:
    """Rows of exports, the oldest first; a pair in several exports is read from the newest.

    Equal rows of one file are distinct feedback whose times were truncated, so all of them are kept.
    """

    def __init__(self, exports: Sequence[CommittedExport]) -> None:
        self._exports = exports
        self._kept = _find_last_copies(exports) if len(exports) > 1 else None

    def read(self, *names: str) -> pl.DataFrame:
        """Read columns of all rows.

        Raises:
            ExportFileError: A file cannot be read.
        """
        columns = list(dict.fromkeys(names))
        frames = [read_columns(export, columns) for export in self._exports]
        rows = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        return rows if self._kept is None else rows.filter(self._kept)


def _find_last_copies(exports: Sequence[CommittedExport]) -> pl.Series:
    """Return a mask of the rows that have no newer copy."""
    key = exports[-1].manifest.schema.pair_key
    frames = (read_columns(export, key) for export in exports)
    numbered = pl.concat([frame.with_columns(pl.int_range(pl.len()).over(key).alias(_OCCURRENCE)) for frame in frames])
    return numbered.select(pl.struct(*key, _OCCURRENCE).is_last_distinct()).to_series()
