"""Versions of the rows of an incremental series that follows changes: which leave, so that all ways to read have k.

A reader of such a series can take all versions of its rows, or the newest ones only. A new version takes its person out
of the equivalence class of the version before, which can leave fewer than k people there: then it waits until that
class has k people without it, or none. All versions together have k as well, since people only join their classes.
"""

from datetime import datetime
from typing import NamedTuple

import polars as pl

from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.k_anonymity import ClassCounter, drop_small_classes, select_classes
from feedback_etl.privacy.release_plan import ReleasePlan
from feedback_etl.privacy.remaining_classes import IS_NEWEST, count_people
from feedback_etl.privacy.series_classes import SeriesPlan, require_allowed
from feedback_etl.privacy.series_rows import EXPORT, PERSON, SINCE, is_newest, version


class SeriesVersions(NamedTuple):
    """The versions of the rows of a series.

    Attributes:
        policy: Policy of the export; it does not generalise.
        key: Columns that are equal in all versions of a row; rows of an export that are equal there have one fate.
        candidates: Rows that could leave, in the order of the file, with `PERSON` and what distinguishes versions.
        pending: Those of them that have waited so far, with `SINCE`.
        members: All versions that have left; see `SeriesMembers`. A frame without columns if there are none.
        number: Number of the export.
        expired: Time since which rows may wait.
    """

    policy: KAnonymityPolicy
    key: list[str]
    candidates: pl.DataFrame
    pending: pl.DataFrame
    members: pl.DataFrame
    number: int
    expired: datetime

    @property
    def names(self) -> list[str]:
        """The quasi-identifiers."""
        return list(dict.fromkeys(self.policy.quasi_identifiers))

    def add_members(self, leaving: pl.DataFrame) -> pl.DataFrame:
        """Return all versions that have left once these have."""
        members = self.members.select(leaving.columns) if self.members.width else leaving.clear()
        return pl.concat([members, leaving], how="vertical_relaxed")


def mark_versions(rows: pl.DataFrame, key: list[str], number: int) -> pl.DataFrame:
    """Return rows that could leave with what distinguishes their versions; a frame without columns stays one."""
    return rows.with_columns(version(key, number)) if rows.width else rows


def plan_versions(series: SeriesVersions) -> SeriesPlan:
    """Plan which versions of rows leave; the others wait, by their `key`.

    Raises:
        ValidationError: Rows have waited for too long, and the policy does not allow to suppress them.
    """
    none = ClassCounter(series.names).classes()
    if series.candidates.is_empty():
        return SeriesPlan(ReleasePlan(none, none, 0, {"scope": "series"}), none, 0, 0, is_changed=False)
    held = _hold(series)
    leaving = drop_small_classes(series.candidates, held, series.key)
    earlier = select_classes(series.pending, held, series.key)
    waits = series.candidates.height - leaving.height
    suppressed = earlier.filter(pl.col(SINCE) <= series.expired).height if earlier.height else 0
    require_allowed(suppressed, leaving.height, series.policy)
    classes = _count_classes(series, leaving) if leaving.height else none
    return SeriesPlan(
        ReleasePlan(none, classes, suppressed, {"scope": "series"}),
        held,
        series.pending.height,
        waits - suppressed,
        is_changed=bool(suppressed) or earlier.height < series.pending.height or waits > earlier.height,
    )


def _hold(series: SeriesVersions) -> pl.DataFrame:
    """Return the keys of the rows that have to wait.

    Where a class of newest versions would be too small, those wait that would leave it; if there are none, those that
    would join it. At worst, no version changes.
    """
    names, key, k = series.names, series.key, series.policy.k or 0
    older = series.add_members(series.candidates.clear()).filter(is_newest(key))
    held = series.candidates.select(key).clear()
    while True:
        leaving = drop_small_classes(series.candidates, held, key)
        rows = pl.concat([older, leaving], how="vertical_relaxed").with_columns(is_newest(key).alias(IS_NEWEST))
        people = rows.filter(IS_NEWEST).group_by(names).agg(pl.col(PERSON).n_unique().alias("people"))
        small = people.filter(pl.col("people") < k)
        moved = select_classes(rows.filter(~pl.col(IS_NEWEST)), small, names)
        moved = drop_small_classes(moved, leaving.unique([*key, *names]), [*key, *names])
        joined = select_classes(leaving, drop_small_classes(small, moved.select(names).unique(), names), names)
        waiting = pl.concat([moved.select(key), joined.select(key)]).unique()
        if waiting.is_empty():
            return held
        held = pl.concat([held, waiting])


def _count_classes(series: SeriesVersions, leaving: pl.DataFrame) -> pl.DataFrame:
    """Count the people of each class, in all versions or in the newest ones, and its rows of this export."""
    rows = series.add_members(leaving).with_columns(is_newest(series.key).alias(IS_NEWEST))
    people = count_people(rows.lazy().rename({PERSON: "person"}), series.names).collect()
    counts = rows.group_by(series.names).agg((pl.col(EXPORT) == series.number).sum().cast(pl.Int64).alias("rows"))
    return people.with_columns(pl.col("people").cast(pl.Int64)).join(counts, on=series.names, nulls_equal=True)
