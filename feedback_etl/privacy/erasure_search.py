"""Search the files of an export for the rows that an erasure removes."""

from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import polars as pl

from feedback_etl.data_files.links import LINKED_KINDS, find_rows, read_links
from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM, find_analyses, list_pseudonyms
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.rewrite import fetch_if_present, map_files
from feedback_etl.privacy.erasure_selection import ErasureRequest, FileMatch, KeyedRequest
from feedback_etl.privacy.keys import Key
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import hash_file

_KINDS_WITH_SUBJECTS = ("pairs", "items", "pending")
"""The kinds of files that may have a column `subject_hash`."""


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


def add_named_analyses(
    storage: Storage, exports: Iterable[Manifest], request: ErasureRequest, keys: Mapping[str | None, Key | None]
) -> ErasureRequest:
    """Add the analyses that the files of any export name for the users by a `subject_hash`.

    Files without that column, lists of rejected rows and the state of a series contain the same pseudonyms.
    """
    if not request.users:
        return request
    named: dict[str | None, dict[str, str]] = {key_id: {} for key_id in keys}
    subjects = {key_id: {*request.with_key(key).subjects} for key_id, key in keys.items()}
    for manifest in exports:
        if manifest.lookup_key in keys and not manifest.recipient:
            files = [file for kind in _KINDS_WITH_SUBJECTS for file in manifest.all(kind)]
            find = partial(_find_named, storage, subjects=subjects[manifest.lookup_key])
            for analyses in map_files(storage, files, find):
                named[manifest.lookup_key] |= analyses
    return request._replace(named=named)


def _find_named(storage: Storage, file: DataFile, subjects: Set[str]) -> dict[str, str]:
    """Return the analyses that a file names for subjects; none if it was pruned, or is reported as damaged."""
    with suppress(ExportFileError), fetch_if_present(storage, file.path) as path:
        if path is not None and (path.stat().st_size, hash_file(path)) in file.versions:
            return find_analyses(path, path.name, subjects)
    return {}


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
    match = request.match({*links[LINKED]})
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
    except ExportFileError:
        return FileMatch(damaged=True)
    return request.match(present, is_seen_rows=file.kind == "rows")
