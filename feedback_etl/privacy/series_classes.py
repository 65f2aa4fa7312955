"""Equivalence classes of an incremental series, counted over the rows of all its exports.

A night has few rows, so counted alone most of its equivalence classes are too small. In a series a row is released once
k people share its class, be they in this export or in earlier ones. Until then it is pending, pseudonymised. Rows that
were pending for too long are suppressed; or they are generalised, to join released rows or other pending ones.

The people of released rows are remembered as members of their class (`series_rows`), at most as many as `ClassCounter`
counts. Members that were erased, or whose export was pruned, are no longer counted, so a class has at least the
counted people.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.errors import ValidationError
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.class_table import CLASS, IS_FIXED, ClassTable
from feedback_etl.privacy.generalization import UNCHANGED, generalize_classes, level, original
from feedback_etl.privacy.information_loss import measure_loss
from feedback_etl.privacy.k_anonymity import ClassCounter, drop_small_classes, select_classes
from feedback_etl.privacy.release_plan import IS_DROPPED, ReleasePlan, drop_violations
from feedback_etl.privacy.series_rows import PERSON, SINCE


@dataclass(frozen=True)
class PendingRows:
    """The pending rows of a series, and how long rows may be pending.

    Attributes:
        policy: Policy of the export.
        pending: Rows that were pending so far: training pairs with `PERSON` and `SINCE`.
        now: Time of the export, from which its rows are pending.
        max_pending: How long rows may be pending.
    """

    policy: KAnonymityPolicy
    pending: pl.DataFrame
    now: datetime
    max_pending: timedelta

    def select_expired(self, pending: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that were pending for too long."""
        return pending.filter(pl.col(SINCE) <= self.now - self.max_pending) if pending.height else pending

    def build_plan(
        self, release: ReleasePlan, unreleased: pl.DataFrame, *, earlier: pl.DataFrame, rows: int, released: int
    ) -> "SeriesPlan":
        """Build the plan of a release: unreleased rows that were pending for too long are suppressed.

        Args:
            release, unreleased: As in the plan.
            earlier: The pending rows that are not released.
            rows: Number of the rows that are not released, new ones too.
            released: Number of released rows.

        Raises:
            ValidationError: The policy does not allow to suppress the rows.
        """
        suppressed = self.select_expired(earlier).height if self.max_pending else rows
        _require_allowed(suppressed, released, self.policy)
        is_changed = bool(suppressed) or earlier.height < self.pending.height or rows > earlier.height
        release = release._replace(suppressed=suppressed)
        return SeriesPlan(release, unreleased, self.pending.height, rows - suppressed, is_changed=is_changed)


@dataclass(frozen=True)
class SeriesClasses(PendingRows):
    """The rows of a series whose classes are counted.

    Attributes:
        new: Classes of the new rows with digests of their people; see `ClassCounter.to_table`.
        members: People of the released classes; see `SeriesMembers`.
    """

    new: pl.DataFrame
    members: pl.DataFrame

    @property
    def names(self) -> list[str]:
        """The quasi-identifiers."""
        return list(dict.fromkeys(self.policy.quasi_identifiers))

    def create_counter(self, *, among_new: pl.DataFrame, stored: tuple[pl.DataFrame, ...]) -> ClassCounter:
        """Return a counter of classes of new rows, and of stored rows."""
        counter, types = ClassCounter(self.names, self.policy.max_counted_people), among_new.schema
        counter.merge_table(among_new)
        for rows in (rows for rows in stored if rows.height):
            counter.add(rows.cast({name: types[name] for name in self.names if name in types}), rows[PERSON])
        return counter

    def count_all(self) -> pl.DataFrame:
        """Count the rows that could be released: the quasi-identifiers, `people` of the whole series, and `rows`."""
        rows = self.create_counter(among_new=self.new, stored=(self.pending,)).classes()
        people = self.create_counter(among_new=self.new, stored=(self.pending, self.members)).classes()
        return rows.drop("people").join(people.drop("rows"), on=self.names, nulls_equal=True) if rows.height else rows

    def count_members(self) -> pl.DataFrame:
        """Count the people of the released classes; none of the rows is of this export."""
        members = self.create_counter(among_new=self.new.clear(), stored=(self.members,)).classes()
        return members.with_columns(pl.lit(0, members.schema["rows"]).alias("rows"))

    def create_table(self) -> ClassTable:
        """Return the classes that could be released and, as fixed ones, those that were released before."""
        candidates = self.create_counter(among_new=self.new, stored=(self.pending,))
        members = self.create_counter(among_new=self.new.clear(), stored=(self.members,))
        tables = [candidates.table().with_columns(pl.lit(value=False).alias(IS_FIXED))]
        if members.has_rows:
            tables.append(members.table().with_columns(pl.lit(value=True).alias(IS_FIXED)))
        return ClassTable(pl.concat(tables, how="vertical_relaxed"), self.policy, candidates.cap)


class SeriesPlan(NamedTuple):
    """What happens to the new and the pending rows of a series.

    Attributes:
        release: Classes that are not released as they are, and all released ones, with the people of the series.
        unreleased: Classes whose rows are pending, or are suppressed because they were pending for too long. In a
            series that follows changes, the keys of these rows.
        earlier: Rows that were pending before.
        pending: Rows that are pending from now on.
        is_changed: Whether rows become pending, or cease to be.
    """

    release: ReleasePlan
    unreleased: pl.DataFrame
    earlier: int
    pending: int
    is_changed: bool

    @property
    def counts(self) -> dict[str, int]:
        """What to add to the counts of a report, in which all new rows are exported."""
        suppressed = self.release.suppressed
        return {
            "total_feedback_records": self.earlier,
            "exported_records": self.earlier - self.pending - suppressed,
            "suppressed_records": suppressed,
            "pending_records": self.pending,
        }


def plan_series_release(series: SeriesClasses) -> SeriesPlan:
    """Plan which rows of a series are released.

    Raises:
        ValidationError: Rows were pending for too long, and the policy does not allow to suppress them.
    """
    policy, names = series.policy, series.names
    classes = series.count_all()
    is_small = pl.col("people") < (policy.k or 0)
    unreleased, released = classes.filter(is_small), classes.filter(~is_small)
    changes, measures = unreleased, dict[str, Any](scope="series")
    if policy.generalizes:
        generalized = _generalize_expired(series, unreleased)
        changes = generalized.select(*names, *map(original, names), IS_DROPPED)
        coarser = generalized.filter(~pl.col(IS_DROPPED))
        changed = generalized.select(pl.col(original(name)).alias(name) for name in names)
        released = drop_small_classes(released, changed, names)
        if released.height or coarser.height:
            measures["generalization"] = _measure_loss(released, coarser, policy)
        dropped = generalized.filter(IS_DROPPED)
        unreleased = dropped.select(*(pl.col(original(name)).alias(name) for name in names), "rows")
        released = _unite(released, coarser, names)
    earlier = select_classes(series.pending, unreleased, names)
    all_released = _unite(released, series.count_members(), names) if released.height else released
    release, rows = ReleasePlan(changes, all_released, 0, measures), int(unreleased["rows"].sum())
    return series.build_plan(release, unreleased, earlier=earlier, rows=rows, released=int(released["rows"].sum()))


def _generalize_expired(series: SeriesClasses, small: pl.DataFrame) -> pl.DataFrame:
    """Generalise small classes, and release those with a row that was pending for too long.

    They join classes that are released now or were released before, and each other. Other small classes are released
    with them only where k needs their people. The smallest class that is released now can be generalised as well, if
    no other class absorbs them. People of rows that stay pending do not count, so k holds whatever is released later.

    Returns:
        The small classes and those that are generalised with them: the quasi-identifiers as they are released, the
        original ones and their levels, `rows`, `people` of the class that they join, and `IS_DROPPED` for those that
        are not released.
    """
    names = series.names
    expired = series.select_expired(select_classes(series.pending, small, names))
    if small.is_empty() or (expired.is_empty() and series.max_pending):
        return _mark_unchanged(small, names).with_columns(pl.lit(value=True).alias(IS_DROPPED))
    table = series.create_table()
    small_ids = table.classes.filter(table.find_violations(table.classes))[CLASS]
    is_small = pl.col(CLASS).is_in(small_ids.implode())
    classes = generalize_classes(table, series.policy)
    kept = drop_violations(table, classes)
    if series.max_pending:
        originals = expired.select(pl.col(name).alias(original(name)) for name in names).unique()
        ids = kept.join(originals, on=originals.columns, how="semi", nulls_equal=True)[CLASS]
        kept = _select_needed(table, kept, pl.col(CLASS).is_in(ids.implode()) & ~pl.col(IS_FIXED), is_small)
    people = table.count_people(kept).drop("rows")
    is_kept = pl.col(CLASS).is_in(kept[CLASS].implode())
    is_same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(original(name))) for name in names)
    changed = classes.filter(~pl.col(IS_FIXED) & (is_small | (is_kept & ~is_same)))
    return changed.with_columns((~is_kept).alias(IS_DROPPED)).join(people, on=names, how="left", nulls_equal=True)


def _select_needed(table: ClassTable, kept: pl.DataFrame, is_expired: pl.Expr, is_small: pl.Expr) -> pl.DataFrame:
    """Return the classes that form one with an expired class; of other small ones, those that k needs."""
    joined = kept.join(kept.filter(is_expired).select(table.names).unique(), on=table.names, nulls_equal=True)
    others, rest = joined.filter(is_small & ~is_expired), joined.filter(is_expired | ~is_small)
    violates = rest.filter(table.find_violations(rest)).select(table.names).unique()
    return pl.concat([rest, others.join(violates, on=table.names, how="semi", nulls_equal=True)])


def _mark_unchanged(classes: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return classes with their values as the original ones, as `generalize_classes` does."""
    originals = [pl.col(name).alias(original(name)) for name in names]
    return classes.with_columns(*originals, *(pl.lit(UNCHANGED, pl.Int8).alias(level(name)) for name in names))


def _measure_loss(released: pl.DataFrame, coarser: pl.DataFrame, policy: KAnonymityPolicy) -> dict[str, Any]:
    """Measure what the rows of this export lose."""
    names = list(dict.fromkeys(policy.quasi_identifiers))
    columns = [*names, "rows", *map(original, names), *map(level, names)]
    classes = pl.concat(
        [_mark_unchanged(released, names).select(columns), coarser.select(columns)], how="vertical_relaxed"
    )
    nothing = pl.repeat(value=False, n=classes.height, eager=True)
    return measure_loss(classes, nothing, policy, classes.select(names).n_unique())


def _unite(classes: pl.DataFrame, others: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return the classes of two frames, whose people may be the same."""
    frames = [frame.select(*names, "people", "rows") for frame in (classes, others)]
    people = pl.col("people").max()
    return pl.concat(frames, how="vertical_relaxed").group_by(names).agg(people, pl.col("rows").sum())


def _require_allowed(suppressed: int, released: int, policy: KAnonymityPolicy) -> None:
    """Refuse to suppress rows that were pending for too long, unless the policy allows it."""
    limit = "`on_small_class` is fail" if policy.on_small_class == "fail" else ""
    if suppressed > policy.max_suppressed * (suppressed + released):
        limit = f"`max_suppressed` allows {policy.max_suppressed:.10g}"
    if suppressed and limit:
        names = ", ".join(policy.quasi_identifiers)
        raise ValidationError(
            f"Nothing was exported: --max-pending has passed for {pluralize(suppressed, 'row')} of fewer than "
            f"{policy.k} people with equal {names}, and {limit}. Raise --max-pending, or allow suppression with "
            "`on_small_class` and `max_suppressed`."
        )
