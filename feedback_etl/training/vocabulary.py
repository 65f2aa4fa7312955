"""Conditions, rules and age ranges that a model knows: learned from training rows, and stored beside the model."""

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
import pydantic

from feedback_etl.errors import ExportFileError, UsageError, ValidationError
from feedback_etl.schema.classic import CLASSIC_SCHEMA, is_classic
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.requirements import require_pairs
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.posix import replace_private_file, temporary_path
from feedback_etl.training.age_labels import IS_RANGE, drop_wider_labels, parse_bounds
from feedback_etl.training.encodings import split_list
from feedback_etl.transform.age_hierarchy import all_age_ranges
from feedback_etl.transform.dataframes import Frame, to_polars
from feedback_etl.transform.expressions import AGE_RANGE

FORMAT = 1
_AGE_RANGES = tuple(AGE_RANGE.categories)


def _require_distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) < len(names):
        raise ValueError("names must be distinct")
    return names


_Names = Annotated[tuple[str, ...], pydantic.AfterValidator(_require_distinct)]
_STRICT = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class Vocabulary(pydantic.BaseModel):
    """Names for which `features` creates columns; it contains no other values of the rows.

    Attributes:
        conditions: Conditions in alphabetical order.
        rules: Rules in alphabetical order.
        age_ranges: Age ranges from the youngest to the oldest.
        lists: For another schema, the elements of each list by its name, in alphabetical order, instead of conditions
            and rules. Without age ranges there is no age.

    Raises:
        UsageError: One of them is not a tuple of distinct texts.

    >>> pairs = pl.DataFrame({"conditions_detected": ["acne,dry", "dry"], "rules_applied": ["r001", None]})
    >>> Vocabulary.fit(pairs).conditions
    ('acne', 'dry')
    >>> Vocabulary.fit(pairs, min_rows=2)
    Vocabulary(conditions=('dry',), rules=(), age_ranges=('<18', '18-25', '25-35', '35-50', '50+'))
    """

    model_config = _STRICT

    conditions: _Names = ()
    rules: _Names = ()
    age_ranges: _Names = _AGE_RANGES
    lists: dict[str, _Names] | None = pydantic.Field(None, repr=False)

    def __init__(
        self,
        conditions: tuple[str, ...] = (),
        rules: tuple[str, ...] = (),
        age_ranges: tuple[str, ...] = _AGE_RANGES,
        lists: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        try:
            super().__init__(conditions=conditions, rules=rules, age_ranges=age_ranges, lists=lists)
        except pydantic.ValidationError as error:
            fields = ", ".join(dict.fromkeys(str(problem["loc"][0]) for problem in error.errors()))
            raise UsageError(
                f'{fields} of a vocabulary must be a tuple of distinct texts, such as ("one", "two").'
            ) from None

    @classmethod
    def fit(
        cls,
        frame: Frame,
        *,
        min_rows: int = 1,
        age_ranges: Sequence[str] | None = None,
        schema: FeedbackSchema = CLASSIC_SCHEMA,
        lists: Sequence[str] | None = None,
    ) -> Self:
        """Learn the vocabulary of training rows.

        Pass training rows only: names that only test rows contain must stay unknown.

        Args:
            frame: Training pairs, a frame of any kind. A lazy frame is collected.
            min_rows: Names in fewer rows are excluded, and so counted as other.
            age_ranges: Labels of the age ranges, from the youngest to the oldest, if the application names them itself
                and their order does not follow from them, as with "young" and "old".
            schema: Schema of the feedback, such as `open_dataset(folder).schema`.
            lists: Lists that are known when advice is given; by default conditions and rules, none of another schema.

        Raises:
            UsageError: `min_rows` is less than 1, `age_ranges` are not distinct texts, or one of `lists` is none.
            ValidationError: A list is missing or of a wrong type, or age_range contains other values than ranges.
        """
        if not isinstance(min_rows, int) or min_rows < 1:
            raise UsageError("`min_rows` must be an integer of 1 or more.")
        pairs: pl.LazyFrame = to_polars(frame).lazy()
        is_default = lists is None and is_classic(schema)
        chosen = [name for name in schema.list_names if is_default or name in (lists or ())]
        if len(chosen) < len(lists or ()):
            raise UsageError(f"`lists` must be distinct lists of the schema: {', '.join(schema.list_names) or 'none'}.")
        require_pairs(pairs, chosen, schema=schema)
        ranges = (_learn_ranges(pairs) if schema.age else ()) if age_ranges is None else tuple(age_ranges)
        learned = {name: _learn_names(pairs, name, min_rows) for name in chosen}
        conditions, rules = learned.values() if is_default else ((), ())
        fitted = cls(conditions, rules, ranges, None if is_default else learned)
        if age_ranges is None:
            return fitted
        if unknown := _list_labels(pairs) - {*fitted.age_ranges}:
            raise ValidationError(f"age_range contains {len(unknown):,} values that are not among age_ranges.")
        return fitted

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The known elements by column of lists."""
        if self.lists is not None:
            return self.lists
        return dict(zip(CLASSIC_SCHEMA.list_names, (self.conditions, self.rules), strict=True))

    @property
    def has_age(self) -> bool:
        """Whether the feedback has ages."""
        return self.lists is None or bool(self.age_ranges)

    def require_ranges(self, frame: pl.DataFrame | pl.LazyFrame) -> None:
        """Refuse age ranges that overlap a known one: they are from exports with other `age_edges`.

        Only the type of a lazy frame is checked, if it is an Enum. All other unknown ranges count as missing.

        Raises:
            ValidationError: An age range overlaps a known one.
        """
        ranks = self.rank_ranges()
        unknown = [name for name in _list_ranges(frame) if name not in ranks]
        known_bounds = [parse_bounds(name) for name in self.age_ranges if IS_RANGE.fullmatch(name)]
        if any(low < end and start < high for low, high in map(parse_bounds, unknown) for start, end in known_bounds):
            raise ValidationError(
                f"age_range contains other ranges than the vocabulary ({', '.join(self.age_ranges)}). Fit it to rows "
                "of exports with the same age_edges."
            )

    def rank_ranges(self) -> dict[str, float]:
        """Return the position of each age range, from 1; a wider one has the mean of those that it joins.

        >>> Vocabulary().rank_ranges()["25-50"]
        3.5
        """
        ranks = {name: float(rank) for rank, name in enumerate(self.age_ranges, 1)}
        ranges = [name for name in self.age_ranges if IS_RANGE.fullmatch(name)]
        for first, last in combinations(ranges, 2):
            low, high = re.findall("^[0-9]+", first), re.findall("[0-9]+$", last)
            if low or high:
                joined = f"{low[0]}-{high[0]}" if low and high else f"{low[0]}+" if low else f"<{high[0]}"
                ranks.setdefault(joined, (ranks[first] + ranks[last]) / 2)
        return ranks

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as a JSON file that only its owner can read (0600); an existing file is replaced.

        Raises:
            ExportFileError: The file cannot be written.
        """
        path = Path(path)
        content = (
            json.dumps({"format": FORMAT, **self.model_dump(exclude_none=True)}, indent=2, ensure_ascii=False) + "\n"
        )
        with explain_write_errors(path, "Name another file."):
            replace_private_file(path, temporary_path(path.parent, path.name), content.encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a vocabulary that `save` has written.

        Raises:
            ExportFileError: The file cannot be read, or is not a complete vocabulary.
        """
        try:
            stored = _StoredVocabulary.model_validate_json(Path(path).read_bytes())
        except (OSError, pydantic.ValidationError):
            raise ExportFileError(
                f"{path} is not a vocabulary that this version can read. Create one with Vocabulary.fit(...).save(...)."
            ) from None
        return cls(stored.conditions, stored.rules, stored.age_ranges, stored.lists)


class _StoredVocabulary(pydantic.BaseModel):
    """A vocabulary as it is stored; all fields are required."""

    model_config = _STRICT

    format: Literal[1]
    conditions: _Names
    rules: _Names
    age_ranges: _Names
    lists: dict[str, _Names] | None = None


def _learn_ranges(pairs: pl.LazyFrame) -> tuple[str, ...]:
    """Return the age ranges of the type or else of the rows, from the youngest to the oldest."""
    dtype = pairs.collect_schema().get("age_range", pl.Null())
    if isinstance(dtype, pl.Enum):
        return drop_wider_labels(dtype.categories.to_list())
    labels = _list_labels(pairs)
    if labels <= {*all_age_ranges().categories}:
        return _AGE_RANGES
    if custom := [label for label in labels if not IS_RANGE.fullmatch(label)]:
        raise ValidationError(
            f"age_range contains labels unlike <18, 18-25 or 50+ ({len(custom):,}). Pass custom labels from the "
            "youngest to the oldest: Vocabulary.fit(pairs, age_ranges=(...))."
        )
    return drop_wider_labels(sorted(labels, key=parse_bounds))


def _list_labels(pairs: pl.LazyFrame) -> set[str]:
    """Return the labels of age ranges in the rows; none without such a column."""
    exists = pairs.collect_schema().get("age_range", pl.Null()) != pl.Null
    values = pl.col("age_range") if exists else pl.lit(None)
    return {*pairs.select(values.cast(pl.String).unique().drop_nulls().alias("age_range")).collect()["age_range"]}


def _list_ranges(frame: pl.DataFrame | pl.LazyFrame) -> list[str]:
    """Return the age ranges of the type, or else of the rows of an eager frame."""
    dtype = frame.collect_schema()["age_range"]
    if isinstance(dtype, pl.Enum):
        names = list(dtype.categories)
    elif isinstance(frame, pl.DataFrame):
        names = frame["age_range"].cast(pl.String).unique().drop_nulls().to_list()
    else:
        names = []
    return [name for name in names if IS_RANGE.fullmatch(name)]


def _learn_names(pairs: pl.LazyFrame, column: str, min_rows: int) -> tuple[str, ...]:
    """Return the elements of a column that at least `min_rows` rows contain; repetitions in a row count once."""
    values = pairs.select(pl.col(column)).drop_nulls().group_by(column).len("rows")
    elements = values.with_columns(split_list(column, pairs.collect_schema()[column]).list.unique()).explode(column)
    row_counts = elements.filter(pl.col(column) != "").group_by(column).agg(pl.col("rows").sum())
    return tuple(row_counts.filter(pl.col("rows") >= min_rows).sort(column).collect()[column])
