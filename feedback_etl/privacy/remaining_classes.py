"""Equivalence classes of the rows that an erasure left in an export, or in all exports of a series with k."""

from collections.abc import Iterable, Sequence

import polars as pl

from feedback_etl.data_files.links import read_links
from feedback_etl.data_files.row_filter import LINKED, PSEUDONYM
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.series_rows import EXPORT, OCCURRENCE, is_newest
from feedback_etl.records.manifest import Manifest
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import hash_id

IS_NEWEST = "is newest"
"""Column of counted rows. No column of an export has a blank in its name."""

NO_USER = "\0"
"""The person of rows without a user, who are one person together. No id of a user contains it."""

Owners = Sequence[tuple[str, str | None]]
"""Analyses of the application, each with the user whose it is, as text; None for one without a user."""


def hash_owners(owners: Owners, key: Key | None) -> pl.LazyFrame:
    """Return the pseudonyms of analyses under a key with their users: the columns `analysis_hash` and `person`.

    Of an analysis of several users it is not known whose a row is: its person is null.
    """
    frame = pl.LazyFrame(owners, schema={PSEUDONYM: pl.String, "person": pl.String}, orient="row")
    hashed = frame.with_columns(hash_id(PSEUDONYM, key=key, unkeyed=key is None, domain="analysis_id"))
    person = pl.col("person").fill_null(NO_USER)
    return hashed.group_by(PSEUDONYM).agg(pl.when(person.n_unique() == 1).then(person.first()).alias("person"))


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
        rows: Rows as text, see `concat_classes`.
        quasi_identifiers: Columns of the equivalence classes.
        owners: Users by pseudonym, see `hash_owners`; not needed for rows with a subject_hash.
    """
    people = add_people(rows, owners)
    if people is None:
        return None
    return int(count_people(people, quasi_identifiers).select(pl.col("people").min()).collect().item() or 0)


def is_counted_in_series(manifest: Manifest) -> bool:
    """Return whether k is that of the whole series: rows may be pending, or a reader finds the newest versions."""
    follows_changes = bool(manifest.chain and manifest.settings.get("k") and manifest.settings.get("cursor"))
    return follows_changes or manifest.risk.get("scope") == "series"


def list_counted_together(manifest: Manifest, exports: Iterable[Manifest]) -> list[Manifest]:
    """Return the exports with which the equivalence classes of an export are counted: itself, or all of its series."""
    if not is_counted_in_series(manifest):
        return [manifest]
    return [export for export in exports if export.chain and export.settings_digest == manifest.settings_digest]


def must_be_recounted(exports: Iterable[Manifest]) -> bool:
    """Return whether manifests do not say the k of exports that are counted together.

    They lost rows by an erasure, or because one of them was pruned; or each of them was counted alone.
    """
    return any(
        manifest.pruned_at
        or manifest.risk.get("stale")
        or (manifest.risk and is_counted_in_series(manifest) and manifest.risk.get("scope") != "series")
        for manifest in exports
    )


def concat_classes(exports: Iterable[tuple[Manifest, pl.LazyFrame]], quasi_identifiers: Sequence[str]) -> pl.LazyFrame:
    """Return the rows of exports with what their classes need.

    The columns are pseudonyms, people where known, the quasi-identifiers, and whether a row is the newest version of
    its pair, as `scan_training` finds it. All rows are, unless the series follows changes.
    """
    pairs = list(exports)
    first, has_people = pairs[0][0], all(SUBJECT_HASH.name in rows.collect_schema() for _, rows in pairs)
    columns = [PSEUDONYM, *([SUBJECT_HASH.name] if has_people else []), *quasi_identifiers]
    if not first.settings.get("cursor"):
        rows = pl.concat([frame.select(*dict.fromkeys(columns)) for _, frame in pairs])
        return rows.with_columns(pl.lit(value=True).alias(IS_NEWEST))
    key = first.schema.pair_key
    occurrence = pl.int_range(pl.len()).over(key).alias(OCCURRENCE)
    frames = [
        rows.with_columns(pl.lit(int(manifest.chain["number"]), pl.Int64).alias(EXPORT), occurrence)
        for manifest, rows in pairs
    ]
    rows = pl.concat([frame.select(*dict.fromkeys([*columns, *key, EXPORT, OCCURRENCE])) for frame in frames])
    return rows.with_columns(is_newest(key).alias(IS_NEWEST))


def add_people(rows: pl.LazyFrame, owners: pl.LazyFrame | None) -> pl.LazyFrame | None:
    """Add the column `person`, null where it is not known whose an analysis is. None if no one is known."""
    if SUBJECT_HASH.name in rows.collect_schema():
        return rows.with_columns(pl.col(SUBJECT_HASH.name).fill_null(NO_USER).alias("person"))
    return None if owners is None else rows.join(owners, on=PSEUDONYM, how="left")


def count_people(rows: pl.LazyFrame, names: Sequence[str]) -> pl.LazyFrame:
    """Count the people of each equivalence class: the quasi-identifiers and `people`.

    Rows of unknown people can be those of the known ones, so they count as one person only where no one is known. A
    reader can count all versions of rows, or the newest ones only; the smaller number counts, unless it is 0.
    """
    is_known = pl.col("person").is_not_null()
    people, newest = (
        pl.col("person").filter(some).n_unique().clip(lower_bound=1)
        for some in (is_known, is_known & pl.col(IS_NEWEST))
    )
    least = pl.when(pl.col(IS_NEWEST).any()).then(pl.min_horizontal(people, newest)).otherwise(people)
    return rows.group_by(list(dict.fromkeys(names))).agg(least.alias("people"))
