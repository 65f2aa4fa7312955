"""Accept frames of Polars, pandas and Arrow, and return the same kind. Inside the package, all frames are Polars.

A public transform is written once, for Polars, and `accepts_any_dataframe` converts its argument and its result.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import polars as pl

from feedback_etl.columns import summarize_names
from feedback_etl.errors import UsageError

if TYPE_CHECKING:
    import narwhals as nw
    import pandas as pd
    import pyarrow as pa

Frame = TypeVar("Frame", bound=Any)
"""A frame of Polars, lazy or not, or of pandas, or an Arrow table; a transform returns the type that it receives."""

Transform = TypeVar("Transform", bound=Callable[..., Any])

_ROW = "row of the pandas frame"


def accepts_any_dataframe(transform: Transform) -> Transform:
    """Let a transform of Polars frames accept pandas data frames and Arrow tables too, and return the same kind.

    A column that keeps its name and its type keeps the data type that it had; in pandas, new integers and booleans are
    nullable (Int8, boolean), since NaN would make fractions of them. Rows of pandas keep their index labels. The
    result may be a frame, or a dict or a named tuple of frames; other values are returned unchanged.

    >>> import pandas as pd
    >>> @accepts_any_dataframe
    ... def large(frame: Frame) -> Frame:
    ...     return frame.filter(pl.col("n") > 1)
    >>> large(pd.DataFrame({"n": [1, 2, 3]})).index.to_list()
    [1, 2]
    """

    @wraps(transform)
    def wrapped(frame: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(frame, pl.DataFrame | pl.LazyFrame):
            return transform(frame, *arguments, **options)
        table = to_polars(frame)
        is_pandas = _is_pandas(_known(frame))
        given = table.with_row_index(_ROW) if is_pandas else table
        restore = _to_pandas if is_pandas else _to_arrow
        return _each(transform(given, *arguments, **options), lambda result: restore(result, frame, table.schema))

    return wrapped  # type: ignore[return-value]


def to_polars(frame: Any) -> Any:
    """Convert a pandas data frame or an Arrow table to Polars; return a Polars frame, lazy or not, unchanged.

    A pandas column of integers with missing values is one of fractions, unless its data type is Int64, and is
    converted as such: transforms that need exact numbers refuse it. A float column without any value becomes Null.

    Raises:
        UsageError: It is no such frame, or a column contains values of different types.
    """
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return frame
    known = _known(frame)
    try:
        table: pl.DataFrame = known.to_polars()
    except Exception as error:  # its text may contain values
        kind = type(error).__name__
    else:
        types: dict[str, pl.DataType] = {name: pl.Enum(dtype.categories) for name, dtype in _ordered(known)}
        if _is_pandas(known):
            types |= dict.fromkeys(_without_type(table), pl.Null())
        return table.cast(pl.Schema(table.schema | types))
    raise UsageError(f"The frame has a column whose values are of different types ({kind}); give each one type.")


def require_columns(frame: pl.DataFrame | pl.LazyFrame, names: Iterable[str], advice: str = "") -> None:
    """Raise if a frame lacks columns that the caller names.

    Raises:
        UsageError: Some are missing; the message names them, the existing columns of this package, and the advice.
    """
    there = [name for name in frame.collect_schema().names() if name != _ROW]
    if missing := [str(name) for name in dict.fromkeys(names) if name not in there]:
        raise UsageError(f"The frame has no column {', '.join(missing)}. It has: {summarize_names(there)}.{advice}")


def collect_if_lazy(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Collect a lazy frame; return another unchanged."""
    return frame.collect() if isinstance(frame, pl.LazyFrame) else frame


def lazy_like(frame: Frame, result: pl.DataFrame) -> Frame:
    """Return the result of a transform that collected its frame: lazy if the frame was."""
    given: Any = result.lazy() if isinstance(frame, pl.LazyFrame) else result
    return cast(Frame, given)


def _known(frame: Any) -> "nw.DataFrame[Any]":
    import narwhals as nw

    with suppress(nw.exceptions.DuplicateError):
        known = nw.from_native(frame, eager_only=True, pass_through=True)
        if not isinstance(known, nw.DataFrame) or not (_is_pandas(known) or known.implementation.is_pyarrow()):
            kind = type(frame).__name__
            raise UsageError(f"A frame is one of Polars (lazy or not) or pandas, or an Arrow table, not {kind}.")
        if all(isinstance(name, str) for name in known.columns):
            return known
    raise UsageError("The frame's columns need names that are text, each another one.")


def _is_pandas(known: "nw.DataFrame[Any]") -> bool:
    return bool(known.implementation.is_pandas())


def _ordered(known: "nw.DataFrame[Any]") -> "Iterator[tuple[str, nw.Enum]]":
    """Return the columns of ordered categories, which Polars would convert to unordered ones."""
    import narwhals as nw

    return ((name, dtype) for name, dtype in known.schema.items() if isinstance(dtype, nw.Enum))


def _without_type(table: pl.DataFrame) -> list[str]:
    """Return the float columns without any value: pandas uses floats for missing values of any type."""
    empty = table.select(pl.selectors.float()).select(pl.all().is_null().all())
    return [each.name for each in empty if table.height and each.item()]


def _each(result: Any, restore: Callable[[pl.DataFrame], Any]) -> Any:
    """Return the result of a transform with every frame in it converted back."""
    if isinstance(result, pl.DataFrame):
        return restore(result)
    if isinstance(result, dict):
        return {name: _each(value, restore) for name, value in result.items()}
    if isinstance(result, tuple):
        return type(result)(*(_each(value, restore) for value in result))
    return result


def _to_pandas(result: pl.DataFrame, original: "pd.DataFrame", schema: pl.Schema) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa

    rows = result[_ROW].to_numpy() if _ROW in result.columns else slice(None)
    result = result.drop(_ROW, strict=False)
    widths = (8, 16, 32, 64)
    nullable = {pa.bool_(): pd.BooleanDtype()}
    nullable |= {getattr(pa, f"int{width}")(): getattr(pd, f"Int{width}Dtype")() for width in widths}
    nullable |= {getattr(pa, f"uint{width}")(): getattr(pd, f"UInt{width}Dtype")() for width in widths}
    frame = result.to_arrow().to_pandas(types_mapper=nullable.get)
    frame.index = original.index[rows]
    types = {name: original[name].dtype for name in _same(result, schema)}
    for name in (name for name, dtype in types.items() if pd.api.types.is_object_dtype(dtype)):
        frame[name] = pd.Series(result[name].to_list(), index=frame.index, dtype=object)
    for name, dtype in types.items():
        with suppress(ValueError, TypeError):  # categories of Arrow, or a null in a type without one
            frame[name] = frame[name].astype(dtype)
    return frame


def _to_arrow(result: pl.DataFrame, original: "pa.Table", schema: pl.Schema) -> "pa.Table":
    table = result.to_arrow()
    for name in _same(result, schema):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, original.schema.field(name), table[name].cast(original.schema.field(name).type))
    return table


def _same(result: pl.DataFrame, schema: pl.Schema) -> list[str]:
    """Return the columns whose name and dtype are unchanged."""
    return [name for name, dtype in result.schema.items() if schema.get(name) == dtype]


def compact(rows: pl.DataFrame) -> pl.DataFrame:
    """Copy rows, so that they do not keep the strings of the whole batch in memory as a filter does."""
    return pl.DataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def nan_to_null(numbers: pl.Series) -> pl.Series:
    """Replace NaN by null."""
    return numbers.fill_nan(None) if numbers.dtype.is_float() else numbers
