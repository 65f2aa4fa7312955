"""How easily people are found again in a table: k-anonymity, l-diversity, t-closeness and what follows from them.

Rows with equal quasi-identifiers are a class: whoever knows those of a person finds the class, and no more. What each
figure means, and whose it is, stands in `Risk`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from feedback_etl.columns import QUASI_IDENTIFIERS, RATING_FIELDS
from feedback_etl.errors import UsageError
from feedback_etl.transform.dataframes import Frame, require_columns, to_polars

SMALL_CLASS = 5
"""Classes of fewer people are reported as small."""

_SIZE, _ROWS, _PROFILE = "people of the class", "rows of the class", "what is known together"


@dataclass
class Risk:
    """The figures of a table.

    A class's size is its number of different persons, or of rows where no column tells the person; all rows without a
    person count as one. Somebody with rows in several classes counts in each of them, and so several times in sums of
    sizes. Null is a value of its own everywhere.

    Attributes:
        rows: Of the table.
        classes: Different combinations of quasi-identifiers.
        k: The size of the smallest class (Samarati 2001; Sweeney 2002, k-anonymity); 0 for an empty table.
        average_risk: Classes divided by the sum of their sizes: the chance to pick the right one of a class, averaged
            over all (prosecutor risk; El Emam and Dankar 2008). Without persons, classes / rows.
        highest_risk: 1 / k.
        share_unique: The share of rows in classes of size 1.
        small_rows: Rows in classes of a size under 5.
        small_people: The sum of these sizes: not a number of different people, since somebody can be in several such
            classes; there are at most so many.
        discernibility: The sum of the squares of the classes' rows (Bayardo and Agrawal 2005).
        distinct_l: For each sensitive column, the least number of different values in a class (Machanavajjhala et
            al. 2007, l-diversity).
        entropy_l: The least exp(entropy) of a class, with the natural logarithm: the l of entropy l-diversity (ibid.).
        t: The greatest distance between the distribution in a class and that in the table (Li et al. 2007,
            t-closeness): the earth mover's distance, with the ordered distance for numbers, where null comes before
            the least, and the equal distance for all else.
    """

    rows: int = 0
    classes: int = 0
    k: int = 0
    average_risk: float = 0.0
    highest_risk: float = 0.0
    share_unique: float = 0.0
    small_rows: int = 0
    small_people: int = 0
    discernibility: int = 0
    distinct_l: dict[str, int] = field(default_factory=dict)
    entropy_l: dict[str, float] = field(default_factory=dict)
    t: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All figures as values that JSON can hold."""
        return asdict(self)


def risk(
    frame: Frame,
    *,
    quasi_identifiers: Sequence[str] = QUASI_IDENTIFIERS,
    sensitive: Sequence[str] = RATING_FIELDS,
    person: str | None = None,
) -> Risk:
    """Measure how easily people are found again in a table.

    Args:
        frame: The table: of Polars (lazy or not) or pandas, or an Arrow table.
        quasi_identifiers: What somebody may know of a person.
        sensitive: What nobody should learn of one.
        person: The column that tells who a row is of, such as "subject_hash"; without it every row counts as a person.

    Raises:
        UsageError: There is no such column, or no quasi-identifier.

    >>> table = pl.DataFrame({"age": ["18-25", "18-25", None], "user": [1, 1, 2], "rating": [5, 1, 5]})
    >>> risk(table, quasi_identifiers=["age"], sensitive=["rating"]).k
    1
    >>> risk(table, quasi_identifiers=["age"], sensitive=["rating"], person="user").share_unique
    1.0
    """
    table: pl.LazyFrame = to_polars(frame).lazy()
    if isinstance(quasi_identifiers, str) or isinstance(sensitive, str):
        raise UsageError('quasi_identifiers and sensitive are lists of columns, such as ["age_range"].')
    require_columns(table, (*quasi_identifiers, *sensitive, *([person] if person else [])))
    if not quasi_identifiers:
        raise UsageError("Name at least one quasi-identifier.")
    if both := sorted({*quasi_identifiers} & {*sensitive}):
        raise UsageError(f"{', '.join(both)} cannot be a quasi-identifier and sensitive at once.")
    keys = list(dict.fromkeys(quasi_identifiers))
    size = pl.len() if person is None else pl.col(person).n_unique()
    classes = table.group_by(keys).agg(size.alias(_SIZE), pl.len().alias(_ROWS)).collect()
    if classes.is_empty():
        return Risk()
    found = summarize_classes(classes.get_column(_SIZE), classes.get_column(_ROWS))
    whole = table.select(*keys, *sensitive).collect()
    for name in sensitive:
        found.distinct_l[name], found.entropy_l[name], found.t[name] = _diversity(whole, keys, name)
    return found


def linkage_risk(frame: pl.LazyFrame, quasi_identifiers: Sequence[str], *, by: str) -> Risk:
    """The risk where rows with equal `by` are known to belong together: then all that they tell is known at once.

    Sizes are numbers of different `by`, of which a person can have several: k is that of people at most.

    >>> rows = pl.LazyFrame({"hash": ["a", "a", "b"], "age": ["18-25"] * 3, "timeframe": ["1_week", None, "1_week"]})
    >>> risk(rows, quasi_identifiers=["age"], sensitive=[], person="hash").k
    2
    >>> linkage_risk(rows, ["age", "timeframe"], by="hash").k
    1
    """
    names = list(dict.fromkeys(quasi_identifiers))
    told = pl.concat_str([pl.col(name).cast(pl.String).fill_null("\0") for name in names], separator="\x1f")
    profile = told.unique().sort().str.join("\x1e").alias(_PROFILE)
    return risk(frame.group_by(by).agg(profile), quasi_identifiers=[_PROFILE], sensitive=[], person=by)


def summarize_classes(sizes: pl.Series, rows: pl.Series) -> Risk:
    """The figures that follow from the sizes of the classes, and from their numbers of rows."""
    k, small = int(sizes.min() or 0), sizes < SMALL_CLASS  # type: ignore[arg-type]
    return Risk(
        rows=int(rows.sum()),
        classes=len(sizes),
        k=k,
        average_risk=len(sizes) / int(sizes.sum()) if k else 0.0,
        highest_risk=1 / k if k else 0.0,
        share_unique=int(rows.filter(sizes == 1).sum()) / int(rows.sum()) if k else 0.0,
        small_rows=int(rows.filter(small).sum()),
        small_people=int(sizes.filter(small).sum()),
        discernibility=int((rows.cast(pl.Int64) ** 2).sum()),
    )


def _diversity(table: pl.DataFrame, keys: list[str], name: str) -> tuple[int, float, float]:
    """The least distinct l, the least entropy l, and t, of a sensitive column."""
    share = pl.col("share")
    values = table.select(pl.struct(keys).alias("class"), pl.col(name).alias("value"))
    counts = values.group_by("class", "value").agg(pl.len().alias("count"))
    shares = counts.select("class", "value", (pl.col("count") / pl.col("count").sum().over("class")).alias("share"))
    overall = values.group_by("value").agg((pl.len() / pl.lit(values.height)).alias("overall"))
    of_class = shares.group_by("class").agg(distinct=pl.len(), entropy=(-(share * share.log()).sum()).exp())
    ordered = table.schema[name].is_numeric() and overall.height > 1
    distances = _ordered_distances(shares, overall) if ordered else _equal_distances(shares, overall)
    distinct, entropy = of_class.select(pl.col("distinct").min(), pl.col("entropy").min()).row(0)
    return int(distinct), float(entropy), float(distances.max())  # type: ignore[arg-type]


def _equal_distances(shares: pl.DataFrame, overall: pl.DataFrame) -> pl.Series:
    """For each class, half the sum of the differences; what is not in the class differs by its share of the table."""
    both = shares.join(overall, on="value", nulls_equal=True)
    here, everywhere = pl.col("share"), pl.col("overall")
    return both.group_by("class").agg(((here - everywhere).abs() - everywhere).sum())["share"] / 2 + 0.5


def _ordered_distances(shares: pl.DataFrame, overall: pl.DataFrame) -> pl.Series:
    """For each class, what has to be moved from each value to the next, of so many steps."""
    every = shares.select(pl.col("class").unique()).join(overall, how="cross")
    spread = every.join(shares, on=["class", "value"], how="left", nulls_equal=True).sort("value", nulls_last=False)
    moved = (pl.col("share").fill_null(0) - pl.col("overall")).cum_sum().abs().sum() / (overall.height - 1)
    return spread.group_by("class", maintain_order=True).agg(moved)["share"]
