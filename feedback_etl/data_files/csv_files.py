"""CSV files: how the rows of exports are written, how other files are read, and all data files scanned as CSV text.

Exports are UTF-8 with `\\n`, quoting by RFC 4180, and null as an empty field. Files are read as records by one rule:

- A record ends at a line end outside quotes, `\\n` or `\\r\\n`; the last one may lack it.
- An empty line is not a record, wherever it is; in a file of one column an empty value is written `""`.
- A line of separators alone is a record of empty values. A record may have fewer fields than the header.
- A byte order mark is not part of the header. Compression (gzip, zstd) is recognised by the content.

Polars reads an empty line as a row of nulls, so it is given `without_empty_lines(path)`.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

import polars as pl
import polars.selectors as cs

from feedback_etl.errors import ExportFileError
from feedback_etl.records.manifest import ADOPTED, Manifest
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import open_regular_file
from feedback_etl.transform.expressions import iso_timestamp
from feedback_etl.transform.formulas import unescape
from feedback_etl.transform.json_lists import encode_lists

_BLOCK_BYTES = 1 << 20
_ROWS_AT_ONCE = 16_384
"""Rows that become CSV text at once: those of a whole batch take a third more time, and 30 MB more memory."""
_BOM = b"\xef\xbb\xbf"
_EMPTY = frozenset({b"\n", b"\r\n", b"\r", _BOM, _BOM + b"\n", _BOM + b"\r\n"})
_LONGEST_EMPTY = max(map(len, _EMPTY))
MAX_RECORD_BYTES = 1 << 24
"""The size of a record from which on a file is damaged: its line ends or quotes are missing."""
MAX_COMPRESSION_RATIO = 100
MIN_DECOMPRESSED_BYTES = 1 << 26
"""A compressed file may contain 64 MiB, and 100 times its size if that is more. Exports contain 5 times their size:
each row has a pseudonym, which does not compress. A gzip file can contain 1,000 times its size, a zstd file more."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

READ_ERRORS = (OSError, ValueError, LookupError, EOFError, csv.Error)
"""Errors of readers for a damaged file or one of another format; Arrow's errors are ValueErrors and OSErrors."""


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Translate the errors of readers into one.

    Raises:
        ExportFileError: The file cannot be read.
    """
    try:
        yield
    except READ_ERRORS:
        raise ExportFileError(f"{path} cannot be read: it is damaged, or not what its name says.") from None


def iter_lines(path: Path) -> Iterator[bytes]:
    """Iterate over the records of a file and the empty lines between them, with their line ends: all of its bytes."""
    with _open_decompressed(path) as file:
        record = b""
        for line in iter(partial(file.readline, MAX_RECORD_BYTES), b""):
            record += line
            if len(record) >= MAX_RECORD_BYTES:
                raise ValueError("a record is too long")
            if record.count(b'"') % 2 == 0:
                yield record
                record = b""
        if record:
            yield record


def iter_records(path: Path) -> Iterator[bytes]:
    """Iterate over the header of a file and its records, with their line ends."""
    return (line for line in iter_lines(path) if not is_empty(line))


def is_empty(line: bytes) -> bool:
    """Return whether a line is empty, so that it is not a record.

    >>> [is_empty(line) for line in (b"\\n", b"\\r\\n", b",\\n", b" \\n", b'""\\n')]
    [True, True, False, False, False]
    """
    return len(line) <= _LONGEST_EMPTY and line in _EMPTY


def read_header(lines: Iterator[bytes]) -> bytes:
    """Take the header from the lines of a file, with the empty lines before it."""
    head = b""
    for line in lines:
        head += line
        if not is_empty(line):
            break
    return head


def split_record(record: bytes) -> list[str]:
    """Return the fields of a record, or the names in a head."""
    text = record.decode("utf-8-sig").lstrip("\r\n")
    if '"' not in text:  # much faster
        return text.rstrip("\r\n").split(",")
    return next(csv.reader(io.StringIO(text, newline="")), [])


def without_empty_lines(path: Path) -> Path | bytes:
    """Return what Polars is to read of a file: the file itself, or its content without its empty lines."""
    return b"".join(iter_records(path)) if _may_have_empty_lines(path) else path


def _may_have_empty_lines(path: Path) -> bool:
    """Look for line ends that follow each other, within quotes or not; those before the header are harmless."""
    end = b""
    with _open_decompressed(path) as file:
        while block := file.read(_BLOCK_BYTES):
            content = end + block
            if b"\n\n" in content or b"\n\r\n" in content:
                return True
            end = content[-2:]
    return end == b"\n\r"


@contextmanager
def _open_decompressed(path: Path) -> Iterator[IO[bytes]]:
    with open(open_regular_file(path), "rb") as file:
        if (codec := _detect_codec(file)) is None:
            yield file
            return
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) as stream:
            limit = max(MIN_DECOMPRESSED_BYTES, MAX_COMPRESSION_RATIO * os.fstat(file.fileno()).st_size)
            yield io.BufferedReader(_Readable(stream, limit), _BLOCK_BYTES)


def _detect_codec(file: BinaryIO) -> str | None:
    """Return the codec of a file that is open at its beginning; None if it is not compressed."""
    first = file.read(max(map(len, _MAGIC)))
    file.seek(0)
    return next((codec for magic, codec in _MAGIC.items() if first.startswith(magic)), None)


class _Readable(io.RawIOBase):
    """Adapt an Arrow stream to a Python file that raises ValueError if it contains more than `limit` bytes."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._rest = stream, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self._rest -= len(content)
        if self._rest < 0:
            raise ValueError("a compressed file contains too much")
        return len(content)


def write_csv(frame: pl.DataFrame, file: BinaryIO, *, header: bool) -> None:
    """Append the rows of a frame to a file; booleans as `True`, times as `datetime.isoformat()`, lists as JSON arrays.

    The file accepts a whole buffer at once, as `WholeFile` does.

    Raises:
        OSError: The file cannot take them.
    """
    for rows in frame.iter_slices(_ROWS_AT_ONCE) if frame.height else [frame]:  # a header needs no row
        texts = [_truth_text(name) for name in rows.select(cs.boolean()).columns]
        texts += [_time_text(column) for column in rows.select(cs.datetime())] + encode_lists(rows.schema)
        buffer = io.BytesIO()
        rows.with_columns(texts).write_csv(buffer, include_header=header)
        file.write(buffer.getbuffer())
        header = False


def _truth_text(name: str) -> pl.Expr:
    truth = pl.col(name)
    return pl.when(truth).then(pl.lit("True")).when(~truth).then(pl.lit("False")).alias(name)


def _time_text(times: pl.Series) -> pl.Expr:
    """Return times as text; the single time of a constant column, such as export_date, is formatted once.

    Whole seconds, as most databases store them, are formatted without a fraction that would have to be removed again.
    """
    instants = times.to_physical()
    if times.null_count() == 0 and instants.min() == instants.max() is not None:
        once = times.head(1).to_frame().select(iso_timestamp(times.name)).item()
        return pl.lit(once).alias(times.name)
    if times.dtype == pl.Datetime("us", "UTC") and (instants % 1_000_000 == 0).all():
        return pl.col(times.name).dt.replace_time_zone(None).dt.to_string("%Y-%m-%dT%H:%M:%S")
    return iso_timestamp(times.name).alias(times.name)


def scan_text(storage: Storage, manifest: Manifest) -> pl.LazyFrame:
    """Scan the data files of an export, one after the other, with all columns as text; escaped texts are restored.

    Raises:
        ExportFileError: An adopted or a compressed file cannot be read, or contains too much.
    """
    names = [file.path for file in manifest.all("pairs")]
    options = storage.polars_options
    if not names[0].endswith(".parquet"):
        return scan_csv_text(get_csv_sources(storage, manifest, names), list_escaped(manifest), storage_options=options)
    frame = pl.scan_parquet([storage.uri(name) for name in names], glob=False, storage_options=options)
    schema = frame.collect_schema()
    times = [iso_timestamp(name) for name in cs.expand_selector(schema, cs.datetime())]
    truths = cs.boolean().replace_strict({True: "True", False: "False"}, return_dtype=pl.String)
    return frame.with_columns(*times, *encode_lists(schema)).with_columns(truths).with_columns(pl.all().cast(pl.String))


def scan_csv_text(sources: Any, escaped: Iterable[str], **options: Any) -> pl.LazyFrame:
    """Scan CSV files with all columns as text, and restore the escaped texts of these columns."""
    return pl.scan_csv(sources, infer_schema=False, glob=False, **options).with_columns(map(unescape, escaped))


def list_escaped(manifest: Manifest) -> list[str]:
    """Return the columns whose texts are escaped in the CSV files of an export."""
    escaped = manifest.statistics.get("escaped_texts")
    return [name for name in manifest.columns if isinstance(escaped, dict) and name in escaped]


def get_csv_sources(storage: Storage, manifest: Manifest, names: Sequence[str]) -> list[Any]:
    """Return the sources of CSV files for Polars: their locations, or the records of an adopted file.

    Raises:
        ExportFileError: An adopted or a compressed file cannot be read, or contains too much.
    """
    addresses = [storage.uri(name) for name in names]
    for path in filter(None, map(storage.local_path, names)):
        with translate_read_errors(path):
            if manifest.mode == ADOPTED:
                return [without_empty_lines(path)]
            _require_bounded(path)
    return addresses  # what this package writes has no empty lines


def _require_bounded(path: Path) -> None:
    """Decompress a compressed file, to raise one of `READ_ERRORS` before Polars decompresses all of it in memory."""
    with _open_decompressed(path) as content:
        while isinstance(getattr(content, "raw", None), _Readable) and content.read(_BLOCK_BYTES):
            pass  # other files are not read: they are not compressed
