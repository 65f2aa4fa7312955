"""Select the exports that a report reads: those whose files exist and that can be combined."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from feedback_etl.report.comparison import find_compared
from feedback_etl.training.committed_export import CommittedExport
from feedback_etl.training.export_catalog import refresh

_REASONS = {
    "key": "another key",
    "precision": "another timestamp precision",
    "age_edges": "other age ranges",
    "schema": "another schema",
    "recommendation_id": "another form of recommendation_id",
}
"""Differences, by the names of `ExportKind`, because of which two exports cannot be combined."""


class Selection(NamedTuple):
    """Selected exports.

    Attributes:
        combined: Exports of the newest one's kind, the oldest first.
        compared: The newest of these, and before it the one to measure drift from; empty if none is comparable.
        excluded: Number of other exports with their files.
        reasons: Differences of these from the newest one, with their numbers; an export can have several.
    """

    combined: Sequence[CommittedExport]
    compared: Sequence[CommittedExport]
    excluded: int
    reasons: dict[str, int]


def refresh_exports(exports: Sequence[CommittedExport]) -> list[CommittedExport]:
    """Return the exports whose files exist, with their current manifests.

    Raises:
        ExportFileError: A file is missing, truncated or changed.
    """
    with ThreadPoolExecutor() as pool:
        with_files = [export for export in exports if export.files and not export.manifest.pruned_at]
        return [export for export in pool.map(partial(refresh, verify=False), with_files) if export]


def select_exports(exports: Sequence[CommittedExport]) -> Selection:
    """Select the exports that can be combined with the newest, so that no person and no pair counts twice.

    Args:
        exports: Exports whose files exist, the oldest first.
    """
    if not exports:
        return Selection([], [], 0, {})
    kinds = [export.kind for export in exports]
    combined = [export for export, kind in zip(exports, kinds, strict=True) if kind == kinds[-1]]
    differences = {
        reason: sum(getattr(kind, name) != getattr(kinds[-1], name) for kind in kinds)
        for name, reason in _REASONS.items()
    }
    return Selection(
        combined=combined,
        compared=find_compared(combined),
        excluded=len(exports) - len(combined),
        reasons={reason: count for reason, count in differences.items() if count},
    )
