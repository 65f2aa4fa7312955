"""The files of the parts of an export: their order, and whether they are complete."""

from collections import Counter
from collections.abc import Iterable

from feedback_etl.errors import ExportFileError
from feedback_etl.records.layout import parse_part_number
from feedback_etl.records.manifest import DataFile
from feedback_etl.results import ExportReport


def by_number(file: DataFile) -> tuple[str, int]:
    """Return the sort key of parts; by name, `part-100000` would come before `part-99999`."""
    return file.kind, parse_part_number(file.path)


def require_all(files: Iterable[DataFile], report: ExportReport) -> None:
    """Verify that the parts contain the rows that were counted, so that no lost file goes unnoticed.

    Raises:
        ExportFileError: A kind of files contains another number of rows.
    """
    contained = Counter[str]()
    for file in files:
        contained[file.kind] += file.rows
    expected = {"pairs": report.exported_records, "rejected": report.errors, "pending": report.pending_records}
    for kind, rows in expected.items():
        if contained[kind] != rows:
            raise ExportFileError(
                f"The parts contain {contained[kind]:,} rows ({kind}), but {rows:,} were counted: nothing was "
                "published. Run again."
            )
