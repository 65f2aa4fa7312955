"""Re-identification risk of a table: k-anonymity, l-diversity, t-closeness and prosecutor risk.

Rows with equal quasi-identifiers form an equivalence class. `Risk` defines each measure and names its source.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.privacy.diversity import measure_distances, measure_entropy
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.transform.dataframes import Frame, require_columns, to_polars

SMALL_CLASS = 5
"""Equivalence classes of fewer people are reported as small."""

_SIZE, _ROWS, _PROFILE = "class size", "class rows", "linked profile"


@dataclass
class Risk:
    """Re-identification risk of a table.

    The size of an equivalence class is its number of different people, or of rows if no column identifies the person;
    all rows without a person count as one. A person with rows in several classes counts in each of them, and so several
    times in sums of sizes. Null is a value of its own everywhere.

    Attributes:
        rows: Rows of the table.
        classes: Equivalence classes: different combinations of quasi-identifiers.
        k: Size of the smallest class (k-anonymity; Samarati 2001, Sweeney 2002); 0 for an empty table.
        average_risk: Average prosecutor risk: classes divided by the sum of their sizes (El Emam and Dankar 2008).
            Without persons, classes / rows.
        highest_risk: Highest prosecutor risk, 1 / k.
        share_unique: Share of rows in classes of size 1.
        small_rows: Rows in classes smaller than 5.
        small_people: Sum of the sizes of these classes: an upper bound of the number of people in them, since a person
            can be in several.
        discernibility: Sum of the squared row counts of the classes (Bayardo and Agrawal 2005).
        distinct_l: For each sensitive column, the minimum number of different values in a class (distinct l-diversity;
            Machanavajjhala et al. 2007).
        homogeneous_classes: For each sensitive column, the number of classes in which it has a single value, so that
            anyone who knows the class of a person knows the value (the homogeneity attack; ibid.).
        entropy_l: For each sensitive column, the minimum exp(entropy) of a class, with the natural logarithm (entropy
            l-diversity; ibid.).
        t: For each sensitive column, the maximum distance between the distribution in a class and that in the table
            (t-closeness; Li et al. 2007): the earth mover's distance, with the ordered distance for numbers, where null
            precedes the smallest, and the equal distance for all others.
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
    homogeneous_classes: dict[str, int] = field(default_factory=dict)
    entropy_l: dict[str, float] = field(default_factory=dict)
    t: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all measures as JSON values."""
        return asdict(self)


class JournalistRisk(NamedTuple):
    """Risk of a table for people whom an attacker does not know to be in it.

    Attributes:
        highest: 1 / people of the smallest class in the population, among the classes of the table.
        average: Mean over the people of the table of 1 / people of their class in the population.
    """

    highest: float
    average: float


def risk(
    frame: Frame,
    *,
    quasi_identifiers: Sequence[str] = CLASSIC_SCHEMA.quasi_identifiers,
    sensitive: Sequence[str] = CLASSIC_SCHEMA.rating_names,
    person: str | None = None,
) -> Risk:
    """Measure the re-identification risk of a table.

    Args:
        frame: A Polars frame (lazy or not), a pandas frame or an Arrow table.
        quasi_identifiers: Columns that an attacker may know of a person.
        sensitive: Columns that an attacker should not learn.
        person: Column that identifies the person of a row, such as "subject_hash"; without it every row counts as a
            person.

    Raises:
        UsageError: A column does not exist, is named twice, or there is no quasi-identifier.

    >>> table = pl.DataFrame({"age": ["18-25", "18-25", None], "user": [1, 1, 2], "rating": [5, 1, 5]})
    >>> risk(table, quasi_identifiers=["age"], sensitive=["rating"]).k
    1
    >>> risk(table, quasi_identifiers=["age"], sensitive=["rating"], person="user").share_unique
    1.0
    """
    table: pl.LazyFrame = to_polars(frame).lazy()
    if isinstance(quasi_identifiers, str) or isinstance(sensitive, str):
        raise UsageError('quasi_identifiers and sensitive must be lists of columns, such as ["age_range"].')
    require_columns(table, (*quasi_identifiers, *sensitive, *([person] if person else [])))
    if not quasi_identifiers:
        raise UsageError("`quasi_identifiers` must name at least one column.")
    if both := sorted({*quasi_identifiers} & {*sensitive}):
        raise UsageError(f"{', '.join(both)} cannot be both a quasi-identifier and sensitive.")
    names = list(dict.fromkeys(quasi_identifiers))
    size = pl.len() if person is None else pl.col(person).n_unique()
    classes = table.group_by(names).agg(size.alias(_SIZE), pl.len().alias(_ROWS)).collect()
    if classes.is_empty():
        return Risk()
    result = summarize_classes(classes.get_column(_SIZE), classes.get_column(_ROWS))
    values = table.select(*names, *sensitive).collect()
    for column in sensitive:
        answers = values.select(pl.struct(names).alias("class"), pl.col(column).alias("value"))
        distinct = answers.group_by("class").agg(pl.col("value").n_unique())["value"]
        result.distinct_l[column], result.homogeneous_classes[column] = int(distinct.min()), int((distinct == 1).sum())  # type: ignore[arg-type]
        result.entropy_l[column] = float(measure_entropy(answers)["entropy"].min())  # type: ignore[arg-type]
        result.t[column] = float(measure_distances(answers, answers)["distance"].max())  # type: ignore[arg-type]
    return result


def linkage_risk(frame: Frame, quasi_identifiers: Sequence[str], *, by: str) -> Risk:
    """Measure the risk if an attacker links the rows with equal `by`, and so knows all their quasi-identifiers at once.

    Class sizes are numbers of different `by`. A person can have several of them, so k is an upper bound for people.

    Args:
        frame: A frame of any kind.
        quasi_identifiers: Columns that an attacker may know.
        by: Column whose equal values link rows, such as `analysis_hash`.

    Raises:
        UsageError: The frame lacks a column.

    >>> rows = pl.LazyFrame({"hash": ["a", "a", "b"], "age": ["18-25"] * 3, "timeframe": ["1_week", None, "1_week"]})
    >>> risk(rows, quasi_identifiers=["age"], sensitive=[], person="hash").k
    2
    >>> linkage_risk(rows, ["age", "timeframe"], by="hash").k
    1
    """
    names = list(dict.fromkeys(quasi_identifiers))
    table: pl.LazyFrame = to_polars(frame).lazy()
    require_columns(table, [by, *names])
    values = pl.concat_str([pl.col(name).cast(pl.String).fill_null("\0") for name in names], separator="\x1f")
    profile = values.unique().sort().str.join("\x1e").alias(_PROFILE)
    return risk(
        to_polars(frame).lazy().group_by(by).agg(profile), quasi_identifiers=[_PROFILE], sensitive=[], person=by
    )


def journalist_risk(
    frame: Frame, population: Frame, quasi_identifiers: Sequence[str], *, person: str | None = None
) -> JournalistRisk:
    """Measure the risk if an attacker does not know who of a population is in the table (El Emam and Dankar 2008).

    The prosecutor of `risk` knows it. A class of the population is at least as large as that of the table, and so this
    risk is at most that.

    Args:
        frame: The table, a frame of any kind.
        population: All people whom the attacker may take for those in the table, with the same quasi-identifiers in the
            same form, such as the rows of everyone at the same precision of times.
        quasi_identifiers: Columns that an attacker may know.
        person: Column that identifies the person of a row in both; without it every row counts as a person.

    Raises:
        UsageError: A column does not exist, or a class of the table is smaller in the population.

    >>> table, everyone = pl.DataFrame({"age": ["18-25", "50+"]}), pl.DataFrame({"age": ["18-25"] * 4 + ["50+"] * 2})
    >>> journalist_risk(table, everyone, ["age"])
    JournalistRisk(highest=0.5, average=0.375)
    """
    names, size = list(dict.fromkeys(quasi_identifiers)), pl.len() if person is None else pl.col(person).n_unique()
    sizes = []
    for rows in (frame, population):
        table: pl.LazyFrame = to_polars(rows).lazy()
        require_columns(table, [*names, *([person] if person else [])])
        text = [pl.col(name).cast(pl.String) for name in names]  # age ranges may be of two types
        sizes.append(table.with_columns(text).group_by(names).agg(size.alias(_SIZE)))
    joined = sizes[0].join(sizes[1], on=names, how="left", nulls_equal=True, suffix=" in population").collect()
    own, all_people = joined[_SIZE], joined[f"{_SIZE} in population"].fill_null(0)
    if (own > all_people).any():
        raise UsageError("`population` must contain all people of the frame, with the same quasi-identifiers.")
    if joined.is_empty():
        return JournalistRisk(0.0, 0.0)
    highest: Any = (1 / all_people).max()
    return JournalistRisk(float(highest), float((own / all_people).sum()) / int(own.sum()))


def summarize_classes(sizes: pl.Series, rows: pl.Series) -> Risk:
    """Return the measures that follow from the sizes and row counts of equivalence classes."""
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
