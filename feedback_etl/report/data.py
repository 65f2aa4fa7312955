"""Collect the data of a report from manifests, data files and audit logs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_verification import VerificationResult, verify_folder
from feedback_etl.records.layout import DATA_SUFFIXES
from feedback_etl.records.manifest import Manifest
from feedback_etl.report.columns import Column, list_columns
from feedback_etl.report.comparison import measure_overlap
from feedback_etl.report.distribution import Distribution, compute_distribution
from feedback_etl.report.drift import Drift, can_drift, measure_drift
from feedback_etl.report.outcomes import ExportOutcome, account_for_rows, list_outcomes
from feedback_etl.report.rows import Rows, read_columns
from feedback_etl.report.selection import Selection, refresh_exports, select_exports
from feedback_etl.storage.location import open_storage, require_storage
from feedback_etl.storage.urls import is_object_store
from feedback_etl.training.committed_export import CommittedExport

_PERSON = "subject_hash"
_SIZES = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 49), (50, None))


class ClassSize(NamedTuple):
    """Number of equivalence classes of a size.

    Attributes:
        label: Size, or range of sizes.
        small: Whether the classes are smaller than 5.
        classes: Number of classes.
        rows: Rows in these classes.
    """

    label: str
    small: bool
    classes: int
    rows: int


class ReportData(NamedTuple):
    """Data of a report.

    Attributes:
        created_at: Time of the report, UTC.
        folders: Folders or prefixes of the exports.
        exports: Manifests, the oldest first; pruned ones too.
        outcomes: Names and figures of these exports.
        account: What became of the exported rows, from those of all exports to `rows`; see `account_for_rows`.
        selection: Exports whose rows, columns, classes and drift are reported, and how many are excluded, and why.
        rows: Rows of the selected exports, each pair once.
        dictionary: Columns of the selected exports.
        quasi_identifiers: Quasi-identifiers of the equivalence classes.
        sizes: Sizes of the equivalence classes, the smallest first.
        person: Column whose values are counted as people in classes and distributions.
        overlap: Share of the newer window of the two compared exports that is in the older one too, 0 to 1; None if
            they overlap by an unknown share.
        drift: Drift between the two, the largest first.
        verdicts: Verification of the audit log of each folder.
    """

    created_at: datetime
    folders: list[str]
    exports: list[Manifest]
    outcomes: list[ExportOutcome]
    account: list[tuple[str, int]]
    selection: Selection
    rows: int
    dictionary: list[Distribution]
    quasi_identifiers: list[str]
    sizes: list[ClassSize]
    person: str
    overlap: float | None
    drift: list[Drift]
    verdicts: dict[str, VerificationResult]


def collect_data(exports: Sequence[CommittedExport], keys: Iterable[Key], created_at: datetime) -> ReportData:
    """Collect the data of a report on exports, the oldest first.

    Only a few columns of all rows are in memory at a time.

    Raises:
        ExportFileError: A file cannot be read, or does not match its manifest.
    """
    keys, folders = list(keys), list(dict.fromkeys(str(export.storage) for export in exports))
    refreshed = refresh_exports(exports)
    selection = select_exports(refreshed)
    rows, columns = Rows(selection.combined), _list_columns(selection.combined)
    has_people = [_PERSON in export.manifest.columns for export in selection.combined]
    person = _PERSON if has_people and all(has_people) else "analysis_hash"
    quasi_identifiers = [name for name in _find_quasi_identifiers(selection.combined) if name in columns]
    row_count = rows.read(person).height
    return ReportData(
        created_at=created_at,
        folders=folders,
        exports=[export.manifest for export in exports],
        outcomes=list_outcomes(exports),
        account=account_for_rows(exports, refreshed, selection.combined, row_count),
        selection=selection,
        rows=row_count,
        dictionary=[
            compute_distribution(rows.read(name, person), column, person=person) for name, column in columns.items()
        ],
        quasi_identifiers=quasi_identifiers,
        sizes=_count_sizes(rows.read(*quasi_identifiers, person), quasi_identifiers, person)
        if quasi_identifiers
        else [],
        person=person,
        overlap=measure_overlap(*selection.compared) if selection.compared else 0.0,
        drift=_measure_drift(selection.compared, columns),
        verdicts={folder: verify_folder(folder, keys) for folder in folders},
    )


def _list_columns(exports: Sequence[CommittedExport]) -> dict[str, Column]:
    """Return the columns of all exports by name, as in the newest; a column that one export hides is hidden."""
    columns = [column for export in exports for column in list_columns(export.manifest)]
    hidden = {column.name for column in columns if column.kind == "hidden"}
    return {column.name: column for column in columns if column.kind == "hidden" or column.name not in hidden}


def _measure_drift(compared: Sequence[CommittedExport], columns: Mapping[str, Column]) -> list[Drift]:
    """Measure the drift in the columns that two exports have in common; empty without two exports."""
    if not compared:
        return []
    before, now = compared
    common = {*before.manifest.columns} & {*now.manifest.columns}
    comparable = [column for name, column in columns.items() if name in common and can_drift(column)]
    names = [column.name for column in comparable]
    return measure_drift(read_columns(before, names), read_columns(now, names), comparable)


def find_report_exports(locations: Iterable[str | Path]) -> list[CommittedExport]:
    """Find the exports of folders, prefixes of object stores and data files, the oldest first.

    Raises:
        UsageError: A folder or a file does not exist.
        ExportFileError: A folder has no export, a file has no manifest, or a manifest cannot be read.
    """
    exports = (export for location in locations for export in _list_exports(location))
    distinct = {(str(export.storage), export.manifest.stem): export for export in exports}
    return sorted(distinct.values(), key=lambda export: (export.manifest.created_at, export.manifest.stem))


def _list_exports(location: str | Path) -> list[CommittedExport]:
    """List the exports of a folder or prefix, or the export of a data file."""
    path = Path(location)
    is_file = path.name.endswith(DATA_SUFFIXES) and not is_object_store(str(location))
    if is_file and not path.exists():
        raise UsageError(f"There is no file {path}.")
    storage = open_storage(path.parent if is_file else location)
    require_storage(storage)
    manifests = list_exports(storage).exports
    if is_file:
        manifests = [manifest for manifest in manifests if not manifest.pruned_at and manifest.data == path.name]
    if is_file and not manifests:
        raise ExportFileError(
            f"{path} is not a data file with a manifest. Create one with `feedback-etl adopt FILE`, or name a folder."
        )
    if not manifests:
        raise ExportFileError(f"{storage} contains no exports; create one with `feedback-etl export`.")
    return [CommittedExport.from_manifest(storage, manifest) for manifest in manifests]


def _find_quasi_identifiers(exports: Sequence[CommittedExport]) -> Sequence[str]:
    """Return the quasi-identifiers of the newest export with a measured risk."""
    risks: list[dict[str, Any]] = [export.manifest.risk for export in reversed(exports) if export.manifest.risk]
    return risks[0]["quasi_identifiers"] if risks else exports[-1].manifest.schema.quasi_identifiers if exports else ()


def _count_sizes(frame: pl.DataFrame, quasi_identifiers: list[str], person: str) -> list[ClassSize]:
    """Count the equivalence classes of each size."""
    classes = frame.group_by(quasi_identifiers).agg(pl.col(person).n_unique().alias("size"), pl.len().alias("rows"))
    sizes = []
    for least, most in _SIZES:
        matching = classes.filter(pl.col("size") >= least, pl.col("size") <= (most or pl.col("size")))
        label = str(least) if least == most else f"{least} to {most}" if most else f"{least} or more"
        sizes.append(ClassSize(label, least < 5, matching.height, int(matching["rows"].sum())))
    return sizes
