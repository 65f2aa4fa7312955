"""Draw charts as inline SVG, 360 units wide so that they are readable on a phone; the style sheet has the colours.

`Markup.format` escapes all values. Each chart has a title and a description for screen readers, and the page has a
table of the same values.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from feedback_etl.report.ticks import round_width

_WIDTH, _LABELS, _FIGURES = 360, 168, 62
_LINE, _BAR, _TEXT = 24, 15, 12.5
_MAX_LABEL = 22  # characters: routine_completion_pct
_HEIGHT, _AXIS, _BELOW, _LINE_HEIGHT = 190, 44, 24, 15
_GAP, _MIN_HEIGHT = 1.5, 3.0  # between the values of a column; height of a small value with its gap


class Bar(NamedTuple):
    """A bar: label on its left, length, text on its right, and CSS class of its colour."""

    label: str
    value: float
    text: str
    tone: str = "main"


class Stack(NamedTuple):
    """A stacked column: a label below, of one line or more, and a value for each series."""

    label: str
    values: Sequence[int]


def draw_bars(title: str, description: str, items: Sequence[Bar], *, marks: Sequence[tuple[float, str]] = ()) -> Markup:
    """Draw horizontal bars, one below the other, and labelled lines at the values of `marks`, such as thresholds."""
    plot_width = _WIDTH - _LABELS - _FIGURES
    longest = max([bar.value for bar in items] + [value for value, _ in marks], default=0) or 1
    height = len(items) * _LINE
    lines = [_draw_mark(label, _LABELS + value / longest * plot_width, height) for value, label in marks]
    rows = [_draw_bar(bar, row * _LINE, bar.value / longest * plot_width) for row, bar in enumerate(items)]
    return _assemble_svg(title, description, height + (_LINE - 6 if marks else 0), [*lines, *rows])


def _draw_mark(label: str, x: float, height: float) -> Markup:
    """Draw a line across all bars, with its label below."""
    line = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>').format(x, height)
    text = Markup('<text class="quiet" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    return line + text.format(x, height + 14, label)


def _draw_bar(item: Bar, top: float, length: float) -> Markup:
    """Draw a bar between its label and its text."""
    middle = top + _LINE / 2 + _TEXT / 3
    return (
        Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LABELS - 8, middle, _shorten(item.label))
        + Markup('<rect class="{}" x="{}" y="{}" width="{:.1f}" height="{}" rx="2"/>').format(
            item.tone, _LABELS, top + (_LINE - _BAR) / 2, max(length, 1 if item.value else 0), _BAR
        )
        + Markup('<text class="quiet" x="{:.1f}" y="{:.1f}">{}</text>').format(_LABELS + length + 6, middle, item.text)
    )


def draw_stacks(title: str, description: str, items: Sequence[Stack], tones: Sequence[str]) -> Markup:
    """Draw stacked columns from left to right; `tones` are the CSS classes of the series, from bottom to top."""
    highest = 2 * round_width(max((sum(stack.values) for stack in items), default=0) / 2 or 1)
    shapes = [_draw_grid_line(highest * share, _scale(share)) for share in (0, 0.5, 1)]
    step = (_WIDTH - _AXIS) / max(len(items), 1)
    width = min(step * 0.8, 48)
    label_interval = -(-len(items) // 4)  # labels must not touch each other
    for position, stack in enumerate(items):
        left = _AXIS + position * step + (step - width) / 2
        shapes.append(_draw_stack(stack, highest, tones, left, width))
        if position % label_interval == 0:
            shapes.append(_draw_label(stack.label, min(left + width / 2, _WIDTH - 36)))
    lines = max((stack.label.count("\n") for stack in items), default=0)
    return _assemble_svg(title, description, _HEIGHT + _BELOW + lines * _LINE_HEIGHT, shapes)


def _draw_label(label: str, x: float) -> Markup:
    """Draw the lines of a label below the axis."""
    text = Markup('<text class="quiet" x="{:.1f}" y="{:g}" text-anchor="middle">{}</text>')
    lines = enumerate(label.split("\n"))
    return Markup("").join(text.format(x, _HEIGHT + 16 + number * _LINE_HEIGHT, line) for number, line in lines)


def _draw_stack(item: Stack, highest: float, tones: Sequence[str], left: float, width: float) -> Markup:
    """Draw a column, with a gap below each value but the lowest."""
    column, bottom = Markup(), _scale(0)
    heights = _raise_small([_scale(0) - _scale(value / highest) for value in item.values])
    for height, tone in zip(heights, tones, strict=True):
        if height:
            gap = _GAP if column else 0
            column += Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                tone, left, bottom - height, width, height - gap
            )
            bottom -= height
    return column


def _raise_small(exact: Sequence[float]) -> list[float]:
    """Raise heights that are too small to see; the largest is reduced by as much, if possible.

    >>> _raise_small([100.0, 0.0, 0.5]), _raise_small([0.2, 0.1])
    ([97.5, 0.0, 3.0], [3.0, 3.0])
    """
    heights = [max(height, _MIN_HEIGHT) if height else 0.0 for height in exact]
    greatest = max(heights)
    excess = sum(heights) - sum(exact)
    heights[heights.index(greatest)] = max(greatest - excess, min(greatest, _MIN_HEIGHT))
    return heights


def _scale(share: float) -> float:
    """Return the y coordinate of a share of the height, with room for the text of the top line."""
    return _HEIGHT - share * (_HEIGHT - 10)


def _draw_grid_line(value: float, y: float) -> Markup:
    """Draw a horizontal line with its value on the left."""
    return Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_AXIS, _WIDTH, y, y) + Markup(
        '<text class="quiet" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(_AXIS - 6, y + 4, _format_compact(value))


def _assemble_svg(title: str, description: str, height: float, shapes: Sequence[Markup]) -> Markup:
    """Assemble a drawing with its title and description."""
    opening = Markup(
        '<svg role="img" viewBox="0 0 {} {}" xmlns="http://www.w3.org/2000/svg" font-size="{}">'
        "<title>{}</title><desc>{}</desc>"
    ).format(_WIDTH, height, _TEXT, title, description)
    return opening + Markup("").join(shapes) + Markup("</svg>")


def _shorten(label: str) -> str:
    """Shorten a label to fit; the table has the full text."""
    label = " ".join(label.split())
    return label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"


def _format_compact(number: float) -> str:
    """Format a number in few characters.

    >>> _format_compact(0), _format_compact(1359), _format_compact(2_000_000), _format_compact(12.5)
    ('0', '1.4k', '2M', '12.5')
    """
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + unit
    return f"{number:.1f}".removesuffix(".0")
