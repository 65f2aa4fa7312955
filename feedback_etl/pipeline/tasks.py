"""What a head gives to workers, and what they give back: small values that any engine can send.

None holds the database's URL, the key, or an id: workers find URL and key in their own environment.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from feedback_etl.exports.file_formats import FileFormat
from feedback_etl.exports.manifest import DataFile
from feedback_etl.pipeline.batch_processor import Tally
from feedback_etl.pipeline.transform_options import TransformOptions


@dataclass(frozen=True)
class Export:
    """What all tasks of an export have in common.

    Attributes:
        place: Where it goes, as the caller named it.
        stem: What its files are named after.
        form: Of its parts.
        rules: What becomes of a row; without the key.
        version: Of this package, which has to be the workers' too.
        key_id: Which key the workers have to find; None for the unkeyed form.
        erasures: Who was forgotten before it began: later ones are the head's business, so that a task that runs twice
            gives the same part.
        prepare: Statements that begin a connection.
        batch_size: How many rows are worked on at once.
        connect_timeout: Seconds to wait for the database.
        read_timeout: Seconds without a row after which the database is given up.
    """

    place: str
    stem: str
    form: FileFormat
    rules: TransformOptions
    version: str
    key_id: str | None
    erasures: frozenset[str]
    prepare: tuple[str, ...]
    batch_size: int
    connect_timeout: float
    read_timeout: float


@dataclass(frozen=True)
class PartTask:
    """Make a part of an export: read its range, transform, validate, write.

    Attributes:
        number: Which part; its name follows from it.
        query: The statement that reads the range.
        attempt: Engines that know a task by its content would not do the same one again.
    """

    export: Export = field(repr=False)
    number: int
    query: str = field(repr=False)
    attempt: int = 1


@dataclass(frozen=True)
class ThinTask:
    """Let the rows of a part that wait through, but for those of classes that are too small.

    Attributes:
        number: Which part.
        waiting: The file in which its rows wait, as it was written.
        attempt: As of `PartTask`.
    """

    export: Export = field(repr=False)
    number: int
    waiting: DataFile
    attempt: int = 1


Task = PartTask | ThinTask


class Made(NamedTuple):
    """What a task has made.

    Attributes:
        number: Of which part.
        files: What it wrote: a part of the pairs, a part of the list of rejected rows, or neither.
        tally: What it counted; None where the rows were counted before.
        waiting: The file in which rows of it wait; None where none do.
    """

    number: int
    files: list[DataFile]
    tally: Tally | None
    waiting: DataFile | None = None
