"""Tables on stdout: they fit the width of a terminal, and have one line for each row where they are piped."""

import io
import sys
from collections.abc import Collection, Iterable, Sequence

from feedback_etl.cli.console import escape_control, measure_width, write_stdout

_GAP = 2
_PIPED_WIDTH = 1_000_000
"""Columns of a table that is not on a terminal: as many as it needs."""


def print_table(headers: Sequence[str], rows: Iterable[Iterable[object]], *, right: Collection[str] = ()) -> None:
    """Print a table to stdout, with control characters escaped; the errors are those of `write_stdout`.

    On a terminal, cells are wrapped between words to its width, and a word is broken only where it has to be.

    Args:
        headers: The names of the columns.
        rows: The cells; None is an empty one.
        right: The columns of numbers, by name.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal_width = measure_width(sys.stdout)
    width = terminal_width or _PIPED_WIDTH
    cells = [[escape_control("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = _fit([list(column) for column in zip(headers, *cells, strict=True)], width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for header, column_width in zip(headers, widths, strict=True):
        table.add_column(header, justify="right" if header in right else "left", overflow="fold", width=column_width)
    for row in cells:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=terminal_width is not None).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    write_stdout("".join(f"{line}\n" for line in lines).encode(sys.stdout.encoding, "backslashreplace"))


def _fit(columns: Sequence[Sequence[str]], available: int) -> list[int]:
    """Return the widths of columns that fit together: words are broken only if they cannot.

    >>> _fit([["Name", "a_long_name"], ["Window", "from here to there"]], available=25)
    [11, 12]
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, cells)) for cells in columns]
    longest_words = [max((cell_len(word) for text in cells for word in text.split()), default=0) for cells in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > available and max(widths) > 1:
        slack = [width - longest for width, longest in zip(widths, longest_words, strict=True)]
        chosen = slack.index(max(slack)) if max(slack) > 0 else widths.index(max(widths))
        widths[chosen] -= 1
    return widths
