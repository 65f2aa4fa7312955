"""One thing that was tested."""

from collections.abc import Sequence
from typing import NamedTuple

_TOLD = 5


class Item(NamedTuple):
    """What was found.

    Attributes:
        name: What was tested.
        passed: Whether it is as it should be.
        told: What was found, in words.
        mend: The command or the setting that mends it; "" where it passed.
    """

    name: str
    passed: bool
    told: str
    mend: str = ""


def item(name: str, faults: Sequence[str], *, passed: str, mend: str) -> Item:
    """An item that passes where nothing is wrong; else it tells what is, of many faults the first."""
    told, more = "; ".join(faults[:_TOLD]), len(faults) - _TOLD
    return Item(name, not faults, (told + f"; and {more:,} more" * (more > 0)) or passed, mend if faults else "")
