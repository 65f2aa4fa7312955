"""Links of a shared export: the analysis of each row, whose own pseudonym no key finds.

They stay in the state folder (0600), are removed with the rows, and let erasure and the checklist find people.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM
from feedback_etl.data_files.verified_files import open_verified
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.storage.base import Storage

LINKED_KINDS = ("pairs", "links")
"""The kinds of files of a shared export that contain the pseudonyms of its rows."""

_SCHEMA = {PSEUDONYM: pl.String, LINKED: pl.String}


def read_links(storage: Storage, manifest: Manifest) -> pl.DataFrame | None:
    """Return the links of an export, empty after pruning; None if the export is not shared.

    Raises:
        ExportFileError: A file of them is missing, or differs from the manifest.
    """
    if not manifest.recipient:
        return None
    files = manifest.all("links")
    existing = storage.stat_files(file.path for file in manifest.files if file.kind in LINKED_KINDS)
    return join_links(_read_file(storage, file) for file in (files if existing else ()))


def _read_file(storage: Storage, file: DataFile) -> pl.DataFrame:
    consequence = (
        "without the analyses of the rows of a shared export, people cannot be found there. Restore it from a backup, "
        "or prune the export."
    )
    with open_verified(storage, file, consequence) as path:
        return scan_links(path)


def join_links(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the links of all parts as one frame."""
    return pl.concat([pl.DataFrame(schema=_SCHEMA), *frames])


def scan_links(path: Path) -> pl.DataFrame:
    """Return the links in a file."""
    return pl.read_csv(path, schema=_SCHEMA)


def find_rows(links: pl.DataFrame, is_wanted: Callable[[str], bool]) -> set[str]:
    """Return the pseudonyms of the rows of the analyses that a function recognises by their pseudonyms."""
    analyses = [analysis for analysis in links[LINKED].unique() if is_wanted(analysis)]
    return {*links.filter(pl.col(LINKED).is_in(analyses))[PSEUDONYM]}
