"""The progress of an export on a terminal: its phase, then a bar with rows, rate and time left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from feedback_etl.cli.console import measure_width

_REFRESHES_PER_SECOND = 5


class ProgressListeners(NamedTuple):
    """The arguments of `export_feedback` that report progress; None where nothing is shown."""

    on_progress: Callable[[int, int], None] | None = None
    on_phase: Callable[[str], None] | None = None


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[ProgressListeners]:
    """Show the progress of the context on stderr, from the start on; nothing if stderr is not a terminal.

    Rich is imported for a terminal only. The line disappears at the end of the context.
    """
    if quiet or not measure_width(sys.stderr):
        yield ProgressListeners()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[figures]}"))
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, expand=True, transient=True, refresh_per_second=_REFRESHES_PER_SECOND
    ) as progress:
        rows_read = _Figures()

        def show_phase(name: str) -> None:
            for earlier in progress.task_ids:
                progress.remove_task(earlier)
            progress.add_task(name, total=None, figures="")
            progress.refresh()

        def show_rows(rows: int, total: int) -> None:
            (task,) = progress.tasks
            figures = rows_read.format(rows, total, progress.get_time())
            progress.update(task.id, completed=rows, total=total, figures=figures)

        show_phase("starting")
        yield ProgressListeners(show_rows, show_phase)


class _Figures:
    """Rows, rate and time left in words; the rate is that of the rows after the first ones, once there are any.

    >>> figures = _Figures()
    >>> figures.format(100_000, 2_000_000, 13.5)
    '100,000 of 2,000,000 rows'
    >>> figures.format(500_000, 2_000_000, 14.5)
    '500,000 of 2,000,000 rows, 400,000 rows/s, 4 s left'
    >>> figures.format(600_000, 200_000_000, 23.5)
    '600,000 of 200,000,000 rows, 50,000 rows/s, 66 min left'
    """

    _first: tuple[int, float] | None = None

    def format(self, rows: int, total: int, seconds: float) -> str:
        """Return the figures some seconds after the start."""
        if rows and self._first is None:
            self._first = rows, seconds
        first_rows, waited = self._first or (rows, seconds)
        counted = f"{rows:,} of {total:,} rows"
        if rows == first_rows:
            return counted
        rate = (rows - first_rows) / max(seconds - waited, 1e-3)
        left = (total - rows) / max(rate, 1)
        return f"{counted}, {rate:,.0f} rows/s, {f'{left:.0f} s' if left < 120 else f'{left / 60:.0f} min'} left"
