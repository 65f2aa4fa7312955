"""Versions of the rows of an incremental series that follows changes: which are released, so that all views have k.

A reader of such a series can take all versions of its rows, or the newest ones only. A new version takes its person out
of the equivalence class of the version before, which can leave fewer than k people there: then it is pending until
that class has k people without it, or none. All versions together have k as well, since people only join their classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from feedback_etl.privacy.k_anonymity import ClassCounter, drop_small_classes, select_classes
from feedback_etl.privacy.release_plan import ReleasePlan
from feedback_etl.privacy.remaining_classes import IS_NEWEST, NO_USER, count_people
from feedback_etl.privacy.series_classes import PendingRows, SeriesPlan
from feedback_etl.privacy.series_rows import EXPORT, PERSON, SeriesMembers, is_newest


@dataclass(frozen=True)
class SeriesVersions(PendingRows):
    """The versions of the rows of a series; the policy does not generalise.

    Attributes:
        members: All versions that were released.
        candidates: Pending and new rows, as `SeriesMembers.select` returns them, in the order of the file. Those of
            equal `pair_key` are released together.
    """

    members: SeriesMembers
    candidates: pl.DataFrame

    @property
    def key(self) -> Sequence[str]:
        """The columns that are equal in all versions of a row."""
        return self.members.pair_key

    @property
    def names(self) -> list[str]:
        """The quasi-identifiers."""
        return list(self.members.quasi_identifiers)


def plan_versions(series: SeriesVersions) -> SeriesPlan:
    """Plan which versions are released; the plan has the keys of the others.

    Raises:
        ValidationError: Rows are pending for too long, and the policy does not allow to suppress them.
    """
    none = ClassCounter(series.names).classes()
    if series.candidates.is_empty():
        return SeriesPlan(ReleasePlan(none, none, 0, {"scope": "series"}), none, 0, 0, is_changed=False)
    held = _hold(series)
    released = drop_small_classes(series.candidates, held, series.key)
    earlier = select_classes(series.pending, held, series.key)
    unreleased = series.candidates.height - released.height
    classes = _count_classes(series, released) if released.height else none
    release = ReleasePlan(none, classes, 0, {"scope": "series"})
    return series.build_plan(release, held, earlier=earlier, rows=unreleased, released=released.height)


def _hold(series: SeriesVersions) -> pl.DataFrame:
    """Return the keys of the rows that are not released.

    Where a class of newest versions would be too small, those are held that would leave it; if there are none, those
    that would join it. At worst, no version changes.
    """
    names, key, members = series.names, series.key, series.members
    older = members._replace(rows=members.rows.filter(is_newest(key)) if members.rows.width else members.rows)
    held, columns = series.candidates.select(key).clear(), list(dict.fromkeys([*key, *names]))
    while True:
        released = drop_small_classes(series.candidates, held, key)
        rows = _mark_newest(older.add(released), key)
        if not rows.width:
            return held
        newest = rows.filter(IS_NEWEST).group_by(names).agg(pl.col(PERSON).n_unique().alias("people"))
        small = newest.filter(pl.col("people") < (series.policy.k or 0))
        moved = select_classes(rows.filter(~pl.col(IS_NEWEST)), small, names)
        moved = drop_small_classes(moved, released.select(columns).unique(), columns)
        joined = select_classes(released, drop_small_classes(small, moved.select(names).unique(), names), names)
        pending = pl.concat([moved.select(key), joined.select(key)]).unique()
        if pending.is_empty():
            return held
        held = pl.concat([held, pending])


def _mark_newest(members: SeriesMembers, key: Sequence[str]) -> pl.DataFrame:
    return members.rows.with_columns(is_newest(key).alias(IS_NEWEST)) if members.rows.width else members.rows


def _count_classes(series: SeriesVersions, released: pl.DataFrame) -> pl.DataFrame:
    """Count the people of each class, in all versions or in the newest ones, and its rows of this export."""
    rows = _mark_newest(series.members.add(released), series.key)
    people = count_people(
        rows.lazy().with_columns(pl.col(PERSON).fill_null(NO_USER).alias("person")), series.names
    ).collect()
    is_new = pl.col(EXPORT) == series.members.number
    counts = rows.group_by(series.names).agg(is_new.sum().cast(pl.Int64).alias("rows"))
    return people.with_columns(pl.col("people").cast(pl.Int64)).join(counts, on=series.names, nulls_equal=True)
