"""Which conditions, rules and age ranges a model knows: learned from training rows, and kept with the model."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import polars as pl

from feedback_etl.columns import require_pairs
from feedback_etl.errors import ExportFileError, UsageError, ValidationError
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.posix import replace_private_file, temporary_path
from feedback_etl.transform.dataframes import Frame, to_polars
from feedback_etl.transform.expressions import AGE_RANGE

FORMAT = 1
_RANGE = re.compile(r"<[0-9]+|[0-9]+-[0-9]+|[0-9]+\+")


@dataclass(frozen=True)
class Vocabulary:
    """What `features` makes columns of. It holds no row's values but the names of conditions, rules and age ranges.

    Attributes:
        conditions: In alphabetical order.
        rules: In alphabetical order.
        age_ranges: From the youngest to the oldest.

    >>> pairs = pl.DataFrame({"conditions_detected": ["acne,dry", "dry"], "rules_applied": ["r001", None]})
    >>> Vocabulary.fit(pairs).conditions
    ('acne', 'dry')
    >>> Vocabulary.fit(pairs, min_rows=2)
    Vocabulary(conditions=('dry',), rules=(), age_ranges=('<18', '18-25', '25-35', '35-50', '50+'))
    """

    conditions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    age_ranges: tuple[str, ...] = tuple(AGE_RANGE.categories)

    def __post_init__(self) -> None:
        """Make sure that it holds names.

        Raises:
            UsageError: One of the three is no tuple of different texts.
        """
        for field in fields(self):
            names = getattr(self, field.name)
            if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
                raise UsageError(f'{field.name} of a vocabulary are a tuple of texts, such as ("one", "two").')
            if len({*names}) < len(names):
                raise UsageError(f"{field.name} of a vocabulary are different texts; one comes twice.")

    @classmethod
    def fit(cls, frame: Frame, *, min_rows: int = 1, age_ranges: Sequence[str] | None = None) -> Self:
        """Learn from training rows, and from those alone: what only test rows hold must stay unknown.

        Args:
            frame: Training pairs, a frame of any kind. A lazy frame is run.
            min_rows: What fewer rows hold is left out, and so counted as other.
            age_ranges: The labels of age ranges, from the youngest to the oldest, where an application names them
                itself and they do not tell their order, such as "young" and "old".

        Raises:
            UsageError: `min_rows` is less than 1, or `age_ranges` are not different texts.
            ValidationError: The frame lacks conditions_detected or rules_applied, or they are no text, or age_range
                holds something else than ranges, or than those of `age_ranges`.
        """
        if not isinstance(min_rows, int) or min_rows < 1:
            raise UsageError("min_rows must be a whole number of 1 or more.")
        pairs: pl.LazyFrame = to_polars(frame).lazy()
        require_pairs(pairs, ["conditions_detected", "rules_applied"])
        ranges = _ranges(pairs) if age_ranges is None else tuple(age_ranges)
        conditions, rules = (_names(pairs, name, min_rows) for name in ("conditions_detected", "rules_applied"))
        fitted = cls(conditions, rules, ranges)
        if age_ranges is None:
            return fitted
        if strange := _labels_in(pairs) - {*fitted.age_ranges}:
            raise ValidationError(f"age_range holds {len(strange):,} values that are not among age_ranges.")
        return fitted

    def require_ranges(self, frame: pl.DataFrame | pl.LazyFrame) -> None:
        """Refuse age ranges that overlap one that is known: they are of exports with other `age_edges`.

        Of a lazy frame those of the type are looked at, if it is an Enum. Whatever else is unknown is missing.

        Raises:
            ValidationError: There are some.
        """
        strange = [name for name in _ranges_there(frame) if name not in self.age_ranges]
        bounds = [_bounds(name) for name in self.age_ranges if _RANGE.fullmatch(name)]
        if any(low < end and start < high for low, high in map(_bounds, strange) for start, end in bounds):
            raise ValidationError(
                f"age_range holds other ranges than the vocabulary ({', '.join(self.age_ranges)}): fit it to rows of "
                "exports with the same age_edges."
            )

    def save(self, path: str | Path) -> None:
        """Write it as JSON, readable by its owner alone; a file at the path is replaced.

        Raises:
            ExportFileError: It cannot be written.
        """
        path = Path(path)
        content = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"
        with explain_write_errors(path, "Name another file."):
            replace_private_file(path, temporary_path(path.parent, path.name), content.encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` has written.

        Raises:
            ExportFileError: It cannot be read, or is none, or not all of one.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            is_known = values.pop("format") == FORMAT and values.keys() == {field.name for field in fields(cls)}
            if is_known and all(isinstance(names, list) for names in values.values()):
                return cls(**{name: tuple(names) for name, names in values.items()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass
        raise ExportFileError(f"{path} is no vocabulary that this version understands.")


def _ranges(pairs: pl.LazyFrame) -> tuple[str, ...]:
    """The age ranges of rows, from the youngest on: those of the type, or else those that are there."""
    dtype = pairs.collect_schema().get("age_range", pl.Null())
    if isinstance(dtype, pl.Enum):
        return tuple(dtype.categories)
    there = _labels_in(pairs)
    if there <= {*AGE_RANGE.categories}:
        return tuple(AGE_RANGE.categories)
    if strange := [name for name in there if not _RANGE.fullmatch(name)]:
        raise ValidationError(
            f"age_range holds {len(strange):,} values that are no ranges, such as <18, 18-25 or 50+. Labels of the "
            "application's own have to be named from the youngest on: Vocabulary.fit(pairs, age_ranges=(...))."
        )
    return tuple(sorted(there, key=_bounds))


def _labels_in(pairs: pl.LazyFrame) -> set[str]:
    """Return the labels of age ranges that rows have; none where there is no such column."""
    is_there = pairs.collect_schema().get("age_range", pl.Null()) != pl.Null
    values = pl.col("age_range") if is_there else pl.lit(None)
    return {*pairs.select(values.cast(pl.String).unique().drop_nulls().alias("age_range")).collect()["age_range"]}


def _ranges_there(frame: pl.DataFrame | pl.LazyFrame) -> list[str]:
    """What could be an age range, of a type or else of rows that are there."""
    dtype = frame.collect_schema()["age_range"]
    if isinstance(dtype, pl.Enum):
        names = list(dtype.categories)
    elif isinstance(frame, pl.DataFrame):
        names = frame["age_range"].cast(pl.String).unique().drop_nulls().to_list()
    else:
        names = []
    return [name for name in names if _RANGE.fullmatch(name)]


def _bounds(name: str) -> tuple[float, float]:
    """From which age on and up to which a range goes.

    >>> _bounds("<18"), _bounds("18-25"), _bounds("50+")
    ((-inf, 18.0), (18.0, 25.0), (50.0, inf))
    """
    numbers = [float(number) for number in re.findall("[0-9]+", name)]
    if name.startswith("<"):
        return -math.inf, numbers[0]
    return numbers[0], numbers[1] if len(numbers) > 1 else math.inf


def _names(pairs: pl.LazyFrame, column: str, min_rows: int) -> tuple[str, ...]:
    """What so many rows have among the elements of a column; a name that a row has twice counts once."""
    texts = pairs.select(pl.col(column).cast(pl.String)).drop_nulls().group_by(column).len("rows")
    elements = texts.with_columns(pl.col(column).str.split(",").list.unique()).explode(column)
    counted = elements.filter(pl.col(column) != "").group_by(column).agg(pl.col("rows").sum())
    return tuple(counted.filter(pl.col("rows") >= min_rows).sort(column).collect()[column])
