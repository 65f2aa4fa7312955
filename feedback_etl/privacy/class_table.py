"""Equivalence classes with their people, and the requirements k, l and t that published classes must satisfy."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.privacy.anonymity_policy import KAnonymityPolicy
from feedback_etl.privacy.diversity import count_distinct_values, measure_distances
from feedback_etl.privacy.k_anonymity import IS_FULL

CLASS, IS_FIXED = "class id", "is fixed"
"""Columns of the number of a class, and of whether its rows were published before. No column of an export has a blank
in its name."""

_PERSON, _GROUP = "a person", "joined class"

_TOLERANCE = 1e-9
"""Distances are sums of floats: one that exceeds t by less is equal to it."""


class ClassTable:
    """The equivalence classes of an export before anything is suppressed or generalised.

    Attributes:
        names: Quasi-identifiers.
        classes: The classes: `CLASS`, the quasi-identifiers (labels of ages as text) and `rows`.

    Args:
        counted: People and rows by quasi-identifiers and, for l and t, sensitive columns; see `ClassCounter.table`.
            Those with `IS_FIXED` are classes of their own, which stay as they are.
        policy: Policy with the requirements.
        cap: Number of people up to which a class was counted; see `ClassCounter.cap`.
    """

    def __init__(self, counted: pl.DataFrame, policy: KAnonymityPolicy, cap: int) -> None:
        self.names = list(dict.fromkeys(policy.quasi_identifiers))
        self._policy, self._cap = policy, cap
        counted = counted.with_columns(pl.col(name).cast(pl.String) for name in self.names if name == "age_range")
        if IS_FIXED not in counted.columns:
            counted = counted.with_columns(pl.lit(value=False).alias(IS_FIXED))
        columns = [*self.names, IS_FIXED]
        self.classes = counted.group_by(columns).agg(pl.col("rows").sum()).sort(columns).with_row_index(CLASS)
        ids = counted.join(self.classes.drop("rows"), on=columns, nulls_equal=True)
        self._full = ids.filter(IS_FULL).select(CLASS).unique()
        listed = ids.filter(pl.col("people").list.len() > 0).select(CLASS, *self._sensitive, "people")
        self._members = listed.explode("people").rename({"people": _PERSON})

    @property
    def _sensitive(self) -> Sequence[str]:
        return self._policy.measured_columns

    def count_people(self, current: pl.DataFrame) -> pl.DataFrame:
        """Count the people of the classes that equal values form: the quasi-identifiers, `people` and `rows`.

        Args:
            current: Some of the classes, with the present values of the quasi-identifiers.
        """
        groups = self._group(current)
        return groups.join(self._count(groups), on=_GROUP).select(*self.names, "people", "rows")

    def find_violations(self, current: pl.DataFrame) -> pl.Series:
        """Return for each class whether the one that it is part of violates a requirement, and it is not fixed.

        Args:
            current: As for `count_people`; t compares with the distribution of all people in these classes.
        """
        groups = self._group(current)
        wrong = self._count(groups).filter(pl.col("people") < (self._policy.k or 0)).select(_GROUP)
        members = self._join_members(groups)
        for column in self._sensitive:
            answers = members.select(pl.col(_GROUP).alias("class"), person=_PERSON, value=column)
            wrong = pl.concat([wrong, *(classes.rename({"class": _GROUP}) for classes in self._find_uniform(answers))])
        ids = groups.join(wrong, on=_GROUP, how="semi").explode(CLASS)[CLASS]
        return current[CLASS].is_in(ids.implode()) & ~current[IS_FIXED]

    def _find_uniform(self, answers: pl.DataFrame) -> list[pl.DataFrame]:
        """Return the classes whose answers violate l, and those whose answers violate t."""
        policy, wrong = self._policy, list[pl.DataFrame]()
        if policy.l is not None:
            wrong.append(count_distinct_values(answers).filter(pl.col("distinct") < policy.l).select("class"))
        if policy.t is not None:
            is_far = pl.col("distance") > policy.t + _TOLERANCE
            wrong.append(_measure_distances(answers).filter(is_far).select("class"))
        return wrong

    def measure_diversity(self, current: pl.DataFrame) -> dict[str, dict[str, float]]:
        """Return the minimum l and the maximum t of each measured column, counted by people; empty without l and t."""
        members, measured = self._join_members(self._group(current)), dict[str, dict[str, float]]()
        for column in self._sensitive if members.height else ():
            answers = members.select(pl.col(_GROUP).alias("class"), person=_PERSON, value=column)
            distinct, distance = count_distinct_values(answers)["distinct"], _measure_distances(answers)["distance"]
            measured[column] = {"l": int(distinct.min()), "t": float(distance.max())}  # type: ignore[arg-type]
        return measured

    def _group(self, current: pl.DataFrame) -> pl.DataFrame:
        """Return the classes that equal values form, with the numbers of their parts."""
        return current.group_by(self.names).agg(CLASS, pl.col("rows").sum()).with_row_index(_GROUP)

    def _join_members(self, groups: pl.DataFrame) -> pl.DataFrame:
        return self._members.join(groups.select(_GROUP, CLASS).explode(CLASS), on=CLASS)

    def _count(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Return the number of people in each group, at most the cap: `_GROUP` and `people`."""
        listed = self._join_members(groups).group_by(_GROUP).agg(pl.col(_PERSON).n_unique().alias("people"))
        full = groups.select(_GROUP, CLASS).explode(CLASS).join(self._full, on=CLASS, how="semi").select(_GROUP)
        counts = full.unique().with_columns(people=pl.lit(self._cap)), listed.join(full, on=_GROUP, how="anti")
        people = pl.col("people").cast(pl.Int64).clip(upper_bound=self._cap)
        return pl.concat(counts, how="vertical_relaxed").with_columns(people)


def _measure_distances(answers: pl.DataFrame) -> pl.DataFrame:
    """Measure the distance of each class; a person counts once for each different answer, in a class and overall."""
    return measure_distances(answers.unique(), answers.select("person", "value").unique())
