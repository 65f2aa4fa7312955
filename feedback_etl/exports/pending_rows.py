"""Rows of an incremental series that wait for k people, and the people of its equivalence classes.

Both are files of the last export of the series, in its state folder (0600). Their rows have pseudonyms, so an erasure
removes them as it does those of an export. People are keyed digests.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import polars as pl

from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.rewrite import remove_rows
from feedback_etl.privacy.keys import Key
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import hash_file

PERSON = "digest of the person"
SINCE = "pending since"
EXPORT = "stem of the export"
"""Columns of these files. No column of an export has a blank in its name."""


def read_state_file(storage: Storage, manifest: Manifest | None, kind: Literal["pending", "members"]) -> pl.DataFrame:
    """Return the rows of a file of the state of a series; none if it has no such file, or if it was pruned.

    Raises:
        ExportFileError: The file is missing or was changed.
    """
    file = next(iter(manifest.all(kind)), None) if manifest and not manifest.pruned_at else None
    if file is None:
        return pl.DataFrame()
    try:
        with storage.local_copy(file.path) as path:
            if hash_file(path) in {file.sha256, file.becoming.get("sha256")}:
                return pl.read_parquet(path, memory_map=False)
    except FileNotFoundError:
        pass
    raise ExportFileError(
        f"{storage.uri(file.path)} is missing or was changed: without it rows that wait for k people would be lost. "
        "Restore it, or begin a series in another folder (--output)."
    )


def expire_pending(
    storage: Storage, exports: Iterable[Manifest], before: datetime, signer: Key | None
) -> list[Manifest]:
    """Remove the rows of series that have been pending since before a time; return the manifests of their exports.

    Raises:
        ExportFileError: A file cannot be read or written.
    """
    changed = list[Manifest]()
    for export in exports:
        file = next(iter(export.all("pending")), None)
        if file is None or export.pruned_at or file.path not in storage.stat_files([file.path]):
            continue
        pending = read_state_file(storage, export, "pending")
        expired = {*pending.filter(pl.col(SINCE) < before)[PSEUDONYM].str.to_lowercase()}
        if expired:
            remove_rows(storage, export, [(file, expired)], signer, dry_run=False)
            changed.append(export)
    return changed
