"""Removal of rows from files: other rows keep their bytes (CSV) or their values and order (Parquet)."""

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from feedback_etl.data_files.csv_files import (
    is_empty,
    iter_lines,
    iter_records,
    read_header,
    split_record,
    translate_read_errors,
)
from feedback_etl.data_files.file_formats import Compression, HashingWriter, open_compressed
from feedback_etl.schema.model import SUBJECT_HASH

PSEUDONYM = "analysis_hash"
LINKED = "linked_hash"
"""In the links of a shared export, the pseudonym that the analysis of a row has within the organisation."""
_PARQUET = (".parquet", ".pending", ".members")
"""Suffixes of Parquet files; the state of a series has others, so that a glob of `.parquet` finds the pairs alone."""
_BLOCK_RECORDS = 10_000
_CODECS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


NO_ANALYSIS = "\0"
"""In a list of rejected rows, a row without an analysis goes by this, which is in no id, and its feedback id."""


def list_pseudonyms(path: Path, name: str) -> set[str]:
    """Return all pseudonyms in a file; its final name determines its format.

    Raises:
        ExportFileError: It cannot be read.
    """
    with translate_read_errors(path):
        return set().union(*_iter_pseudonyms(path, name))


def find_analyses(path: Path, name: str, subjects: Set[str]) -> dict[str, str]:
    """Return the subject of each analysis of these subjects, by pseudonym; none without a subject column.

    Raises:
        ExportFileError: The file cannot be read.
    """
    if SUBJECT_HASH.name not in read_columns(path):
        return {}
    with translate_read_errors(path):
        return {analysis: subject for analysis, subject in _iter_subjects(path, name) if subject in subjects}


def _iter_subjects(path: Path, name: str) -> Iterator[tuple[str, str]]:
    names = (PSEUDONYM, SUBJECT_HASH.name)
    if name.endswith(_PARQUET):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(names)):
                yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        return
    records = iter_records(path)
    header = split_record(next(records, b""))
    indexes = [header.index(name) for name in names]
    for fields in map(split_record, records):
        yield _get_field(fields, indexes[0]), _get_field(fields, indexes[1])


def read_columns(path: Path) -> list[str]:
    """Return the columns of a CSV or Parquet file; none if it is empty.

    Raises:
        ExportFileError: It cannot be read.
    """
    with translate_read_errors(path):
        if path.name.endswith(_PARQUET):
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        return split_record(next(iter_records(path), b""))


def count_rows(path: Path) -> int:
    """Return the number of rows of a CSV or Parquet file.

    Raises:
        ExportFileError: It cannot be read.
    """
    with translate_read_errors(path):
        if path.name.endswith(_PARQUET):
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        return max(0, sum(1 for _ in iter_records(path)) - 1)


def write_without(path: Path, name: str, unwanted: Set[str], target: IO[bytes]) -> tuple[HashingWriter, int]:
    """Rewrite a file without the rows of these pseudonyms; return its writer and its number of rows.

    Empty lines, which are not rows, stay where they are.
    """
    written = HashingWriter(target)
    if name.endswith(_PARQUET):
        return written, _filter_parquet(path, unwanted, written)
    sink, lines, rows = open_compressed(written, _CODECS.get(Path(name).suffix, "none")), iter_lines(path), 0
    try:
        with _abandon_on_failure(written):
            head = read_header(lines)
            identity = _build_identity(head)
            sink.write(head)
            for block in _batch_records(line for line in lines if is_empty(line) or identity(line) not in unwanted):
                sink.write(b"".join(block))
                rows += len(block) - sum(map(is_empty, block))
    finally:
        if sink is not written:
            sink.close()
    return written, rows


@contextmanager
def _abandon_on_failure(written: HashingWriter) -> Iterator[None]:
    """Abort the writer after an error, so that closing it writes nothing."""
    try:
        yield
    except BaseException:
        written.abandon()
        raise


def _batch_records(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Group records, since writing each alone would be slow."""
    records = iter(records)
    while block := list(islice(records, _BLOCK_RECORDS)):
        yield block


def _iter_pseudonyms(path: Path, name: str) -> Iterator[set[str]]:
    if name.endswith(_PARQUET):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[PSEUDONYM]):
                yield {str(value).lower() for value in batch.column(0).to_pylist()}
        return
    records = iter_records(path)
    yield set(map(_build_identity(next(records, b"")), records))


def _build_identity(header: bytes) -> Callable[[bytes], str]:
    """Build the function that identifies a record: by its pseudonym, or by its feedback id without one."""
    columns = split_record(header)
    index = columns.index(PSEUDONYM)
    feedback = columns.index("feedback_id") if "feedback_id" in columns else None

    def identity(record: bytes) -> str:
        fields = split_record(record)
        pseudonym = _get_field(fields, index).lower()
        if pseudonym or feedback is None:
            return pseudonym
        return NO_ANALYSIS + _get_field(fields, feedback)

    return identity


def _get_field(fields: list[str], number: int) -> str:
    """Return a field of a record; one that a short record lacks is empty."""
    return fields[number] if number < len(fields) else ""


def _filter_parquet(path: Path, unwanted: Set[str], written: HashingWriter) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    values, rows = pa.array(sorted(unwanted), pa.string()), 0
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        sink = pa.PythonFile(written, "w")
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer, _abandon_on_failure(written):
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)
                pseudonyms = pc.utf8_lower(group[PSEUDONYM].cast(pa.string()))
                kept = group.filter(pc.invert(pc.is_in(pseudonyms, values)))
                rows += kept.num_rows
                if kept.num_rows:
                    writer.write_table(kept)
    return rows
