"""Files of the last export of an incremental series: pending rows, and the people of its classes.

They are in the state folder (0600). Their rows have pseudonyms, so an erasure removes them as it does those of an
export; see `privacy.series_rows`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import polars as pl

from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.data_files.verified_files import open_verified
from feedback_etl.privacy.series_rows import SINCE
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.storage.base import Storage


def read_state_files(storage: Storage, manifest: Manifest | None, kind: Literal["pending", "members"]) -> pl.DataFrame:
    """Return the rows of the files of the state of a series; a frame without columns if there are none.

    Raises:
        ExportFileError: A file is missing or was changed.
    """
    if manifest is None or manifest.pruned_at:
        return pl.DataFrame()
    return pl.concat([pl.DataFrame(), *(_read(storage, file) for file in manifest.all(kind))], how="diagonal")


def _read(storage: Storage, file: DataFile) -> pl.DataFrame:
    consequence = "without it pending rows would be lost. Restore it, or begin a series in another folder (--output)."
    with open_verified(storage, file, consequence) as path:
        return pl.read_parquet(path, memory_map=False)


def find_expired_pending(
    storage: Storage, exports: Iterable[Manifest], before: datetime
) -> list[tuple[Manifest, list[tuple[DataFile, set[str]]]]]:
    """Find the analyses with rows that have been pending since before a time, by export and file.

    Files that the next export of a series has superseded do not count: it deletes them.

    Raises:
        ExportFileError: A file was changed.
    """
    matches = list[tuple[Manifest, list[tuple[DataFile, set[str]]]]]()
    for export in (export for export in exports if not export.pruned_at):
        files = [file for file in export.all("pending") if storage.stat_files([file.path])]
        expired = [(file, _find_old(_read(storage, file), before)) for file in files]
        if unwanted := [(file, analyses) for file, analyses in expired if analyses]:
            matches.append((export, unwanted))
    return matches


def _find_old(pending: pl.DataFrame, before: datetime) -> set[str]:
    return {*pending.filter(pl.col(SINCE) < before)[PSEUDONYM].str.to_lowercase()}
