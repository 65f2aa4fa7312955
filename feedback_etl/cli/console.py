"""Input and output of the command line: data to stdout, messages to stderr, one sentence for each error."""

import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable

import typer

from feedback_etl.cli.option_names import name_options
from feedback_etl.cli.termination import exit_on_signals
from feedback_etl.errors import ExportFileError, FeedbackError
from feedback_etl.storage.whole_files import write_whole

_PROGRESS_INTERVAL_SECONDS = 0.2


def echo_err(line: str) -> None:
    """Print a line to stderr."""
    typer.echo(line, err=True)


def write_stdout(data: str | bytes) -> None:
    """Write data to stdout; a line break is appended to text.

    Raises:
        ExportFileError: Stdout cannot be written.
        BrokenPipeError: The reader has closed the pipe, as `head` does; typer then exits without a message.
    """
    try:
        file = typer.get_binary_stream("stdout")  # unbuffered (PYTHONUNBUFFERED), it may write a part of the data
        write_whole(file.write, data if isinstance(data, bytes) else f"{data}\n".encode(sys.stdout.encoding))
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportFileError(
            f"Stdout cannot be written: {error.strerror}. An export that was published is kept."
        ) from None


def run_app(run: Callable[[], None]) -> None:
    """Run a command line and exit: an error becomes one sentence and an exit code, a signal cleans up."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond `ulimit -f` raises OSError instead
    warnings.showwarning = _show_warning
    try:
        with exit_on_signals():
            run()
    except SystemExit:
        raise
    except FeedbackError as error:
        echo_err(f"error: {name_options(str(error), run)}")
        sys.exit(error.exit_code)
    except BaseException as error:  # a panic in a Rust library is not an Exception
        # The text of an unexpected error may contain values: print where it occurred, not what it says.
        echo_err("".join(traceback.format_tb(error.__traceback__)))
        echo_err(f"error: unexpected {type(error).__name__}; please report the lines above.")
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning of this package; drop those of libraries, whose texts may contain values."""
    if category.__module__.startswith("feedback_etl."):
        echo_err(f"warning: {message}")


def create_progress_line() -> Callable[[int, int], None] | None:
    """Return a callback that shows the progress of an export; None if stderr is not a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():  # None if it was closed
        return None
    start = last_shown = time.monotonic()

    def show(rows: int, total: int) -> None:
        nonlocal last_shown
        now = time.monotonic()
        if rows < total and now - last_shown < _PROGRESS_INTERVAL_SECONDS:
            return
        last_shown = now
        rate = rows / max(now - start, 1e-3)
        line = f"{rows:,} of {total:,} rows, {rate:,.0f} rows/s, {(total - rows) / max(rate, 1):.0f} s left"
        typer.echo(f"\r{line if rows < total else '':<78}\r", nl=False, err=True)

    return show
