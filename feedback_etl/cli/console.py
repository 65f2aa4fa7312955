"""Talking to whoever runs the command line: data to stdout, talk to stderr, one sentence for each error."""

import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from feedback_etl.cli.termination import exit_on_signals
from feedback_etl.errors import ExportFileError, FeedbackError
from feedback_etl.storage.whole_files import write_whole

if TYPE_CHECKING:
    from feedback_etl.results import ExportReport

_SECONDS_BETWEEN_LINES = 0.2


def tell(line: str) -> None:
    """Talk, to stderr."""
    typer.echo(line, err=True)


def counted(number: int, noun: str) -> str:
    """A number of things: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_data(data: str | bytes) -> None:
    """Data, to stdout; text gets a line end.

    Raises:
        ExportFileError: It cannot be written.
        BrokenPipeError: Its reader has seen enough, as `head` does; typer then ends quietly.
    """
    try:
        file = typer.get_binary_stream("stdout")  # an unbuffered one (PYTHONUNBUFFERED) may accept a part
        write_whole(file.write, data if isinstance(data, bytes) else f"{data}\n".encode(sys.stdout.encoding))
        file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportFileError(
            f"The output cannot be written: {error.strerror}. An export that is published stays."
        ) from None


def run_politely(run: Callable[[], None]) -> None:
    """Run a command line so that an error is one sentence and an exit code, and a signal leaves nothing half-done."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond `ulimit -f` is to be an error
    warnings.showwarning = _show_warning
    try:
        with exit_on_signals():
            run()
    except SystemExit:
        raise
    except FeedbackError as error:
        tell(f"error: {error}")
        sys.exit(error.exit_code)
    except BaseException as error:  # a panic of a library in Rust is no Exception
        # Its text may hold values: show where it happened, not what it says.
        tell("".join(traceback.format_tb(error.__traceback__)))
        tell(f"error: unexpected {type(error).__name__}; please report the lines above.")
        sys.exit(1)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Our own warnings are for the user; those of libraries are not, and could hold anything."""
    if category.__module__.startswith("feedback_etl."):
        tell(f"warning: {message}")


def progress_line() -> Callable[[int, int], None] | None:
    """A line on the terminal that tells how far an export is; None where stderr is none."""
    if sys.stderr is None or not sys.stderr.isatty():  # none where it was closed
        return None
    started = shown = time.monotonic()

    def show(rows: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if rows < total and now - shown < _SECONDS_BETWEEN_LINES:
            return
        shown = now
        rate = rows / max(now - started, 1e-3)
        line = f"{rows:,} of {total:,} rows, {rate:,.0f} a second, {(total - rows) / max(rate, 1):.0f} s left"
        typer.echo(f"\r{line if rows < total else '':<78}\r", nl=False, err=True)

    return show


def tell_summary(report: "ExportReport", min_fields: int) -> None:
    """What an export did, line by line."""
    for line in _summary(report, min_fields):
        tell(line)


def _summary(report: "ExportReport", min_fields: int) -> Iterator[str]:
    total, few = report.total_feedback_records, f"fewer than {min_fields} rating{'' if min_fields == 1 else 's'}"
    yield f"window     {report.window}"
    yield from _nonzero(("excluded", report.excluded_records, "without consent"))
    if report.export_filename:
        yield f"exported   {report.exported_records:,} of {total:,} rows"
    else:
        yield f"Nothing exported: {_why_nothing(report, few)}"
    yield from _nonzero(
        ("skipped", report.skipped_records, f"with {few}"),
        ("duplicate", report.deduplicated_records, "of an earlier row"),
        ("rejected", report.errors, f"listed in {report.rejected_filename}" if report.rejected_filename else "for"),
    )
    for reason, rows in report.rejected_reasons.items():
        yield f"           {rows:,} {reason}"
    yield from _nonzero(
        ("ages", report.implausible_ages, "below 0 or above 130: age_range is empty there"),
        ("unreadable", report.unreadable_times, "values of declared time columns, null in the export"),
        ("suppressed", report.suppressed_records, "of fewer people than k"),
    )
    if report.export_filename:
        yield f"k          {_k(report.risk)}"
        yield f"file       {report.export_filename}"
        yield f"key        {report.key_id or 'none: unkeyed pseudonyms can be inverted'}"
    yield f"took       {report.execution_time_seconds:.2f} s"
    if report.late_records:
        yield f"late       {counted(report.late_records, 'row')} came later than the lookback: a full export has them"
    if report.advice:
        yield f"advice     {report.advice}"


def _nonzero(*counts: tuple[str, int, str]) -> Iterator[str]:
    """Yield a line for each count that is not zero: its label, the number, and what was counted."""
    return (f"{label:<10} {count:,} {what}" for label, count, what in counts if count)


def _k(risk: dict[str, Any]) -> str:
    """How many people share what may be known of them."""
    small = counted(risk["rows_in_classes_under_5"], "row")
    return f"{'at least ' * risk['at_least']}{risk['k']} ({', '.join(risk['quasi_identifiers'])}; {small} under 5)"


def _why_nothing(report: "ExportReport", few: str) -> str:
    if report.errors and not report.rejected_filename:
        return "every row with enough ratings was rejected."
    if report.deduplicated_records:
        return "what is new are duplicates of earlier rows, or was left out as told below."
    if report.total_feedback_records:
        return f"all rows in the window have {few} (--min-fields)."
    if report.excluded_records:
        return "nobody in the window has consented."
    if report.mode == "incremental":
        return "there is nothing new since the last incremental export."
    return "there is no feedback in the window (--days -1 takes everything)."
