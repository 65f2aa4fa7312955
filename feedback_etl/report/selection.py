"""Select the exports that a report reads: those whose files exist and that can be combined."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from feedback_etl.report.rows import Export
from feedback_etl.training.export_catalog import refresh

_REASONS = {
    "key": "another key",
    "precision": "another timestamp precision",
    "age_edges": "other age ranges",
    "recommendation_id": "another form of recommendation_id",
}
"""Differences, by the names of `ExportKind`, because of which two exports cannot be combined."""


class Chosen(NamedTuple):
    """Selected exports.

    Attributes:
        together: Exports of the newest one's kind, the oldest first.
        compared: The last two of these in the newest one's folder; empty if there are not two.
        left_out: Number of other exports with their files.
        reasons: Differences of these from the newest one, with their numbers; an export can have several.
    """

    together: Sequence[Export]
    compared: Sequence[Export]
    left_out: int
    reasons: dict[str, int]


def refresh_exports(exports: Sequence[Export]) -> list[Export]:
    """Return the exports whose files exist, with their current manifests.

    Raises:
        ExportFileError: A file is missing, truncated or changed.
    """
    with ThreadPoolExecutor() as pool:
        found = pool.map(partial(refresh, verify=False), [each.committed for each in exports if each.paths])
        return [Export(each.storage, each.manifest) for each in found if each]


def choose(present: Sequence[Export]) -> Chosen:
    """Select the exports that can be combined with the newest, so that no person and no pair counts twice.

    Args:
        present: Exports whose files exist, the oldest first.
    """
    if not present:
        return Chosen([], [], 0, {})
    newest, kinds = present[-1], [each.committed.kind for each in present]
    together = [each for each, kind in zip(present, kinds, strict=True) if kind == kinds[-1]]
    beside = [each for each in together if str(each.storage) == str(newest.storage)]
    others = {
        reason: sum(getattr(kind, name) != getattr(kinds[-1], name) for kind in kinds)
        for name, reason in _REASONS.items()
    }
    return Chosen(
        together=together,
        compared=beside[-2:] if len(beside) > 1 else [],
        left_out=len(present) - len(together),
        reasons={reason: count for reason, count in others.items() if count},
    )
