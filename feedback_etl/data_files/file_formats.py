"""Writers of rows as CSV (plain, gzip, zstd) or Parquet, with the size and the digest of the written bytes."""

import hashlib
import io
import zlib
from collections import Counter
from contextlib import suppress
from typing import IO, Any, Literal, NamedTuple, get_args

import polars as pl

from feedback_etl.data_files.csv_files import write_csv
from feedback_etl.errors import UsageError
from feedback_etl.storage.whole_files import write_whole
from feedback_etl.transform.formulas import escape_texts

Format = Literal["csv", "parquet"]
Spooled = Literal["arrow"]
"""The format of spooled rows, which may have to be suppressed."""
Compression = Literal["none", "gzip", "zstd"]
Formulas = Literal["escape", "reject", "allow"]

_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_GZIP_LEVEL = 5
"""Three times as fast as the greatest level, for a file one percent larger (CSV of an export)."""
_GZIP_FORMAT = 31
"""zlib's code for the largest window with a header and a trailer of gzip (RFC 1952)."""


class FileFormat(NamedTuple):
    """Describe the format and the compression of a data file.

    Attributes:
        format: The format.
        compression: The compression of a CSV file.
        formulas: What happens in CSV to texts that spreadsheet programs would run; files of this package's own state
            are written as they are.
    """

    format: Format | Spooled = "csv"
    compression: Compression = "none"
    formulas: Formulas = "allow"

    def checked(self) -> "FileFormat":
        """Return the format itself, if it is valid.

        Raises:
            UsageError: A value does not exist, or a Parquet file is to be compressed as a whole.
        """
        if self.format not in get_args(Format):
            raise UsageError('`format` must be "csv" or "parquet".')
        if self.compression not in get_args(Compression):
            raise UsageError('`compression` must be "none", "gzip" or "zstd".')
        if self.formulas not in get_args(Formulas):
            raise UsageError('`formulas` must be "escape", "reject" or "allow".')
        if self.format == "parquet" and self.compression != "none":
            raise UsageError("Parquet files are always compressed with zstd: `compression` is for CSV.")
        return self

    @property
    def escapes_formulas(self) -> bool:
        """Return whether formulas are escaped; Parquet files contain all texts as they are."""
        return self.format == "csv" and self.formulas == "escape"

    @property
    def rejects_formulas(self) -> bool:
        """Return whether rows with formulas are rejected."""
        return self.format == "csv" and self.formulas == "reject"

    @property
    def suffix(self) -> str:
        """Return the suffix of the file name."""
        return ".parquet" if self.format == "parquet" else f".csv{_SUFFIXES[self.compression]}"


class HashingWriter(io.RawIOBase):
    """Write a file sequentially and record the size and the SHA-256 digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        self._is_wanted = True

    def abandon(self) -> None:
        """Discard all further writes."""
        self._is_wanted = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write all of a buffer and return its size in bytes."""
        content = memoryview(data)
        if not self._is_wanted:
            return content.nbytes
        write_whole(self._file.write, content)
        self._digest.update(content)
        self.bytes += content.nbytes
        return content.nbytes

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.bytes

    @property
    def sha256(self) -> str:
        """Return the SHA-256 digest of the bytes written, as 64 hex characters."""
        return self._digest.hexdigest()


class _Gzip:
    """Write gzip without a file name or a time, so that equal rows give equal bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._compressor = file, zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)

    def write(self, data: Any) -> None:
        self._file.write(self._compressor.compress(data))

    def close(self) -> None:
        self._file.write(self._compressor.flush())


def open_compressed(file: Any, compress: Compression) -> Any:
    """Return a file that compresses its input and is complete once closed."""
    if compress == "none":
        return file
    if compress == "gzip":
        return _Gzip(file)
    import pyarrow as pa

    return pa.CompressedOutputStream(pa.PythonFile(file, "w"), compress)


class RowWriter:
    """Write frames of the same columns to one file, one after the other.

    Attributes:
        rows: The number of rows so far.
        escaped_texts: The number of escaped texts so far, by column.
    """

    def __init__(self, file: IO[bytes], form: FileFormat, metadata: dict[str, str] | None = None) -> None:
        self.written = HashingWriter(file)
        self.rows = 0
        self.escaped_texts = Counter[str]()
        self._form = form
        self._metadata = metadata or {}
        self._sink: Any = None
        self._schema: Any = None

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows.

        Raises:
            OSError: The file cannot take them.
        """
        if self._form.format != "csv":
            self._append_table(frame)
        else:
            if self._form.escapes_formulas:
                frame, escaped = escape_texts(frame)
                self.escaped_texts.update(escaped)
            write_csv(frame, self._text_sink(), header=not self.rows)
        self.rows += frame.height

    def finish(self) -> None:
        """Write the end of the file that its format requires."""
        if self._sink is not None and self._sink is not self.written:
            self._sink.close()

    def abandon(self) -> None:
        """Close the file unfinished; Arrow's compressors write to stderr if they are not closed."""
        self.written.abandon()
        with suppress(Exception):
            self.finish()

    def _text_sink(self) -> Any:
        if self._sink is None:
            self._sink = open_compressed(self.written, self._form.compression)
        return self._sink

    def _append_table(self, frame: pl.DataFrame) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table: pa.Table = frame.with_columns(pl.col(pl.Enum).cast(pl.String)).to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
        if self._sink is None:
            self._schema, file = table.schema.with_metadata(self._metadata), pa.PythonFile(self.written, "w")
            parquet = self._form.format == "parquet"
            self._sink = (
                pq.ParquetWriter(file, self._schema, compression="zstd")
                if parquet
                else pa.ipc.new_stream(file, self._schema)
            )
        self._sink.write_table(table.cast(self._schema))
