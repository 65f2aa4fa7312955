"""Choose two exports between which drift can be measured: their rows were selected alike, from similar windows."""

from collections.abc import Sequence
from datetime import datetime

from feedback_etl.training.committed_export import CommittedExport, may_share_pairs

MAX_RATIO = 2
"""Maximum ratio of the lengths of two comparable windows; a missed night doubles the window of an increment."""


def find_compared(exports: Sequence[CommittedExport]) -> list[CommittedExport]:
    """Return the latest export that is comparable with the last, and the last; an empty list if there is none.

    One whose window does not overlap that of the last is preferred, since equal rows hide drift.

    Args:
        exports: Exports that can be combined, the oldest first.
    """
    if not exports:
        return []
    newest = exports[-1]
    earlier = [export for export in exports[:-1] if is_comparable(export, newest)]
    apart = [export for export in earlier if not may_share_pairs(export, newest)]
    return [(apart or earlier)[-1], newest] if earlier else []


def is_comparable(first: CommittedExport, second: CommittedExport) -> bool:
    """Return whether a difference between the rows of two exports of one kind can be called drift.

    They are in one folder, have equal settings, and are both full exports or increments of one series; a difference of
    places, of options or of a backlog is not drift. Their windows are known and select by the creation time, and both
    have no start, or one is at most `MAX_RATIO` times as long as the other.
    """
    exports = (first, second)
    if str(first.storage) != str(second.storage) or bool(first.series) != bool(second.series):
        return False
    if first.manifest.settings_digest != second.manifest.settings_digest or first.get_setting("cursor", ""):
        return False
    if not all(export.manifest.window[1] for export in exports):  # an adopted file
        return False
    if datetime.min in (first.window[0], second.window[0]):
        return first.window[0] == second.window[0]
    shorter, longer = sorted(end - start for start, end in (first.window, second.window))
    return longer <= MAX_RATIO * shorter


def measure_overlap(before: CommittedExport, now: CommittedExport) -> float | None:
    """Return the share of the newer window that is in the older one too, 0 to 1; None if it is unknown.

    Exports of one series share no row, so their windows do not overlap.
    """
    if not may_share_pairs(before, now):
        return 0.0
    (start, end), (newer_start, newer_end) = before.window, now.window
    if newer_start == datetime.min:
        return None
    return (min(end, newer_end) - max(start, newer_start)) / (newer_end - newer_start)
