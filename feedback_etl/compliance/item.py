"""Items of the checklist."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

_MAX_DETAILS = 5

Status = Literal["ok", "failed", "skipped"]
"""Result of a test: "skipped" means that nothing, or not everything, could be tested."""


class ChecklistItem(NamedTuple):
    """Result of one test.

    Attributes:
        name: Name of the test.
        status: "ok", "failed", or "skipped" if something could not be tested.
        detail: What was found, or why it could not be tested, in a sentence.
        remedy: Commands or settings that fix it, or make it testable, one a line; "" if there are none.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""

    @property
    def passed(self) -> bool:
        """Whether everything was tested, and is as required."""
        return self.status == "ok"


class Finding(NamedTuple):
    """A problem, or something that could not be tested.

    Attributes:
        detail: What it is, as a clause without a full stop.
        remedy: Commands or settings, one a line; "" if there are none.
    """

    detail: str
    remedy: str = ""


def build_item(
    name: str, problems: Sequence[Finding], *, passed: str, untested: Sequence[Finding] = ()
) -> ChecklistItem:
    """Build an item that fails with problems, is skipped if something was not tested, and passes otherwise.

    Args:
        name: Name of the test.
        problems: Problems; the detail lists at most five, the remedy covers all.
        passed: Detail if there are none: the tests that passed.
        untested: What could not be tested, with the reason; the detail lists at most five.
    """
    if problems:
        return ChecklistItem(name, "failed", _join_details(problems), _join_remedies(problems))
    if untested:
        detail = f"{passed} Not tested: {_join_details(untested)}".strip()
        return ChecklistItem(name, "skipped", detail, _join_remedies(untested))
    return ChecklistItem(name, "ok", passed)


def _join_details(findings: Sequence[Finding]) -> str:
    more = f"; and {len(findings) - _MAX_DETAILS:,} more" if len(findings) > _MAX_DETAILS else ""
    return f"{'; '.join(finding.detail for finding in findings[:_MAX_DETAILS])}{more}."


def _join_remedies(findings: Sequence[Finding]) -> str:
    lines = [line for finding in findings for line in finding.remedy.splitlines()]
    return "\n".join(dict.fromkeys(lines))
