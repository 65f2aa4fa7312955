"""Name exports so that no two are equal, and account for their rows."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from feedback_etl.records.layout import STEM
from feedback_etl.records.manifest import ADOPTED, Manifest
from feedback_etl.training.committed_export import CommittedExport

SERIES = {
    "exported_records": ("exported", "main"),
    "deduplicated_records": ("duplicates", "second"),
    "skipped_records": ("skipped", "third"),
    "errors": ("rejected", "bad"),
    "suppressed_records": ("suppressed", "fourth"),
}
"""Outcomes of a row that was read: the statistic of the manifest, its label and the CSS class of its colour."""

OTHER_FIGURES = {
    "excluded_records": "without consent",
    "erased_records": "of erased people",
    "known_records": "read before",
}
"""Rows of the window that were not read, or that earlier increments had read: the statistic, and its label."""


class ExportOutcome(NamedTuple):
    """Name and figures of an export.

    Attributes:
        name: Its time; where that is not unique, with its folder or the stem of its files.
        label: Its date, and its time where several exports have this date, on two lines.
        mode: Its mode, its number in its series, and whether it was pruned.
        manifest: Its manifest.
        counts: Rows by outcome, in the order of `SERIES`; unknown ones are 0.
    """

    name: str
    label: str
    mode: str
    manifest: Manifest
    counts: list[int]


def list_outcomes(exports: Sequence[CommittedExport]) -> list[ExportOutcome]:
    """List the outcomes of exports in their order."""
    days = Counter(export.manifest.created_at[:10] for export in exports)
    names = _name_exports(exports)
    return [
        ExportOutcome(
            name=name,
            label=name[:10] if days[name[:10]] == 1 else f"{name[:10]}\n{name[11:19]}",
            mode=_describe_mode(export.manifest),
            manifest=export.manifest,
            counts=[_read_statistic(export.manifest, statistic) for statistic in SERIES],
        )
        for export, name in zip(exports, names, strict=True)
    ]


def _name_exports(exports: Sequence[CommittedExport]) -> list[str]:
    """Name exports by their time to the second; where that is equal, by folder, and then by the stem of the files."""
    names = [export.manifest.created_at[:19].replace("T", " ") for export in exports]
    is_one_folder = len({str(export.storage) for export in exports}) == 1
    for detail in ([] if is_one_folder else [[str(export.storage) for export in exports]]) + [
        [_shorten_stem(export.manifest) for export in exports]
    ]:
        counts = Counter(names)
        names = [name if counts[name] == 1 else f"{name} {text}" for name, text in zip(names, detail, strict=True)]
    return names


def _shorten_stem(manifest: Manifest) -> str:
    """Return the number of an export among those of its second, such as "(2)", or the stem of an adopted file."""
    match = STEM.fullmatch(manifest.stem)
    return f"({int((match[1] or '_0')[1:]) + 1})" if match else manifest.stem


def _describe_mode(manifest: Manifest) -> str:
    """Describe the mode of an export, such as "incremental 3, pruned"."""
    number = f" {manifest.chain['number']}" if manifest.chain else ""
    return f"{manifest.mode}{number}{', pruned' if manifest.pruned_at else ''}"


def _read_statistic(manifest: Manifest, name: str) -> int:
    """Return a statistic of a manifest; 0 if it has none, as for adopted files."""
    value = manifest.statistics.get(name, 0)
    return value if isinstance(value, int) else 0


def account_for_rows(
    exports: Sequence[CommittedExport],
    refreshed: Sequence[CommittedExport],
    combined: Sequence[CommittedExport],
    rows: int,
) -> list[tuple[str, int]]:
    """Account for the difference between the exported rows and those that the report describes.

    Args:
        exports: All exports.
        refreshed: Those whose files exist, with their current manifests.
        combined: Those of them whose rows are described.
        rows: The number of their rows, each pair once.

    Returns:
        Labels and numbers: the rows that exports and adopted files had, what is missing of them as negative numbers, 0
        left out, and `rows`, which is their sum.
    """
    current = {(str(export.storage), export.manifest.stem): export.manifest for export in refreshed}
    manifests = [current.get((str(export.storage), export.manifest.stem), export.manifest) for export in exports]
    adopted = sum(manifest.rows + manifest.erased_rows for manifest in manifests if manifest.mode == ADOPTED)
    exported = sum(_read_statistic(manifest, "exported_records") for manifest in manifests if manifest.mode != ADOPTED)
    remaining = sum(manifest.rows for manifest in manifests)
    existing = sum(export.manifest.rows for export in refreshed)
    together = sum(export.manifest.rows for export in combined)
    changes = {
        "of adopted files": adopted,
        "erased later": remaining - exported - adopted,
        "of pruned exports": existing - remaining,
        "of excluded exports": together - existing,
        "in a newer export too": rows - together,
    }
    lines = [(label, change) for label, change in changes.items() if change]
    return [("exported", exported), *lines, ("described below", rows)]
