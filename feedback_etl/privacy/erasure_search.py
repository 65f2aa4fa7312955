"""Search the files of an export for the rows that an erasure removes."""

from collections.abc import Set
from typing import NamedTuple

import polars as pl

from feedback_etl.data_files.links import LINKED_KINDS, find_rows, read_links
from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM, find_analyses, list_pseudonyms
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.rewrite import fetch_if_present
from feedback_etl.privacy.erasure_selection import FileMatch, KeyedRequest
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import hash_file


class LinkedRows(NamedTuple):
    """The rows of a shared export, and those to remove.

    Attributes:
        rows: Pseudonyms of all rows.
        unwanted: Pseudonyms of the rows to remove.
        ids: Requested ids, as the caller gave them, that the export contains.
    """

    rows: pl.Series = pl.Series(dtype=pl.String)
    unwanted: Set[str] = frozenset()
    ids: Set[str] = frozenset()

    def match(self, present: Set[str]) -> FileMatch:
        """Select the rows to remove from a file; rows without a link cannot be searched."""
        if not pl.Series(list(present), dtype=pl.String).is_in(self.rows.implode()).all():
            return FileMatch(damaged=True)
        unwanted = present & self.unwanted
        return FileMatch(unwanted, self.ids if unwanted else frozenset())


def find_linked_rows(storage: Storage, manifest: Manifest, request: KeyedRequest) -> LinkedRows | None:
    """Find the rows to remove by the links of a shared export; None for other exports.

    Without its links no row is found, so that its files count as damaged.
    """
    try:
        links = read_links(storage, manifest)
    except ExportFileError:
        return LinkedRows()
    if links is None:
        return None
    match = request.match({*links[LINKED]}, {})
    return LinkedRows(links[PSEUDONYM], find_rows(links, match.pseudonyms.__contains__), match.ids)


def search_file(
    storage: Storage, file: DataFile, request: KeyedRequest, linked: LinkedRows | None = None
) -> FileMatch | None:
    """Return the rows of a file to remove; None if the file was pruned."""
    try:
        with fetch_if_present(storage, file.path) as path:
            if path is None:
                return None
            if (path.stat().st_size, hash_file(path)) not in file.versions:
                return FileMatch(damaged=True)
            present = list_pseudonyms(path, path.name)
            if linked is not None and file.kind in LINKED_KINDS:
                return linked.match(present)
            has_subjects = request.subjects and file.kind in ("pairs", "items", "pending")
            subjects = find_analyses(path, path.name, {*request.subjects}) if has_subjects else {}
    except ExportFileError:
        return FileMatch(damaged=True)
    return request.match(present, subjects, is_seen_rows=file.kind == "rows")
