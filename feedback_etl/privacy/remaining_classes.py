"""Equivalence classes of the rows that an erasure left in an export."""

from collections.abc import Sequence, Set

import polars as pl

from feedback_etl.columns import SUBJECT_HASH
from feedback_etl.data_files.csv_files import scan_text
from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM
from feedback_etl.exports.links import read_links
from feedback_etl.exports.rewrite import read_pseudonyms
from feedback_etl.privacy.keys import Key
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import hash_id

Owners = Sequence[tuple[str, str]]
"""Analyses of the application, each with the user whose it is, as text."""


def hash_owners(owners: Owners, key: Key | None) -> pl.LazyFrame:
    """Return the pseudonyms of analyses under a key with their users: the columns `analysis_hash` and `person`."""
    frame = pl.LazyFrame(owners, schema={PSEUDONYM: pl.String, "person": pl.String}, orient="row")
    return frame.with_columns(hash_id(PSEUDONYM, key=key, unkeyed=key is None, domain="analysis_id")).unique(PSEUDONYM)


def hash_export_owners(storage: Storage, manifest: Manifest, owners: Owners, key: Key | None) -> pl.LazyFrame:
    """Return the pseudonyms in the data of an export with their users, as `hash_owners` does.

    Raises:
        ExportFileError: The links of a shared export, which say whose its rows are, are missing or were changed.
    """
    analyses, links = hash_owners(owners, key), read_links(storage, manifest)
    if links is None:
        return analyses
    rows = links.lazy().join(analyses, left_on=LINKED, right_on=PSEUDONYM, how="left")
    return rows.select(PSEUDONYM, "person")


def measure_remaining_k(
    rows: pl.LazyFrame, quasi_identifiers: Sequence[str], owners: pl.LazyFrame | None
) -> int | None:
    """Measure k of rows of an export; None if their people cannot be counted, 0 without rows.

    Args:
        rows: Rows as text.
        quasi_identifiers: Columns of the equivalence classes.
        owners: Users by pseudonym, see `hash_owners`; not needed for rows with a subject_hash.
    """
    people = _add_people(rows, owners)
    if people is None:
        return None
    return int(_count_people(people, quasi_identifiers).select(pl.col("people").min()).collect().item() or 0)


def add_small_classes(
    storage: Storage, manifest: Manifest, owners: pl.LazyFrame, unwanted: list[tuple[DataFile, set[str]]]
) -> int:
    """Add the analyses in classes smaller than the k of an export to those to remove; return the number of their rows.

    Only an export that requires a k is concerned, if this or an earlier erasure removes rows from it. All rows of such
    an analysis are removed, which can make other classes smaller than k: those are included.

    Args:
        storage: Storage of the export.
        manifest: Manifest of the export.
        owners: Users by pseudonym, see `hash_owners`.
        unwanted: Files with the pseudonyms to remove from each; extended.
    """
    pairs = manifest.all("pairs")
    is_changed = manifest.risk.get("stale") or any(file.kind == "pairs" for file, _ in unwanted)
    if not (manifest.settings.get("k") and manifest.risk and is_changed):
        return 0
    if not pairs or len(storage.stat_files(file.path for file in pairs)) < len(pairs):  # pruned
        return 0
    erased = set[str]().union(*(pseudonyms for file, pseudonyms in unwanted if file.kind == "pairs"))
    small, rows = _find_small_classes(scan_text(storage, manifest), manifest, erased, owners)
    by_path = {file.path: pseudonyms for file, pseudonyms in unwanted}
    for file in [*pairs, *manifest.all("links")] if small else ():
        if present := small & read_pseudonyms(storage, file):
            if file.path in by_path:
                by_path[file.path] |= present
            else:
                unwanted.append((file, present))
    return rows


def _find_small_classes(
    rows: pl.LazyFrame, manifest: Manifest, erased: Set[str], owners: pl.LazyFrame
) -> tuple[set[str], int]:
    """Return the analyses in classes of fewer than k people once some are erased, and the number of all their rows."""
    k, names = int(manifest.settings["k"]), list(dict.fromkeys(manifest.risk["quasi_identifiers"]))
    people = _add_people(rows, owners)
    assert people is not None  # noqa: S101  owners are given
    table = people.select(pl.col(PSEUDONYM).str.to_lowercase(), "person", *names)
    small = set[str]()
    while True:
        kept = table.filter(~pl.col(PSEUDONYM).is_in([*erased, *small]))
        classes = _count_people(kept, names).filter(pl.col("people") < k)
        found = {*kept.join(classes, on=names, how="semi", nulls_equal=True).select(PSEUDONYM).collect().to_series()}
        if not found:
            return small, int(table.filter(pl.col(PSEUDONYM).is_in(list(small))).select(pl.len()).collect().item())
        small |= found


def _add_people(rows: pl.LazyFrame, owners: pl.LazyFrame | None) -> pl.LazyFrame | None:
    """Add the column `person`; analyses without a known user are one person together. None if no one is known."""
    if SUBJECT_HASH.name in rows.collect_schema():
        return rows.with_columns(pl.col(SUBJECT_HASH.name).alias("person"))
    return None if owners is None else rows.join(owners, on=PSEUDONYM, how="left")


def _count_people(rows: pl.LazyFrame, names: Sequence[str]) -> pl.LazyFrame:
    return rows.group_by(list(dict.fromkeys(names))).agg(pl.col("person").n_unique().alias("people"))
