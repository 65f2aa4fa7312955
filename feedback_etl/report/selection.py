"""Which exports a report reads: those whose files are there, as far as they fit together."""

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
"""In what an export can differ from another, by the names of `Kind`, so that both cannot be counted together."""


class Chosen(NamedTuple):
    """The exports that are read.

    Attributes:
        together: Those of the kind of the newest one, the oldest first.
        compared: The last two of these that are where the newest one is; none where there are not two.
        left_out: How many others have their files.
        reasons: In what these differ from the newest one, and how many do; one can in several ways.
    """

    together: Sequence[Export]
    compared: Sequence[Export]
    left_out: int
    reasons: dict[str, int]


def whole(exports: Sequence[Export]) -> list[Export]:
    """Those that have their files, as these are now; what was pruned since its manifest was read has none.

    Raises:
        ExportFileError: A file is missing, or was truncated or changed.
    """
    with ThreadPoolExecutor() as pool:
        found = pool.map(partial(refresh, verify=False), [each.committed for each in exports if each.paths])
        return [Export(each.place, each.manifest) for each in found if each]


def choose(present: Sequence[Export]) -> Chosen:
    """Those that fit together with the newest, so that nobody and no pair counts twice.

    Args:
        present: Exports whose files are there, the oldest first.
    """
    if not present:
        return Chosen([], [], 0, {})
    newest, kinds = present[-1], [each.committed.kind for each in present]
    together = [each for each, kind in zip(present, kinds, strict=True) if kind == kinds[-1]]
    beside = [each for each in together if str(each.place) == str(newest.place)]
    others = {
        told: sum(getattr(kind, name) != getattr(kinds[-1], name) for kind in kinds) for name, told in _REASONS.items()
    }
    return Chosen(
        together=together,
        compared=beside[-2:] if len(beside) > 1 else [],
        left_out=len(present) - len(together),
        reasons={told: count for told, count in others.items() if count},
    )
