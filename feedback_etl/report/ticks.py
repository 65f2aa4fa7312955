"""Round step widths for chart axes and for bins of numbers."""

import math


def round_width(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... and their tenths that is not below a number.

    >>> round_width(8.3), round_width(0.03), round_width(120)
    (10.0, 0.05, 200.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(round(power * factor, 9) for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
