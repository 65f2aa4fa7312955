"""Write the parts of an incremental export with k: the coordinator decides which spooled rows are released."""

from collections.abc import Generator, Iterable, Sequence

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.pipeline.exchange_files import open_spooled_part
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.series_release import SeriesRelease, SplitRows
from feedback_etl.pipeline.tasks import TaskResult
from feedback_etl.privacy.series_rows import SeriesMembers
from feedback_etl.records.layout import parse_part_number, part_path, state_part_path
from feedback_etl.records.manifest import DataFile


def write_series_parts(
    request: ExportRequest, stem: str, spooled: Sequence[DataFile], release: SeriesRelease
) -> Generator[TaskResult, None, None]:
    """Write the rows that were pending, then each spooled part, and last the members of the classes."""
    result, members = _write_part(request, stem, 0, [release.earlier], release.members)
    yield result
    for number, file in enumerate(sorted(spooled, key=lambda file: parse_part_number(file.path)), 1):
        with open_spooled_part(request.storage, file) as frames:
            result, members = _write_part(request, stem, number, map(release.split, frames), members)
            yield result
    with PartWriter(request.storage, state_part_path(stem, "members", 0), FileFormat("parquet")) as writer:
        writer.append(members.rows)
        yield TaskResult(0, writer.publish("members"), None)


def _write_part(
    request: ExportRequest, stem: str, number: int, frames: Iterable[SplitRows], members: SeriesMembers
) -> tuple[TaskResult, SeriesMembers]:
    """Write released and pending rows; return the files, and the members with the people of released rows."""
    storage, file_format = request.storage, request.output.file_format
    with (
        PartWriter(storage, part_path(stem, number, file_format.suffix), file_format, request.metadata) as pairs,
        PartWriter(storage, state_part_path(stem, "pending", number), FileFormat("parquet")) as pending,
    ):
        for rows in frames:
            pairs.append(rows.pairs)
            pending.append(rows.pending)
            members = members.add(rows.released)
        files = [*pending.publish("pending"), *pairs.publish("pairs")]
        return TaskResult(number, files, None, escaped_texts=pairs.escaped_texts), members
