"""Decide which rows of an export are published unchanged, generalised or suppressed, from its class table alone."""

from typing import Any, NamedTuple

import polars as pl

from feedback_etl.errors import ValidationError
from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.class_table import CLASS, ClassTable
from feedback_etl.privacy.generalization import generalize_classes, original
from feedback_etl.privacy.information_loss import measure_loss
from feedback_etl.privacy.k_anonymity import ClassCounter, drop_small_classes, summarize
from feedback_etl.schema.classic import is_classic
from feedback_etl.schema.model import TIME
from feedback_etl.transform.age_hierarchy import all_age_ranges

IS_DROPPED = "is dropped"


class ReleasePlan(NamedTuple):
    """What happens to the rows of an export.

    Attributes:
        changes: Equivalence classes that are not published as they are, by quasi-identifiers. With generalised ones,
            the column "is dropped", and for each quasi-identifier "original NAME", where NAME is the published value.
        classes: Published classes: the quasi-identifiers, `people` and `rows`.
        suppressed: Number of suppressed rows.
        measures: Further measures for the report: `generalization` and `diversity`, if there are any.
    """

    changes: pl.DataFrame
    classes: pl.DataFrame
    suppressed: int
    measures: dict[str, Any]

    def summarize(self, policy: KAnonymityPolicy) -> dict[str, Any]:
        """Summarize the published classes for the report and the manifest."""
        return summarize(self.classes, policy, policy.max_counted_people) | self.measures


def plan_release(counter: ClassCounter, policy: KAnonymityPolicy) -> ReleasePlan:
    """Plan the release of counted rows.

    Raises:
        ValidationError: The policy does not allow small classes, or so many suppressed rows or emptied values; or no
            row would remain, or no value of a column.
    """
    plan = _plan(counter, policy)
    rows = plan.suppressed + int(plan.classes["rows"].sum())
    if violation := policy.violation(plan.suppressed, rows):
        raise ValidationError(
            f"Nothing was exported: {plan.suppressed:,} of {rows:,} rows belong to equivalence classes of fewer than "
            f"{policy.k} people with equal {', '.join(policy.quasi_identifiers)}{policy.describe_diversity()}, and "
            f"{violation}. Set fewer quasi_identifiers{_list_coarser(policy)} to make classes larger"
            f"{'' if policy.generalizes else ', or give `on_small_class` the value generalize'}."
        )
    _require_values(plan, rows, policy)
    return plan


def _require_values(plan: ReleasePlan, rows: int, policy: KAnonymityPolicy) -> None:
    """Refuse to empty a column for l or t, or more of its values than rows may be suppressed (which count, too)."""
    for name, cells in plan.measures.get("generalization", {}).get("columns", {}).items():
        lost = cells["emptied"] + plan.suppressed
        if not cells["emptied"]:
            continue
        is_empty = bool(policy.measured_columns) and name in plan.measures["generalization"]["empty_columns"]
        reason = "no value would be left" if is_empty else ""
        if lost > policy.max_suppressed * rows:
            reason = f"`max_suppressed` allows {policy.max_suppressed:.10g}"
        if reason:
            raise ValidationError(
                f"Nothing was exported: {lost:,} of {rows:,} values of {name} would be emptied or suppressed, so that "
                f"no equivalence class is left with fewer than {policy.k} people{policy.describe_diversity()}, and "
                f"{reason}. Export more rows, {_list_limits(policy, is_empty=is_empty)}."
            )


def _list_limits(policy: KAnonymityPolicy, *, is_empty: bool) -> str:
    """Return how the limits empty fewer values; all values of a column may be emptied with any `max_suppressed`."""
    raised = ["`t`"] * (policy.t is not None) + ["`max_suppressed`"] * (not is_empty)
    lowered = " or ".join(["`k`"] + ["`l`"] * (policy.l is not None))
    return f"lower {lowered}, or raise {' or '.join(raised)}" if raised else f"or lower {lowered}"


def _list_coarser(policy: KAnonymityPolicy) -> str:
    """Return the other settings that make classes larger."""
    ages = " or age_edges" if is_classic(policy.schema) else ""
    return ages + (" or a coarser `timestamp_precision`" if TIME in policy.quasi_identifiers else "")


def _plan(counter: ClassCounter, policy: KAnonymityPolicy) -> ReleasePlan:
    if not counter.has_rows or not (policy.generalizes or policy.measured_columns):
        classes = counter.classes()
        is_small = pl.col("people") < (policy.k or 0)
        small = classes.filter(is_small)
        return ReleasePlan(small, classes.filter(~is_small), int(small["rows"].sum()), {})
    table = ClassTable(counter.table(), policy, counter.cap)
    if not policy.generalizes:
        kept = drop_violations(table, table.classes)
        small = table.classes.join(kept, on=CLASS, how="anti")
        return ReleasePlan(small, table.count_people(kept), int(small["rows"].sum()), _measure_diversity(table, kept))
    classes = generalize_classes(table, policy)
    kept = drop_violations(table, classes)
    dropped, published = ~classes[CLASS].is_in(kept[CLASS].implode()), table.count_people(kept)
    loss = measure_loss(classes, dropped, policy, published.height)
    emptied = (name for name, cells in loss["columns"].items() if cells["emptied"])
    loss["empty_columns"] = [name for name in emptied if published[name].is_null().all()]
    is_same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(original(name))) for name in table.names)
    changes = classes.select(*table.names, *map(original, table.names), dropped.alias(IS_DROPPED))
    measures = {"generalization": loss} | _measure_diversity(table, kept)
    suppressed = int(classes["rows"].filter(dropped).sum())
    return ReleasePlan(changes.filter(pl.col(IS_DROPPED) | ~is_same), published, suppressed, measures)


def drop_violations(table: ClassTable, classes: pl.DataFrame) -> pl.DataFrame:
    """Return the classes that satisfy the requirements; without some, the distribution for t is another."""
    while (is_wrong := table.find_violations(classes)).any():
        classes = classes.filter(~is_wrong)
    return classes


def _measure_diversity(table: ClassTable, kept: pl.DataFrame) -> dict[str, Any]:
    diversity = table.measure_diversity(kept)
    return {"diversity": diversity} if diversity else {}


def apply_changes(pairs: pl.DataFrame, changes: pl.DataFrame, policy: KAnonymityPolicy) -> pl.DataFrame:
    """Return the rows as they are published, in their order; null equals null.

    If the policy generalises, age ranges are of the dtype `all_age_ranges`, unless the application names them itself.
    """
    names = list(dict.fromkeys(policy.quasi_identifiers))
    if not policy.generalizes:
        return drop_small_classes(pairs, changes, names)
    if "age_range" in pairs.columns and not policy.has_own_ages:
        pairs = pairs.with_columns(pl.col("age_range").cast(pl.String).cast(all_age_ranges(policy.schema.age_edges)))
    if changes.is_empty():
        return pairs
    originals = [pl.col(original(name)).cast(pairs.schema[name]) for name in names]
    published = [pl.col(name).cast(pairs.schema[name]).alias(f"published {name}") for name in names]
    joined = pairs.join(
        changes.select(*originals, *published, IS_DROPPED),
        left_on=names,
        right_on=[original(name) for name in names],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    is_changed = pl.col(IS_DROPPED).is_not_null()
    values = [pl.when(is_changed).then(f"published {name}").otherwise(name).alias(name) for name in names]
    return joined.filter(~pl.col(IS_DROPPED).fill_null(value=False)).with_columns(values).select(pairs.columns)
