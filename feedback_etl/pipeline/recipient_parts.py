"""Write the parts of an export for a recipient: the coordinator orders the rows of all of them by their pseudonyms."""

from collections.abc import Iterator, Sequence

import polars as pl

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.part_writer import PartWriter
from feedback_etl.pipeline.exchange_files import read_spooled_rows
from feedback_etl.pipeline.release import release_pairs
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.pipeline.tasks import TaskResult
from feedback_etl.privacy.sharing import RowPseudonyms
from feedback_etl.records.layout import part_path, state_part_path
from feedback_etl.records.manifest import DataFile


def write_recipient_parts(
    request: ExportRequest, stem: str, spooled: Sequence[DataFile], changes: pl.DataFrame, pseudonyms: RowPseudonyms
) -> Iterator[TaskResult]:
    """Write the spooled rows in the order of their pseudonyms, a range of these a part, without small classes.

    Parts in the order of time would give the time of a row to the range of its part.
    """
    storage, form = request.storage, request.output.file_format
    options = request.transform_options
    frames = (release_pairs(frame, changes, options) for frame in read_spooled_rows(storage, spooled))
    rows = sum(file.rows for file in spooled)
    for number, (part, linked) in enumerate(pseudonyms.prepare(frames, rows)):
        with (
            PartWriter(storage, part_path(stem, number, form.suffix), form, request.metadata) as pairs,
            PartWriter(storage, state_part_path(stem, "links", number), FileFormat()) as links,
        ):
            pairs.append(part)
            links.append(linked)
            files = [*links.publish("links"), *pairs.publish("pairs")]
            yield TaskResult(number, files, None, escaped_texts=pairs.escaped_texts)
