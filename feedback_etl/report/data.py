"""What a report tells: gathered from manifests, data files and audit logs, before anything is drawn."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from feedback_etl.columns import QUASI_IDENTIFIERS
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.audit import VerificationResult
from feedback_etl.exports.audit_verification import verify_folder
from feedback_etl.exports.layout import DATA_SUFFIXES
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.exports.manifest import Manifest
from feedback_etl.privacy.keys import Key
from feedback_etl.report.columns import Column, columns_of
from feedback_etl.report.distribution import Distribution, distribution
from feedback_etl.report.drift import Drift, can_drift, drift
from feedback_etl.report.rows import Export, Rows
from feedback_etl.report.selection import Chosen, choose, whole
from feedback_etl.storage.base import open_storage
from feedback_etl.storage.urls import is_object_store
from feedback_etl.training.export_catalog import may_share_pairs

_PERSON = "subject_hash"
_SIZES = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 49), (50, None))


class ClassSize(NamedTuple):
    """How many classes have a size.

    Attributes:
        label: The size, or from the least to the greatest.
        small: Whether somebody is easily found in one.
        classes: How many there are.
        rows: In all of them.
    """

    label: str
    small: bool
    classes: int
    rows: int


class Gathered(NamedTuple):
    """What is told.

    Attributes:
        made_at: When, UTC.
        folders: Where the exports are.
        exports: The manifests, the oldest first; pruned ones too.
        chosen: Those of which rows, columns, classes and drift are told, and how many are left out, and why.
        rows: Of the chosen together, each pair once.
        dictionary: The columns of the chosen together.
        quasi_identifiers: By which the classes were made.
        sizes: The sizes of the classes, the least first.
        person: The column whose values are counted as people in classes and distributions.
        overlap: How much of the window of the newer of the two exports that are compared is in that of the other too,
            from 0 to 1; None where they overlap and it is not known how far.
        drift: Between these, the greatest first.
        verdicts: What the audit log of each folder says.
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
    """Read what a report tells of exports, the oldest of which comes first.

    A few columns of all rows are in memory at a time.

    Raises:
        ExportFileError: There is no export, or a file cannot be read, or is not what its manifest says.
    """
    keys, folders = list(keys), list(dict.fromkeys(str(each.place) for each in exports))
    chosen = choose(whole(exports))
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
    """Those of all exports, by name, as the newest tells them; what one of them hides is hidden."""
    found = [column for each in exports for column in columns_of(each.manifest)]
    hidden = {each.name for each in found if each.kind == "hidden"}
    return {each.name: each for each in found if each.kind == "hidden" or each.name not in hidden}


def _drift(compared: Sequence[Export], columns: Mapping[str, Column]) -> list[Drift]:
    """Between two exports, in the columns that both have; none where there are not two."""
    if not compared:
        return []
    before, now = compared
    both = [each for name, each in columns.items() if name in before.manifest.columns and name in now.manifest.columns]
    comparable = [each for each in both if can_drift(each)]
    names = [each.name for each in comparable]
    return drift(before.read(names), now.read(names), comparable)


def _overlap(compared: Sequence[Export]) -> float | None:
    """Of the windows of two exports; those of a chain share no row, and those of adopted files are unknown."""
    both = [each.committed for each in compared]
    if not both or not all(each.manifest.window[1] for each in both) or not may_share_pairs(*both):
        return 0.0
    (start, end), (newer_start, newer_end) = (each.window for each in both)
    if newer_start == datetime.min:
        return None
    return (min(end, newer_end) - max(start, newer_start)) / (newer_end - newer_start)


def exports_of(places: Iterable[str | Path]) -> list[Export]:
    """The exports of folders or prefixes of object stores, and those whose data files are named, the oldest first.

    Raises:
        ExportFileError: A folder has none, a file has no manifest, or a manifest cannot be read.
    """
    found = {(str(each.place), each.manifest.stem): each for place in places for each in _exports_at(place)}
    return sorted(found.values(), key=lambda each: (each.manifest.created_at, each.manifest.stem))


def _exports_at(named: str | Path) -> list[Export]:
    path = Path(named)
    is_file = path.name.endswith(DATA_SUFFIXES) and not is_object_store(str(named))
    place = open_storage(path.parent if is_file else named)
    found = [Export(place, manifest) for manifest in list_exports(place).exports]
    if not is_file and not found:
        raise ExportFileError(f"{place} contains no exports; create one with `feedback-etl export`.")
    if is_file and not (found := [each for each in found if each.paths == [path.name]]):
        raise ExportFileError(
            f"{path} is no data file that has a manifest. `feedback-etl adopt FILE` gives it one; or name a folder."
        )
    return found


def _quasi_identifiers(exports: Sequence[Export]) -> Sequence[str]:
    """Those of the newest export that tells them."""
    told: list[dict[str, Any]] = [each.manifest.risk for each in reversed(exports) if each.manifest.risk]
    return told[0]["quasi_identifiers"] if told else QUASI_IDENTIFIERS


def _sizes(frame: pl.DataFrame, known: list[str], person: str) -> list[ClassSize]:
    """How many classes there are of each size."""
    classes = frame.group_by(known).agg(pl.col(person).n_unique().alias("size"), pl.len().alias("rows"))
    found = []
    for least, most in _SIZES:
        some = classes.filter(pl.col("size") >= least, pl.col("size") <= (most or pl.col("size")))
        label = str(least) if least == most else f"{least} to {most}" if most else f"{least} or more"
        found.append(ClassSize(label, least < 5, some.height, int(some["rows"].sum())))
    return found
