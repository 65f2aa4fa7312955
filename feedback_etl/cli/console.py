"""Input and output of the command line: data to stdout, messages to stderr, one sentence for each error."""

import json
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import typer

from feedback_etl.cli.option_names import name_options
from feedback_etl.cli.termination import exit_on_signals
from feedback_etl.errors import ExportFileError, FeedbackError
from feedback_etl.storage.whole_files import write_whole

_USUAL_WIDTH = 80
"""Columns of a terminal that does not say how many it has."""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""


def escape_control(text: str) -> str:
    r"""Escape all characters that are not printable, such as control characters and line breaks in file names.

    A terminal would obey them, and a line break could forge a line of the output.

    >>> print(escape_control("a\x1b[2J\n.csv"))
    a\x1b[2J\n.csv
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def measure_width(stream: TextIO | None) -> int | None:
    """Return the number of columns of the terminal that a stream writes to; None if it writes to no terminal."""
    if stream is None or not stream.isatty():  # None if it was closed
        return None
    with suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    return _USUAL_WIDTH


def wrap_words(text: str, width: int | None, indent: int = 0) -> list[str]:
    """Wrap a line between its words, with more lines indented; leave it whole without a width.

    >>> wrap_words("listed in a_long_path and more", width=11, indent=4)
    ['listed in', 'a_long_path', '    and', '    more']
    """
    if width is None or len(text) <= width:
        return [text]
    lines = textwrap.wrap(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return [line if len(line) <= width else line.lstrip() for line in lines]  # a long path may fit without indentation


def echo_err(line: str, *, indent: int = 0) -> None:
    """Print a line to stderr, with control characters escaped; wrap it between words on a terminal.

    Args:
        line: The line.
        indent: The indentation of the lines after the first.
    """
    for text in wrap_words(escape_control(line), measure_width(sys.stderr), indent):
        typer.echo(text, err=True)


def echo_command(line: str) -> None:
    """Print a line to stderr that can be pasted as it is; control characters are escaped."""
    typer.echo(escape_control(line), err=True)


def print_lines(*lines: str, indent: int = 0) -> None:
    """Print lines to stdout, with control characters escaped; the errors are those of `write_stdout`.

    Args:
        lines: The lines.
        indent: Wrap lines between words on a terminal, and indent those after the first; 0 to leave lines whole.
    """
    width = measure_width(sys.stdout) if indent else None
    wrapped = [text for line in lines for text in wrap_words(escape_control(line), width, indent)]
    text = "".join(f"{line}\n" for line in wrapped)
    write_stdout(text.encode(sys.stdout.encoding, "backslashreplace"))


def print_json(value: Any) -> None:
    """Print a value to stdout as a line of JSON in ASCII; the errors are those of `write_stdout`."""
    text = json.dumps(value, default=str).replace("\x7f", "\\u007f")  # DEL, the only control character left as it is
    write_stdout(text.encode() + b"\n")


def write_stdout(data: bytes) -> None:
    """Write data to stdout.

    Raises:
        ExportFileError: Stdout cannot be written.
        BrokenPipeError: The reader has closed the pipe, as `head` does; typer then exits without a message.
    """
    try:
        file = typer.get_binary_stream("stdout")  # unbuffered (PYTHONUNBUFFERED), it may write a part of the data
        write_whole(file.write, data)
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
    except SystemExit as end:
        if end.code == INTERRUPTED:
            echo_err("Interrupted; unfinished files were removed.")
        raise
    except FeedbackError as error:
        echo_err(f"error: {name_options(str(error), run)}")
        sys.exit(error.exit_code)
    except BaseException as error:  # a panic in a Rust library is not an Exception
        # The text of an unexpected error may contain values: print where it occurred, not what it says.
        for line in "".join(traceback.format_tb(error.__traceback__)).splitlines():
            echo_command(line)
        echo_err(f"error: unexpected {type(error).__name__}; please report the lines above.")
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning of this package; drop those of libraries, whose texts may contain values."""
    if category.__module__.startswith("feedback_etl."):
        echo_err(f"warning: {message}")
