"""Write the parts of an incremental export with k: the coordinator decides which spooled rows leave, and which wait."""

from collections.abc import Generator, Iterable, Sequence

import polars as pl

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.series_release import SeriesRelease
from feedback_etl.pipeline.shared_files import open_spooled_part
from feedback_etl.pipeline.tasks import TaskResult
from feedback_etl.records.layout import members_part_path, parse_part_number, part_path, pending_part_path
from feedback_etl.records.manifest import DataFile


def read_spooled_rows(request: ExportRequest, spooled: Sequence[DataFile], release: SeriesRelease) -> None:
    """Let a release that follows changes see the spooled rows before it decides."""
    for file in sorted(spooled, key=lambda file: parse_part_number(file.path)) if request.follows_changes else ():
        with open_spooled_part(request.storage, file) as frames:
            for rows in frames:
                release.spool(rows)


def write_series_parts(
    request: ExportRequest, stem: str, spooled: Sequence[DataFile], release: SeriesRelease
) -> Generator[TaskResult, None, None]:
    """Write the rows that were pending, then each spooled part, and last the members of the classes."""
    yield _write_part(request, stem, 0, [release.release_pending()])
    for number, file in enumerate(sorted(spooled, key=lambda file: parse_part_number(file.path)), 1):
        with open_spooled_part(request.storage, file) as frames:
            yield _write_part(request, stem, number, map(release.release, frames))
    with PartWriter(request.storage, members_part_path(stem), FileFormat("parquet")) as members:
        members.append(release.members.rows)
        yield TaskResult(0, members.publish("members"), None)


def _write_part(
    request: ExportRequest, stem: str, number: int, released: Iterable[tuple[pl.DataFrame, pl.DataFrame]]
) -> TaskResult:
    """Write rows that leave, and rows that wait."""
    storage, file_format = request.storage, request.output.file_format
    with (
        PartWriter(storage, part_path(stem, number, file_format.suffix), file_format, request.metadata) as pairs,
        PartWriter(storage, pending_part_path(stem, number), FileFormat("parquet")) as pending,
    ):
        for leaving, waiting in released:
            pairs.append(leaving)
            pending.append(waiting)
        files = [*pending.publish("pending"), *pairs.publish("pairs")]
        return TaskResult(number, files, None, escaped_texts=pairs.escaped_texts)
