"""Features as a SciPy CSR matrix, without the dense indicators of large vocabularies."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from feedback_etl.transform.dataframes import collect_if_lazy

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

_ROW = "row of the matrix"


def to_csr(
    parsed: pl.DataFrame | pl.LazyFrame,
    lists: Mapping[str, tuple[Sequence[str], Sequence[pl.Expr]]],
    others: Sequence[pl.Expr],
) -> "csr_matrix":
    """Return features as a Float32 CSR matrix with the columns of the dense frame in their order.

    Args:
        parsed: Rows with lists of text.
        lists: By column of lists, the names that have an indicator, and the numeric columns that follow them.
        others: The numeric columns after all lists.

    Raises:
        ImportError: SciPy is not installed.
    """
    try:
        import numpy as np
        from scipy.sparse import csr_matrix
    except ModuleNotFoundError:
        raise ImportError("features(sparse=True) needs SciPy: pip install 'feedback-etl[train]'.") from None
    rows = collect_if_lazy(parsed.with_row_index(_ROW))
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    width = 0
    for column, (names, following) in lists.items():
        contained = _find_names(rows, column, names)
        ones = np.ones(contained.height, dtype=np.float32)
        blocks.append((ones, contained[_ROW].to_numpy(), contained[column].to_numpy() + width))
        blocks.extend(_find_values(rows, following, width + len(names)))
        width += len(names) + len(following)
    blocks.extend(_find_values(rows, others, width))
    values, row_numbers, columns = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return csr_matrix((values, (row_numbers, columns)), shape=(rows.height, width + len(others)), dtype=np.float32)


def _find_names(rows: pl.DataFrame, column: str, names: Sequence[str]) -> pl.DataFrame:
    """Return the row and the position of each name that a list contains, once."""
    positions = pl.DataFrame({column: [*names]}, {column: pl.String}).with_row_index("position")
    elements = rows.select(_ROW, column).explode(column).unique()
    matches = elements.join(positions, on=column, how="inner")
    return matches.select(pl.col(_ROW).cast(pl.Int64), pl.col("position").cast(pl.Int64).alias(column))


def _find_values(
    rows: pl.DataFrame, numbers: Sequence[pl.Expr], first: int
) -> "Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]":
    """Return the values of numeric columns that are not 0, with their rows and columns."""
    import numpy as np

    for position, column in enumerate(rows.select(*numbers).iter_columns(), first):
        values = column.to_numpy()
        (row_numbers,) = np.nonzero(values)
        yield values[row_numbers], row_numbers, np.full(len(row_numbers), position)
