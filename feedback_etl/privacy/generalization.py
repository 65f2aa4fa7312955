"""Generalise the quasi-identifiers of small equivalence classes until they join classes that are large enough.

Local recoding: only classes that violate a requirement change. Coarser values come first, those of the least important
column (the last one) before those of the others; classes that are still too small are emptied in the same order. Those
that remain are merged with one large class, or suppressed.
"""

from collections.abc import Iterator

import polars as pl

from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.class_table import CLASS, IS_FIXED, ClassTable
from feedback_etl.privacy.hierarchies import list_levels

UNCHANGED = 0
"""Level of a value that is not generalised; the coarser ones follow from 1 on, and the last is that of no value."""


def original(name: str) -> str:
    """Return the name of the column with the original values of a quasi-identifier."""
    return f"original {name}"


def level(name: str) -> str:
    """Return the name of the column with the level to which a quasi-identifier was generalised."""
    return f"level of {name}"


def generalize_classes(table: ClassTable, policy: KAnonymityPolicy) -> pl.DataFrame:
    """Return the classes of a table with generalised values, the original ones, and the level of each.

    Classes that satisfy the requirements keep their values, as far as nothing else would be dropped for it. The result
    depends on the classes only, not on their order.
    """
    names = table.names
    originals = [pl.col(name).alias(original(name)) for name in names]
    levels = [pl.lit(UNCHANGED, pl.Int8).alias(level(name)) for name in names]
    current, coarsest = table.classes.with_columns(*originals, *levels), list_coarsest(policy)
    for name, number, value in _list_steps(policy):
        is_small = table.find_violations(current)
        if not is_small.any():
            return current
        current = _replace(current, is_small, {name: (number, value)})
    return _join_rest(table, current, coarsest)


def list_values(name: str, policy: KAnonymityPolicy) -> list[pl.Expr]:
    """Return the values of a quasi-identifier by level, from the original ones on; the last is null, where allowed."""
    levels = list_levels(
        name,
        hierarchies=policy.hierarchies,
        precision=policy.timestamp_precision,
        schema=policy.schema,
    )
    return [pl.col(name), *levels, *([] if name in policy.schema.never_null else [pl.lit(None)])]


def list_coarsest(policy: KAnonymityPolicy) -> dict[str, tuple[int, pl.Expr]]:
    """Return the last level of each quasi-identifier with its values."""
    values = {name: list_values(name, policy) for name in dict.fromkeys(policy.quasi_identifiers)}
    return {name: (len(levels) - 1, levels[-1]) for name, levels in values.items()}


def _list_steps(policy: KAnonymityPolicy) -> Iterator[tuple[str, int, pl.Expr]]:
    """Yield column, level and values of each step: first all coarser values, then none."""
    coarsest = list_coarsest(policy)
    names = [*reversed(coarsest)]
    for name in names:
        numbered = [*enumerate(list_values(name, policy))][1:]
        emptied = None if name in policy.schema.never_null else coarsest[name][0]
        yield from ((name, number, value) for number, value in numbered if number != emptied)
    yield from ((name, *coarsest[name]) for name in names if name not in policy.schema.never_null)


def _replace(classes: pl.DataFrame, chosen: pl.Series, values: dict[str, tuple[int, pl.Expr]]) -> pl.DataFrame:
    """Generalise the original values of the chosen classes to a level."""
    is_chosen = pl.lit(chosen)
    coarser = classes.select(original(name) for name in values).rename(lambda name: name.removeprefix(original("")))
    coarser = coarser.select(value.cast(coarser.schema[name]).alias(name) for name, (_, value) in values.items())
    columns = [pl.when(is_chosen).then(pl.lit(coarser[name])).otherwise(name).alias(name) for name in values]
    is_changed = {name: pl.lit(coarser[name]).ne_missing(pl.col(original(name))) for name in values}
    numbers = {
        name: pl.when(is_changed[name]).then(number).otherwise(UNCHANGED) for name, (number, _) in values.items()
    }
    levels = [
        pl.when(is_chosen).then(number.cast(pl.Int8)).otherwise(level(name)).alias(level(name))
        for name, number in numbers.items()
    ]
    return classes.with_columns(*columns, *levels)


def _join_rest(table: ClassTable, classes: pl.DataFrame, coarsest: dict[str, tuple[int, pl.Expr]]) -> pl.DataFrame:
    """Generalise, for classes that are still too small, the smallest large class that can then take them in."""
    is_small = table.find_violations(classes)
    if not is_small.any():
        return classes
    top = _replace(classes, pl.repeat(value=True, n=classes.height, eager=True), coarsest).select(table.names)
    numbers = top.unique().with_row_index("top")
    tops = top.join(numbers, on=table.names, nulls_equal=True, how="left", maintain_order="left")["top"]
    numbered = classes.with_columns(tops, is_small.alias("is small"))
    groups = (
        numbered.filter(~pl.col("is small"))
        .group_by(table.names)
        .agg(
            pl.col("rows").sum(),
            pl.col("top").first(),
            pl.col("top").n_unique().alias("tops"),
            pl.col(IS_FIXED).any(),
            CLASS,
        )
    )
    needed = numbered.filter("is small").select("top").unique()
    candidates = groups.filter((pl.col("tops") == 1) & ~pl.col(IS_FIXED)).join(needed, on="top", how="semi")
    smallest = candidates.sort("rows", *table.names).unique("top", keep="first", maintain_order=True)
    chosen = smallest.explode(CLASS)[CLASS].implode()
    joined = _replace(classes, classes[CLASS].is_in(chosen), coarsest)
    failed = tops.is_in(tops.filter(table.find_violations(joined)).implode())
    return _replace(classes, classes[CLASS].is_in(chosen) & ~failed, coarsest)
