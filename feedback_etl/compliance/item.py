"""Items of the checklist."""

from collections.abc import Sequence
from typing import NamedTuple

_MAX_PROBLEMS = 5


class ChecklistItem(NamedTuple):
    """Result of one test.

    Attributes:
        name: Name of the test.
        passed: Whether it passed.
        detail: What was found, in a sentence.
        remedy: Command or setting that fixes it; "" if it passed.
    """

    name: str
    passed: bool
    detail: str
    remedy: str = ""


def build_item(name: str, problems: Sequence[str], *, passed: str, remedy: str) -> ChecklistItem:
    """Build an item that passes without problems; at most five problems are listed.

    Args:
        name: Name of the test.
        problems: Problems, as clauses without a full stop.
        passed: Detail if there are none.
        remedy: Command or setting that fixes them.
    """
    if not problems:
        return ChecklistItem(name, True, passed)
    more = f"; and {len(problems) - _MAX_PROBLEMS:,} more" if len(problems) > _MAX_PROBLEMS else ""
    return ChecklistItem(name, False, f"{'; '.join(problems[:_MAX_PROBLEMS])}{more}.", remedy)
