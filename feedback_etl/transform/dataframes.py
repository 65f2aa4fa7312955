"""Convert frames of pandas and Arrow to Polars and back; inside the package, all frames are Polars.

A public transform is written once, for Polars, and `accepts_any_dataframe` converts its argument and its result.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import polars as pl

from feedback_etl.errors import UsageError
from feedback_etl.schema.requirements import summarize_names

if TYPE_CHECKING:
    import narwhals as nw
    import pandas as pd
    import pyarrow as pa

Frame = TypeVar("Frame", bound=Any)
"""A Polars frame (lazy or not), a pandas data frame or an Arrow table; transforms return the same kind.

A DuckDB relation, a stream of record batches and a Hugging Face dataset are read into an Arrow table first.
"""

Transform = TypeVar("Transform", bound=Callable[..., Any])

_ROW = "row of the pandas frame"


def accepts_any_dataframe(transform: Transform) -> Transform:
    """Let a transform of Polars frames accept pandas data frames and Arrow tables too, and return the same kind.

    A column whose name and Polars dtype are unchanged keeps its pandas or Arrow dtype. New pandas columns of integers
    and booleans are nullable (Int8, boolean), since NaN would turn them into floats. Rows of pandas keep their index
    labels. The result may be a frame, or a dict, list or named tuple of frames; other values are returned unchanged.

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
        frame = _read_streams(frame)
        table = to_polars(frame)
        is_pandas = _is_pandas(_to_narwhals(frame))
        restore = _to_pandas if is_pandas else _to_arrow
        result = transform(table.with_row_index(_ROW) if is_pandas else table, *arguments, **options)
        return _map_frames(result, lambda result: restore(result, frame, table.schema))

    return wrapped  # type: ignore[return-value]


def to_polars(frame: Any) -> Any:
    """Convert a pandas data frame or an Arrow table to Polars; return a Polars frame, lazy or not, unchanged.

    Pandas stores integers with missing values as floats, unless the dtype is Int64. Such a column is converted to
    floats, which transforms that need exact numbers refuse. A pandas column of floats or objects without any value
    becomes Null.

    Raises:
        UsageError: The value is not such a frame, its column names are not text or not unique, or a column contains
            values of different types.
    """
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return frame
    source = _to_narwhals(_read_streams(frame))
    try:
        table: pl.DataFrame = source.to_polars()
    except Exception as error:  # its text may contain values
        error_type = type(error).__name__
    else:
        types: dict[str, pl.DataType] = {name: pl.Enum(dtype.categories) for name, dtype in _iter_enums(source)}
        if _is_pandas(source):
            types |= dict.fromkeys(_list_untyped_columns(source, table), pl.Null())
        return table.cast(pl.Schema(table.schema | types))
    raise UsageError(
        f"A column of the frame contains values of different types ({error_type}); give each column one type."
    )


def require_columns(frame: pl.DataFrame | pl.LazyFrame, names: Iterable[str], advice: str = "") -> None:
    """Raise if a frame lacks one of these columns.

    Raises:
        UsageError: Columns are missing. The message lists them, then the existing columns whose names this package
            defines, then the advice.
    """
    existing = [name for name in frame.collect_schema().names() if name != _ROW]
    if missing := [str(name) for name in dict.fromkeys(names) if name not in existing]:
        raise UsageError(f"The data has no column {', '.join(missing)}. It has: {summarize_names(existing)}.{advice}")


def row_labels() -> pl.Expr:
    """Select the internal column of the row labels of pandas, which a transform that selects columns must keep."""
    return pl.selectors.by_name(_ROW, require_all=False)


def collect_if_lazy(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Collect a lazy frame; return a frame that is not lazy unchanged."""
    return frame.collect() if isinstance(frame, pl.LazyFrame) else frame


def restore_laziness(frame: Frame, result: pl.DataFrame) -> Frame:
    """Return the collected result of a transform as a lazy frame if the transform's argument was lazy."""
    like_frame: Any = result.lazy() if isinstance(frame, pl.LazyFrame) else result
    return cast(Frame, like_frame)


def list_columns(frame: pl.DataFrame | pl.LazyFrame, columns: str | Sequence[str] | pl.Expr) -> list[str]:
    """Return the names of columns that a caller names or selects.

    Raises:
        UsageError: There is no such column, or the selector selects none.
    """
    if isinstance(columns, pl.Expr):
        selected = frame.lazy().drop(_ROW, strict=False).select(columns).collect_schema().names()
    else:
        selected = [columns] if isinstance(columns, str) else [*columns]
        require_columns(frame, selected)
    if not selected:
        raise UsageError("No column is selected: name at least one.")
    return selected


def _read_streams(frame: Any) -> Any:
    """Read a Hugging Face dataset, DuckDB relation or RecordBatchReader into an Arrow table; return others as given."""
    if hasattr(frame, "with_format"):
        return frame.with_format("arrow")[:]
    if type(frame).__name__ in {"DuckDBPyRelation", "RecordBatchReader"}:
        import pyarrow as pa

        return pa.table(frame)
    return frame


def _to_narwhals(frame: Any) -> "nw.DataFrame[Any]":
    import narwhals as nw

    with suppress(nw.exceptions.DuplicateError):
        source = nw.from_native(frame, eager_only=True, pass_through=True)
        if not isinstance(source, nw.DataFrame) or not (_is_pandas(source) or source.implementation.is_pyarrow()):
            raise UsageError(
                "A frame must be a Polars frame (lazy or not), a pandas data frame, an Arrow table, a DuckDB relation, "
                "a RecordBatchReader or a Hugging Face dataset, not "
                f"{type(frame).__name__}."
            )
        if all(isinstance(name, str) for name in source.columns):
            return source
    raise UsageError("The frame's column names must be text and unique.")


def _is_pandas(source: "nw.DataFrame[Any]") -> bool:
    return bool(source.implementation.is_pandas())


def _iter_enums(source: "nw.DataFrame[Any]") -> "Iterator[tuple[str, nw.Enum]]":
    """Return the columns of ordered categories, which Polars would convert to unordered ones."""
    import narwhals as nw

    return ((name, dtype) for name, dtype in source.schema.items() if isinstance(dtype, nw.Enum))


def _list_untyped_columns(source: "nw.DataFrame[Any]", table: pl.DataFrame) -> list[str]:
    """Return the columns of floats or objects without any value, which pandas uses for missing values of any type."""
    dtypes = source.to_native().dtypes
    untyped = [name for name, dtype in table.schema.items() if dtype.is_float() or dtypes[name].kind == "O"]
    is_empty = table.select(pl.col(untyped).is_null().all())
    return [column.name for column in is_empty if table.height and column.item()]


def _map_frames(result: Any, restore: Callable[[pl.DataFrame], Any]) -> Any:
    """Return the result of a transform with every frame in it converted back."""
    if isinstance(result, pl.DataFrame):
        return restore(result)
    if isinstance(result, dict):
        return {name: _map_frames(value, restore) for name, value in result.items()}
    if isinstance(result, list):
        return [_map_frames(value, restore) for value in result]
    if isinstance(result, tuple):
        return type(result)(*(_map_frames(value, restore) for value in result))
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
    types = {name: original[name].dtype for name in _list_unchanged_columns(result, schema)}
    for name in (name for name, dtype in types.items() if pd.api.types.is_object_dtype(dtype)):
        frame[name] = pd.Series(result[name].to_list(), index=frame.index, dtype=object)
    for name, dtype in types.items():
        with suppress(ValueError, TypeError):  # Arrow categories, or a null where the dtype has no missing value
            frame[name] = frame[name].astype(dtype)
    return frame


def _to_arrow(result: pl.DataFrame, original: "pa.Table", schema: pl.Schema) -> "pa.Table":
    table = result.to_arrow()
    for name in _list_unchanged_columns(result, schema):
        index, field = table.schema.get_field_index(name), original.schema.field(name)
        table = table.set_column(index, field, table[name].cast(field.type))
    return table


def _list_unchanged_columns(result: pl.DataFrame, schema: pl.Schema) -> list[str]:
    """Return the columns whose name and dtype are unchanged."""
    return [name for name, dtype in result.schema.items() if schema.get(name) == dtype]


def compact(rows: pl.DataFrame) -> pl.DataFrame:
    """Copy rows; a filtered frame would keep the strings of the whole batch in memory."""
    return pl.DataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def replace_nan(numbers: pl.Series) -> pl.Series:
    """Replace NaN by null."""
    return numbers.fill_nan(None) if numbers.dtype.is_float() else numbers
