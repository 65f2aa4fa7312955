"""Sort rows by their pseudonyms in bounded memory."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import polars as pl

_BUCKET_ROWS = 262_144
"""Rows that are sorted at once, about 50 MB."""

_PREFIX = 8
"""Hex digits of a pseudonym that decide its bucket."""


def sort_by_pseudonym(frames: Iterable[pl.DataFrame], rows: int, folder: Path | None = None) -> Iterator[pl.DataFrame]:
    """Yield rows in the order of `analysis_hash`, whose values are hex digits and uniformly distributed.

    Rows are distributed over buckets by the first digits, in a temporary file without a name, and each bucket is
    sorted.

    Args:
        frames: The rows, in frames of the same columns.
        rows: The number of the rows, or a greater one.
        folder: The folder of the temporary file; that of the system by default.
    """
    buckets = max(1, -(-rows // _BUCKET_ROWS))
    chunks: list[list[tuple[int, int]]] = [[] for _ in range(buckets)]
    with TemporaryFile(dir=folder) as file:
        for block in _merge_frames(frames):
            for bucket, part in _distribute(block, buckets):
                content = io.BytesIO()
                part.write_ipc_stream(content, compression="zstd")
                chunks[bucket].append((file.tell(), file.write(content.getbuffer())))
        for positions in filter(None, chunks):
            yield pl.concat([_read_chunk(file, *position) for position in positions]).sort("analysis_hash")


def _merge_frames(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Merge small frames, so that chunks do not become too small."""
    pending: list[pl.DataFrame] = []
    for frame in frames:
        pending.append(frame)
        if sum(part.height for part in pending) >= _BUCKET_ROWS:
            yield pl.concat(pending)
            pending = []
    if pending:
        yield pl.concat(pending)


def _distribute(block: pl.DataFrame, buckets: int) -> Iterator[tuple[int, pl.DataFrame]]:
    prefix = pl.col("analysis_hash").str.slice(0, _PREFIX).str.to_integer(base=16, dtype=pl.Int64)
    parts = block.with_columns((prefix * buckets // 16**_PREFIX).alias("bucket")).partition_by("bucket", as_dict=True)
    return ((int(bucket), part.drop("bucket")) for (bucket,), part in parts.items())


def _read_chunk(file: io.BufferedRandom, start: int, size: int) -> pl.DataFrame:
    file.seek(start)
    return pl.read_ipc_stream(io.BytesIO(file.read(size)))
