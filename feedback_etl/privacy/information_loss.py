"""Information that an export loses by generalisation and suppression."""

from typing import Any

import polars as pl

from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.generalization import UNCHANGED, level, list_values, original


def measure_loss(classes: pl.DataFrame, dropped: pl.Series, policy: KAnonymityPolicy, published: int) -> dict[str, Any]:
    """Measure what was generalised, emptied and lost.

    Args:
        classes: Classes with their generalised and original values, see `generalization.generalize_classes`.
        dropped: Whether the rows of each class are suppressed.
        policy: Policy of the export.
        published: Number of equivalence classes that are published.

    Returns:
        `columns`: for each quasi-identifier, the `generalized` cells with a coarser value and those `emptied`.

        `non_uniform_entropy`: share of the information of the quasi-identifiers that is lost, 0 to 1 (Gionis and Tassa
        2009): the sum over all cells of -log2(rows with the original value / rows with any value that generalises to
        the cell's), divided by that sum with all cells emptied. Cells of suppressed rows count as emptied.

        `average_class_size`: published rows / (published classes x k), 1 at best (LeFevre et al. 2006, C_avg).
    """
    names, kept = list(dict.fromkeys(policy.quasi_identifiers)), ~dropped
    lost = possible = 0.0
    columns: dict[str, dict[str, int]] = {}
    for name in names:
        is_changed = (classes[level(name)] != UNCHANGED) & kept
        is_emptied = is_changed & classes[name].is_null()
        columns[name] = {
            "generalized": int(classes["rows"].filter(is_changed & ~is_emptied).sum()),
            "emptied": int(classes["rows"].filter(is_emptied).sum()),
        }
        cells, empty = _measure_cells(classes, dropped, name, policy)
        lost, possible = lost + cells, possible + empty
    rows = int(classes["rows"].filter(kept).sum())
    return {
        "columns": columns,
        "non_uniform_entropy": lost / possible if possible else 0.0,
        "average_class_size": rows / (published * (policy.k or 1)) if published else 0.0,
    }


def _measure_cells(
    classes: pl.DataFrame, dropped: pl.Series, name: str, policy: KAnonymityPolicy
) -> tuple[float, float]:
    """Return the bits that the cells of a column lose, and those that they would lose if all were emptied."""
    total = int(classes["rows"].sum())
    values = classes.group_by(pl.col(original(name)).alias(name)).agg(pl.col("rows").sum().alias("frequency"))
    levels = [value.cast(values.schema[name]).alias("coarse") for value in list_values(name, policy)]
    frequency = pl.col("frequency")
    frames = [
        values.with_columns(value).select(
            pl.col(name).alias(original(name)),
            pl.lit(number, pl.Int8).alias(level(name)),
            bits=(frequency.sum().over("coarse") / frequency).log(2),
            all_bits=(total / frequency).log(2),
        )
        for number, value in enumerate(levels)
    ]
    cells = classes.join(pl.concat(frames), on=[original(name), level(name)], how="left", nulls_equal=True)
    bits = pl.when(pl.lit(dropped)).then("all_bits").otherwise("bits")
    sums = cells.select((bits * pl.col("rows")).sum().alias("lost"), (pl.col("all_bits") * pl.col("rows")).sum())
    return float(sums["lost"].item()), float(sums["all_bits"].item())
