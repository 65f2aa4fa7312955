"""Labels of age ranges, such as `<18`, `18-25` and `50+`."""

import math
import re
from collections.abc import Sequence

IS_RANGE = re.compile(r"<[0-9]+|[0-9]+-[0-9]+|[0-9]+\+")
"""The form of a label that says which ages are in its range."""


def parse_bounds(name: str) -> tuple[float, float]:
    """Return the lowest age of a range and the age below which it ends.

    >>> parse_bounds("<18"), parse_bounds("18-25"), parse_bounds("50+")
    ((-inf, 18.0), (18.0, 25.0), (50.0, inf))
    """
    numbers = [float(number) for number in re.findall("[0-9]+", name)]
    if name.startswith("<"):
        return -math.inf, numbers[0]
    return numbers[0], numbers[1] if len(numbers) > 1 else math.inf


def drop_wider_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels without ranges that contain another one, as those of generalised rows do."""
    if not all(map(IS_RANGE.fullmatch, labels)):
        return tuple(labels)
    bounds = list(map(parse_bounds, labels))
    return tuple(
        label
        for label, own in zip(labels, bounds, strict=True)
        if not any(own != other and own[0] <= other[0] and other[1] <= own[1] for other in bounds)
    )
