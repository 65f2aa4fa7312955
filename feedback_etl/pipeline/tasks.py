"""Tasks for workers and their results: small values that any executor can send.

They contain no database URL, no key and no ids; workers find the URL and the key in their own environment.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.data_files.series_cursor import SeriesCursor
from feedback_etl.pipeline.batch_results import BatchCounts
from feedback_etl.pipeline.transform_options import TransformOptions
from feedback_etl.records.manifest import DataFile


class SeriesContext(NamedTuple):
    """Values that the tasks of an incremental export share.

    Attributes:
        earlier: File of the rows that earlier exports of the series have read; None if there are none.
        since: From when on rows are remembered for the next export; None for all.
        cursor: The time by which the series continues.
        counts_people: Whether spooled rows contain digests of their people, since k is that of the series.
    """

    earlier: DataFile | None
    since: datetime | None
    cursor: SeriesCursor
    counts_people: bool


@dataclass(frozen=True)
class TaskContext:
    """Values that all tasks of an export share.

    Attributes:
        destination: Folder or object-store prefix of the export, as the caller named it.
        stem: Common part of its file names.
        file_format: Format of its parts.
        transform_options: Options that decide what happens to a row; without the key.
        version: Version of this package, which workers must have as well.
        key_id: Id of the key that workers must have; None for unkeyed exports.
        erasures: Erasures that were recorded before the export began. Later ones are applied by the coordinator, so
            that a task that runs twice writes the same part.
        prepare: Statements that prepare each connection.
        batch_size: Rows per batch.
        connect_timeout: Seconds to wait for the database.
        read_timeout: Seconds without a row after which reading fails.
        series: What the tasks of an incremental export need; None for other exports.
    """

    destination: str
    stem: str
    file_format: FileFormat
    transform_options: TransformOptions
    version: str
    key_id: str | None
    erasures: frozenset[str]
    prepare: tuple[str, ...]
    batch_size: int
    connect_timeout: float
    read_timeout: float
    series: SeriesContext | None = None


@dataclass(frozen=True)
class PartTask:
    """Write a part of an export: read its range, transform, validate, write.

    Attributes:
        export: Values that all tasks of the export share.
        number: Number of the part, which its name contains.
        query: Statement that reads the range.
        attempt: Makes retries differ, for executors that cache tasks by their content.
    """

    export: TaskContext = field(repr=False)
    number: int
    query: str = field(repr=False)
    attempt: int = 1


@dataclass(frozen=True)
class ReleaseTask:
    """Write the spooled rows of a part, without those of equivalence classes that are too small.

    Attributes:
        export: Values that all tasks of the export share.
        number: Number of the part.
        spooled: File of the spooled rows, as recorded when it was written.
        attempt: As in `PartTask`.
    """

    export: TaskContext = field(repr=False)
    number: int
    spooled: DataFile
    attempt: int = 1


Task = PartTask | ReleaseTask


class TaskResult(NamedTuple):
    """Result of a task.

    Attributes:
        number: Number of the part.
        files: Written files: a part of the pairs, of the rejected rows and of the seen rows, or some of them.
        counts: Counts of the rows; None if an earlier task counted them.
        spooled: The file of spooled rows; None if there are none.
        escaped_texts: Number of escaped texts in the part, by column.
    """

    number: int
    files: list[DataFile]
    counts: BatchCounts | None
    spooled: DataFile | None = None
    escaped_texts: dict[str, int] = {}  # noqa: RUF012  it is not changed
