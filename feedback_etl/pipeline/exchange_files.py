"""Files by which the coordinator and the workers of an export exchange rows until its commit."""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import polars as pl

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.records.layout import earlier_seen_rows_path, parse_part_number, small_classes_path
from feedback_etl.records.manifest import DataFile
from feedback_etl.storage.base import Storage
from feedback_etl.storage.posix import hash_file


@contextmanager
def open_spooled_part(storage: Storage, spooled: DataFile) -> Iterator[Iterator[pl.DataFrame]]:
    """Open the spooled rows of a part, in order.

    The file is read twice, first for its digest: one that was truncated between two batches looks complete.

    Raises:
        ExportFileError: The file is missing or was changed.
    """
    import pyarrow as pa

    with ExitStack() as stack:
        try:
            path = stack.enter_context(storage.local_copy(spooled.path))
            content = path.stat().st_size, hash_file(path)
        except FileNotFoundError:
            content = None
        if content != (spooled.bytes, spooled.sha256):
            raise ExportFileError(
                f"{spooled.path} with {spooled.rows:,} spooled rows {'was changed' if content else 'is missing'}: "
                "nothing was published. Let all workers share the folder."
            )
        file = stack.enter_context(pa.OSFile(str(path)))
        stream = stack.enter_context(pa.ipc.open_stream(file))
        yield (pl.DataFrame(batch) for batch in stream)


def read_spooled_rows(storage: Storage, spooled: Sequence[DataFile]) -> Iterator[pl.DataFrame]:
    """Yield the spooled rows of all parts in order."""
    for file in sorted(spooled, key=lambda file: parse_part_number(file.path)):
        with open_spooled_part(storage, file) as frames:
            yield from frames


def write_small_classes(storage: Storage, stem: str, changes: pl.DataFrame) -> None:
    """Write the equivalence classes that are too small, and what happens to them, to where workers find them."""
    content = io.BytesIO()
    changes.write_ipc(content)
    storage.put_new(small_classes_path(stem), content.getvalue())


def write_earlier_seen_rows(storage: Storage, stem: str, seen_rows: pl.DataFrame) -> DataFile | None:
    """Write the seen rows of earlier exports to where workers find them: others may delete the files of those."""
    with PartWriter(storage, earlier_seen_rows_path(stem), FileFormat()) as file:
        file.append(seen_rows)
        return next(iter(file.publish("rows")), None)
