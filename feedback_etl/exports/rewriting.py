"""Files without some of their rows: the other rows keep their bytes (CSV) or their values and order (Parquet)."""

import csv
import io
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from feedback_etl.exports.output import Compress, Digested, compressed

PSEUDONYM = "analysis_hash"
_BLOCK_BYTES = 1 << 20
_RECORDS_AT_ONCE = 10_000
_CODECS: dict[str, Compress] = {".gz": "gzip", ".zst": "zstd"}


def pseudonyms_in(path: Path, name: str) -> set[str]:
    """All pseudonyms in a file; its name (to be) tells its form."""
    return set().union(*_hashes_of(path, name))


def columns_of(path: Path) -> list[str]:
    """The columns of a file, CSV or Parquet; none of an empty one."""
    if path.name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return list(pq.read_schema(path).names)
    return next(csv.reader([next(_records(path, path.name), b"").decode()]), [])


def count_rows(path: Path) -> int:
    """How many rows a file holds, CSV or Parquet."""
    if path.name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    return max(0, sum(1 for _ in _records(path, path.name)) - 1)


def write_without(path: Path, name: str, unwanted: Set[str], target: IO[bytes]) -> tuple[Digested, int]:
    """Write a file anew without the rows of these pseudonyms; what was written, and how many rows are left."""
    written = Digested(target)
    if name.endswith(".parquet"):
        return written, _parquet_without(path, unwanted, written)
    sink, records, rows = compressed(written, _CODECS.get(Path(name).suffix, "none")), _records(path, name), 0
    try:
        with _abandoned_on_failure(written):
            header = next(records, b"")
            place = _place_in(header)
            sink.write(header)
            for block in _blocks(record for record in records if _field(record, place) not in unwanted):
                sink.write(b"".join(block))
                rows += len(block)
    finally:
        if sink is not written:
            sink.close()
    return written, rows


@contextmanager
def _abandoned_on_failure(written: Digested) -> Iterator[None]:
    """What has failed is closed without a further attempt to write."""
    try:
        yield
    except BaseException:
        written.abandon()
        raise


def _blocks(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Many at once: to write each alone would be slow."""
    records = iter(records)
    while block := list(islice(records, _RECORDS_AT_ONCE)):
        yield block


def _hashes_of(path: Path, name: str) -> Iterator[set[str]]:
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[PSEUDONYM]):
                yield set(batch.column(0).to_pylist())
        return
    records = _records(path, name)
    place = _place_in(next(records, b""))
    yield {_field(record, place) for record in records}


def _records(path: Path, name: str) -> Iterator[bytes]:
    """The records of a CSV file with their line ends; one may span several lines within quotes."""
    with _decompressed(path, name) as file:
        record = b""
        for line in file:
            record += line
            if record.count(b'"') % 2 == 0:
                yield record
                record = b""
        if record:
            yield record


def _place_in(header: bytes) -> int:
    return next(csv.reader([header.decode()]), []).index(PSEUDONYM)


def _field(record: bytes, place: int) -> str:
    if place == 0:
        return record.partition(b",")[0].decode()
    return next(csv.reader(io.StringIO(record.decode(), newline="")))[place]


@contextmanager
def _decompressed(path: Path, name: str) -> Iterator[IO[bytes]]:
    import pyarrow as pa

    codec = _CODECS.get(Path(name).suffix)
    with path.open("rb") as file:
        if codec is None:
            yield file
        else:
            with pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) as stream:
                yield io.BufferedReader(_Readable(stream), _BLOCK_BYTES)


class _Readable(io.RawIOBase):
    """An Arrow stream as a file of Python, for its lines."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _parquet_without(path: Path, unwanted: Set[str], written: Digested) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    values, rows = pa.array(sorted(unwanted), pa.string()), 0
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        sink = pa.PythonFile(written, "w")
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer, _abandoned_on_failure(written):
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)
                kept = group.filter(pc.invert(pc.is_in(group[PSEUDONYM].cast(pa.string()), values)))
                rows += kept.num_rows
                if kept.num_rows:
                    writer.write_table(kept)
    return rows
