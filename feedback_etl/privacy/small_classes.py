"""Remove the equivalence classes that an erasure leaves smaller than the k of their export, or of its series."""

from collections.abc import Sequence, Set
from functools import partial

import polars as pl

from feedback_etl.data_files.csv_files import scan_text
from feedback_etl.data_files.row_filter import PSEUDONYM
from feedback_etl.exports.rewrite import map_files, read_pseudonyms
from feedback_etl.privacy.erasure_search import search_file
from feedback_etl.privacy.erasure_selection import ErasureRequest
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.remaining_classes import (
    IS_NEWEST,
    Owners,
    add_people,
    concat_classes,
    count_people,
    hash_export_owners,
    list_counted_together,
    must_be_recounted,
)
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.storage.base import Storage

_KINDS = ("pairs", "items", "links", "members")
"""Files with rows of small classes: with those that left, the people that count in a series leave its state."""


class SmallClasses:
    """Find the analyses in small classes of all exports, before an erasure rewrites the first export of a series."""

    def __init__(self, storage: Storage, request: ErasureRequest, owners: Owners, exports: Sequence[Manifest]) -> None:
        self._storage, self._request, self._owners, self._exports = storage, request, owners, exports
        self._of_series = dict[str, Set[str]]()

    def add(self, manifest: Manifest, unwanted: list[tuple[DataFile, set[str]]], key: Key | None) -> int:
        """Add the analyses in small classes to those to remove; return the number of their rows in the data.

        Only an export that requires a k is concerned, if this or an earlier erasure removes rows from it; one of a
        series also if another one of the series lost rows, or if the newest versions of its rows were not counted.

        Args:
            manifest: Manifest of the export.
            unwanted: Files with the pseudonyms to remove from each; extended.
            key: Key of its pseudonyms.
        """
        if not (manifest.settings.get("k") and manifest.risk):
            return 0
        exports = list_counted_together(manifest, self._exports)
        if exports == [manifest]:
            erased = set[str]().union(*(pseudonyms for file, pseudonyms in unwanted if file.kind == "pairs"))
            small = self._find(exports, erased, key)
        elif manifest.settings_digest in self._of_series:
            small = self._of_series[manifest.settings_digest]
        else:
            small = self._find(exports, self._list_erased(exports, key), key)
            self._of_series[manifest.settings_digest] = small
        return _add_analyses(self._storage, manifest, small, unwanted)

    def _find(self, exports: Sequence[Manifest], erased: Set[str], key: Key | None) -> Set[str]:
        if not (erased or must_be_recounted(exports)):
            return frozenset()
        owners = hash_export_owners(self._storage, exports[0], self._owners, key)
        return _find_analyses(self._storage, exports, erased, owners)

    def _list_erased(self, exports: Sequence[Manifest], key: Key | None) -> set[str]:
        """Return the pseudonyms that the erasure removes from the data of exports."""
        search = partial(search_file, self._storage, request=self._request.with_key(key))
        matches = map_files(self._storage, [file for export in exports for file in export.all("pairs")], search)
        return set[str]().union(*(match.pseudonyms for match in matches if match))


def _find_analyses(storage: Storage, exports: Sequence[Manifest], erased: Set[str], owners: pl.LazyFrame) -> set[str]:
    """Return the analyses in classes smaller than the k of exports that are counted together, once some are erased.

    All rows of such an analysis are to be removed, which can make other classes smaller than k: those are included.

    Args:
        storage: Storage of the exports.
        exports: Manifests of the exports; those without files are skipped.
        erased: Pseudonyms of the analyses that are erased.
        owners: Users by pseudonym, see `hash_owners`.
    """
    k, names = int(exports[0].settings["k"]), list(dict.fromkeys(exports[0].risk["quasi_identifiers"]))
    present = [manifest for manifest in exports if _has_files(storage, manifest)]
    if not present:
        return set()
    rows = concat_classes(((manifest, scan_text(storage, manifest)) for manifest in present), names)
    people = add_people(rows, owners)
    assert people is not None  # noqa: S101  owners are given
    table, small = people.select(pl.col(PSEUDONYM).str.to_lowercase(), "person", IS_NEWEST, *names), set[str]()
    while True:
        kept = table.filter(~pl.col(PSEUDONYM).is_in([*erased, *small]))
        classes = count_people(kept, names).filter(pl.col("people") < k)
        rows = kept.join(classes, on=names, how="semi", nulls_equal=True)
        pseudonyms = {*rows.select(PSEUDONYM).collect().to_series()}
        if not pseudonyms:
            return small
        small |= pseudonyms


def _has_files(storage: Storage, manifest: Manifest) -> bool:
    pairs = manifest.all("pairs")
    return bool(pairs) and len(storage.stat_files(file.path for file in pairs)) == len(pairs)  # else it was pruned


def _add_analyses(
    storage: Storage, manifest: Manifest, analyses: Set[str], unwanted: list[tuple[DataFile, set[str]]]
) -> int:
    """Add analyses to those to remove from an export; return the number of their rows in its data.

    Args:
        storage: Storage of the export.
        manifest: Manifest of the export.
        analyses: Pseudonyms of the analyses.
        unwanted: Files with the pseudonyms to remove from each; extended.
    """
    if not analyses:
        return 0
    by_path = {file.path: pseudonyms for file, pseudonyms in unwanted}
    for file in (file for file in manifest.files if file.kind in _KINDS):
        if present := read_pseudonyms(storage, file) & analyses:
            if file.path in by_path:
                by_path[file.path] |= present
            else:
                unwanted.append((file, present))
    if not _has_files(storage, manifest):  # all rows of the export are pending
        return 0
    rows = scan_text(storage, manifest).filter(pl.col(PSEUDONYM).str.to_lowercase().is_in([*analyses]))
    return int(rows.select(pl.len()).collect().item())
