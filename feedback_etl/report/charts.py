"""Charts as inline SVG: drawn for a width of 360 units, so that they can be read on a phone; colours are in the style.

`Markup.format` escapes whatever is put into it. Each chart has a title and a description for those who cannot see it,
and the page puts the same figures into a table beside it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from feedback_etl.report.ticks import round_width

_WIDTH, _LABELS, _FIGURES = 360, 168, 62
_LINE, _BAR, _TEXT = 24, 15, 12.5
_LONGEST_LABEL = 22  # characters: routine_completion_pct
_HEIGHT, _AXIS, _BELOW = 190, 44, 24
_GAP, _LEAST = 1.5, 3.0  # between the values of a column, and the height of one that is small, with its gap


class Bar(NamedTuple):
    """A bar with what stands on its left, its length, what stands on its right, and the class of its colour."""

    label: str
    value: float
    told: str
    tone: str = "main"


class Stack(NamedTuple):
    """What stands one upon the other: a label below, and a value for each series."""

    label: str
    values: Sequence[int]


def bars(title: str, description: str, items: Sequence[Bar], *, marks: Sequence[tuple[float, str]] = ()) -> Markup:
    """Bars from left to right, one below the other.

    Args:
        title: What is shown.
        description: What it says, in a sentence.
        items: The bars, from above.
        marks: Values at which a line stands, such as thresholds, with what they mean.
    """
    room = _WIDTH - _LABELS - _FIGURES
    longest = max([each.value for each in items] + [value for value, _ in marks], default=0) or 1
    height = len(items) * _LINE
    lines = [_mark(told, _LABELS + value / longest * room, height) for value, told in marks]
    drawn = [_bar(each, row * _LINE, each.value / longest * room) for row, each in enumerate(items)]
    return _svg(title, description, height + (_LINE - 6 if marks else 0), [*lines, *drawn])


def _mark(told: str, x: float, height: float) -> Markup:
    """A line across all bars, and what it means below."""
    line = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>').format(x, height)
    text = Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    return line + text.format(x, height + 14, told)


def _bar(item: Bar, top: float, length: float) -> Markup:
    middle = top + _LINE / 2 + _TEXT / 3
    return (
        Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LABELS - 8, middle, _short(item.label))
        + Markup('<rect class="{}" x="{}" y="{}" width="{:.1f}" height="{}" rx="2"/>').format(
            item.tone, _LABELS, top + (_LINE - _BAR) / 2, max(length, 1 if item.value else 0), _BAR
        )
        + Markup('<text class="quiet" x="{:.1f}" y="{:.1f}">{}</text>').format(_LABELS + length + 6, middle, item.told)
    )


def stacks(title: str, description: str, items: Sequence[Stack], tones: Sequence[str]) -> Markup:
    """Columns of several values each, from left to right.

    Args:
        title: What is shown.
        description: What it says, in a sentence.
        items: The columns, from the left.
        tones: The class of the colour of each series, from below.
    """
    highest = 2 * round_width(max((sum(each.values) for each in items), default=0) / 2 or 1)
    drawn = [_grid(highest * share, _y(share)) for share in (0, 0.5, 1)]
    step = (_WIDTH - _AXIS) / max(len(items), 1)
    wide = min(step * 0.8, 48)
    every = -(-len(items) // 4)  # labels must not touch each other
    for place, each in enumerate(items):
        left = _AXIS + place * step + (step - wide) / 2
        drawn.append(_stack(each, highest, tones, left, wide))
        if place % every == 0:
            drawn.append(
                Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    min(left + wide / 2, _WIDTH - 36), _HEIGHT + 16, each.label
                )
            )
    return _svg(title, description, _HEIGHT + _BELOW, drawn)


def _stack(item: Stack, highest: float, tones: Sequence[str], left: float, wide: float) -> Markup:
    """A column, with a gap below each value but the lowest."""
    drawn, bottom = Markup(), _y(0)
    for height, tone in zip(_heights([_y(0) - _y(each / highest) for each in item.values]), tones, strict=True):
        if height:
            gap = _GAP if drawn else 0
            drawn += Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                tone, left, bottom - height, wide, height - gap
            )
            bottom -= height
    return drawn


def _heights(true: Sequence[float]) -> list[float]:
    """Such that what is not nothing can be seen; the greatest gives the others what they lack, if it can.

    >>> _heights([100.0, 0.0, 0.5]), _heights([0.2, 0.1])
    ([97.5, 0.0, 3.0], [3.0, 3.0])
    """
    heights = [max(each, _LEAST) if each else 0.0 for each in true]
    greatest = max(heights)
    lacking = sum(heights) - sum(true)
    heights[heights.index(greatest)] = max(greatest - lacking, min(greatest, _LEAST))
    return heights


def _y(share: float) -> float:
    """From the top, of a share of the height; there is room for the text of the uppermost line."""
    return _HEIGHT - share * (_HEIGHT - 10)


def _grid(value: float, y: float) -> Markup:
    return Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_AXIS, _WIDTH, y, y) + Markup(
        '<text class="quiet" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(_AXIS - 6, y + 4, _compact(value))


def _svg(title: str, description: str, height: float, drawn: Sequence[Markup]) -> Markup:
    """A drawing that says what it is."""
    head = Markup(
        '<svg role="img" viewBox="0 0 {} {}" xmlns="http://www.w3.org/2000/svg" font-size="{}">'
        "<title>{}</title><desc>{}</desc>"
    ).format(_WIDTH, height, _TEXT, title, description)
    return head + Markup("").join(drawn) + Markup("</svg>")


def _short(label: str) -> str:
    """A label that fits; the table has the whole of it."""
    label = " ".join(label.split())
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _compact(number: float) -> str:
    """A number in few characters.

    >>> _compact(0), _compact(1359), _compact(2_000_000), _compact(12.5)
    ('0', '1.4k', '2M', '12.5')
    """
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + unit
    return f"{number:.1f}".removesuffix(".0")
