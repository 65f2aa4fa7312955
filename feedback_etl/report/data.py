"""Collect the data of a report from manifests, data files and audit logs."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.columns import QUASI_IDENTIFIERS
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit_verification import VerificationResult, verify_folder
from feedback_etl.exports.layout import DATA_SUFFIXES
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.exports.manifest import Manifest
from feedback_etl.privacy.keys import Key
from feedback_etl.report.columns import Column, list_columns
from feedback_etl.report.distribution import Distribution, distribution
from feedback_etl.report.drift import Drift, can_drift, drift
from feedback_etl.report.rows import Export, Rows
from feedback_etl.report.selection import Chosen, choose, refresh_exports
from feedback_etl.storage.location import open_storage
from feedback_etl.storage.urls import is_object_store
from feedback_etl.training.committed_export import may_share_pairs

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


class Gathered(NamedTuple):
    """Data of a report.

    Attributes:
        made_at: Time of the report, UTC.
        folders: Folders or prefixes of the exports.
        exports: Manifests, the oldest first; pruned ones too.
        chosen: Exports whose rows, columns, classes and drift are reported, and how many are excluded, and why.
        rows: Rows of the chosen exports, each pair once.
        dictionary: Columns of the chosen exports.
        quasi_identifiers: Quasi-identifiers of the equivalence classes.
        sizes: Sizes of the equivalence classes, the least first.
        person: Column whose values are counted as people in classes and distributions.
        overlap: Share of the newer window of the two compared exports that is in the older one too, 0 to 1; None if
            they overlap by an unknown share.
        drift: Drift between the two, the greatest first.
        verdicts: Verification of the audit log of each folder.
    """

    made_at: datetime
    folders: list[str]
    exports: list[Manifest]
    chosen: Chosen
    rows: int
    dictionary: list[Distribution]
    quasi_identifiers: list[str]
    sizes: list[ClassSize]
    person: str
    overlap: float | None
    drift: list[Drift]
    verdicts: dict[str, VerificationResult]


def gather(exports: Sequence[Export], keys: Iterable[Key], made_at: datetime) -> Gathered:
    """Collect the data of a report on exports, the oldest first.

    Only a few columns of all rows are in memory at a time.

    Raises:
        ExportFileError: A file cannot be read, or does not match its manifest.
    """
    keys, folders = list(keys), list(dict.fromkeys(str(each.storage) for each in exports))
    chosen = choose(refresh_exports(exports))
    rows, columns = Rows(chosen.together), _columns(chosen.together)
    has_people = [_PERSON in each.manifest.columns for each in chosen.together]
    person = _PERSON if has_people and all(has_people) else "analysis_hash"
    known = [name for name in _quasi_identifiers(chosen.together) if name in columns]
    return Gathered(
        made_at=made_at,
        folders=folders,
        exports=[each.manifest for each in exports],
        chosen=chosen,
        rows=rows.read(person).height,
        dictionary=[distribution(rows.read(name, person), each, person=person) for name, each in columns.items()],
        quasi_identifiers=known,
        sizes=_sizes(rows.read(*known, person), known, person) if known else [],
        person=person,
        overlap=_overlap(chosen.compared),
        drift=_drift(chosen.compared, columns),
        verdicts={folder: verify_folder(folder, list_exports(folder).exports, keys) for folder in folders},
    )


def _columns(exports: Sequence[Export]) -> dict[str, Column]:
    """Return the columns of all exports by name, as in the newest; a column that one export hides is hidden."""
    found = [column for each in exports for column in list_columns(each.manifest)]
    hidden = {each.name for each in found if each.kind == "hidden"}
    return {each.name: each for each in found if each.kind == "hidden" or each.name not in hidden}


def _drift(compared: Sequence[Export], columns: Mapping[str, Column]) -> list[Drift]:
    """Measure the drift in the columns that two exports have in common; empty without two exports."""
    if not compared:
        return []
    before, now = compared
    both = [each for name, each in columns.items() if name in before.manifest.columns and name in now.manifest.columns]
    comparable = [each for each in both if can_drift(each)]
    names = [each.name for each in comparable]
    return drift(before.read(names), now.read(names), comparable)


def _overlap(compared: Sequence[Export]) -> float | None:
    """Return the overlap of two windows; exports of one series share no row, and adopted files have no window."""
    both = [each.committed for each in compared]
    if not both or not all(each.manifest.window[1] for each in both) or not may_share_pairs(*both):
        return 0.0
    (start, end), (newer_start, newer_end) = (each.window for each in both)
    if newer_start == datetime.min:
        return None
    return (min(end, newer_end) - max(start, newer_start)) / (newer_end - newer_start)


def find_report_exports(places: Iterable[str | Path]) -> list[Export]:
    """Find the exports of folders, prefixes of object stores and data files, the oldest first.

    Raises:
        ExportFileError: A folder has no export, a file has no manifest, or a manifest cannot be read.
    """
    found = {(str(each.storage), each.manifest.stem): each for storage in places for each in _exports_at(storage)}
    return sorted(found.values(), key=lambda each: (each.manifest.created_at, each.manifest.stem))


def _exports_at(named: str | Path) -> list[Export]:
    path = Path(named)
    is_file = path.name.endswith(DATA_SUFFIXES) and not is_object_store(str(named))
    storage = open_storage(path.parent if is_file else named)
    found = [Export(storage, manifest) for manifest in list_exports(storage).exports]
    if not is_file and not found:
        raise ExportFileError(f"{storage} contains no exports; create one with `feedback-etl export`.")
    if is_file and not (found := [each for each in found if each.paths == [path.name]]):
        raise ExportFileError(
            f"{path} is not a data file with a manifest. Create one with `feedback-etl adopt FILE`, or name a folder."
        )
    return found


def _quasi_identifiers(exports: Sequence[Export]) -> Sequence[str]:
    """Return the quasi-identifiers of the newest export with a measured risk."""
    risks: list[dict[str, Any]] = [each.manifest.risk for each in reversed(exports) if each.manifest.risk]
    return risks[0]["quasi_identifiers"] if risks else QUASI_IDENTIFIERS


def _sizes(frame: pl.DataFrame, known: list[str], person: str) -> list[ClassSize]:
    """Count the equivalence classes of each size."""
    classes = frame.group_by(known).agg(pl.col(person).n_unique().alias("size"), pl.len().alias("rows"))
    found = []
    for least, most in _SIZES:
        some = classes.filter(pl.col("size") >= least, pl.col("size") <= (most or pl.col("size")))
        label = str(least) if least == most else f"{least} to {most}" if most else f"{least} or more"
        found.append(ClassSize(label, least < 5, some.height, int(some["rows"].sum())))
    return found
