"""l-diversity and t-closeness: the values of a sensitive column within each equivalence class.

Frames of answers have the columns `class` and `value`, one row for each answer that counts.
"""

import polars as pl


def count_distinct_values(answers: pl.DataFrame) -> pl.DataFrame:
    """Count the different values of each class: the columns `class` and `distinct`.

    The answers have a third column, `person`. Only people with one value count. A person with several could be any of
    them, so an attacker who knows the others learns no more than what the people with one value leave open; a class has
    at least one value.
    """
    values = answers.unique().group_by("class", "person").agg(pl.col("value").first(), is_single=pl.len() == 1)
    distinct = pl.col("value").filter("is_single").n_unique().clip(lower_bound=1)
    return values.group_by("class").agg(distinct.alias("distinct"))


def measure_entropy(answers: pl.DataFrame) -> pl.DataFrame:
    """Measure exp(entropy) of the values of each class, with the natural logarithm: `class` and `entropy`."""
    share = pl.col("share")
    return _count_shares(answers).group_by("class").agg(entropy=(-(share * share.log()).sum()).exp())


def measure_distances(answers: pl.DataFrame, overall_answers: pl.DataFrame) -> pl.DataFrame:
    """Measure the distance of each class's distribution of values from the overall one: `class` and `distance`.

    It is the earth mover's distance, with the ordered distance for numbers, where null precedes the smallest, and the
    equal distance for all others.
    """
    shares = _count_shares(answers)
    overall = overall_answers.group_by("value").agg((pl.len() / pl.lit(overall_answers.height)).alias("overall"))
    is_ordered = answers.schema["value"].is_numeric() and overall.height > 1
    return _compute_ordered_distances(shares, overall) if is_ordered else _compute_equal_distances(shares, overall)


def _count_shares(answers: pl.DataFrame) -> pl.DataFrame:
    """Return the share of each value among the answers of a class."""
    counts = answers.group_by("class", "value").agg(pl.len().alias("count"))
    return counts.select("class", "value", (pl.col("count") / pl.col("count").sum().over("class")).alias("share"))


def _compute_equal_distances(shares: pl.DataFrame, overall: pl.DataFrame) -> pl.DataFrame:
    """Return the equal distance of each class from the table: half the sum of the absolute differences of shares."""
    joined = shares.join(overall, on="value", nulls_equal=True)
    share, overall_share = pl.col("share"), pl.col("overall")
    # Values that a class lacks are not in the join: they differ by their overall share, 1 - sum(overall) in all.
    distance = ((share - overall_share).abs() - overall_share).sum() / 2 + 0.5
    return joined.group_by("class").agg(distance.alias("distance"))


def _compute_ordered_distances(shares: pl.DataFrame, overall: pl.DataFrame) -> pl.DataFrame:
    """Return the ordered distance of each class from the table: the mean absolute difference of cumulative shares."""
    grid = shares.select(pl.col("class").unique()).join(overall, how="cross")
    dense = grid.join(shares, on=["class", "value"], how="left", nulls_equal=True).sort("value", nulls_last=False)
    distance = (pl.col("share").fill_null(0) - pl.col("overall")).cum_sum().abs().sum() / (overall.height - 1)
    return dense.group_by("class", maintain_order=True).agg(distance.alias("distance"))
