"""Termination by a signal: unwind the main thread, so that temporary files are removed, and always end the process."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import typer

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_RETRY_SECONDS = 0.25
_GRACE_SECONDS = 8.0
"""Less than the 10 s after which Docker kills a container. The next export completes an interrupted cleanup."""


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise `SystemExit` in the main thread at SIGHUP, SIGINT or SIGTERM, with 128 and the signal's number.

    Alone, that would not end the program in every case. The exception is dropped where it is raised in a callback of
    the import system (as a module's lock is released) or of an extension module (Pydantic, while it builds a class),
    and no handler runs while the main thread is in a call of a C library, such as a query of SQLite. Therefore a
    thread, which the interpreter notifies of signals through a pipe, sends the signal again until the main thread has
    left the context, and ends the process if that takes too long.

    Signals that are ignored stay ignored: `nohup` and `&` have reasons. The handlers outlive the context.
    """
    received: list[int] = []

    def exit_unless_unwinding(number: int, _frame: object) -> None:
        received.append(number)
        if not _is_unwinding():  # a second signal must not disturb the cleanup
            sys.exit(128 + received[0])

    left = threading.Event()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    repeater = threading.Thread(target=_repeat_signal, args=(read_end, left), name="feedback_etl signals", daemon=True)
    repeater.start()
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, exit_unless_unwinding)
    try:
        yield
    except Exception:
        if received:  # DuckDB turns an exception of a handler into an error of its own
            sys.exit(128 + received[0])
        raise
    finally:
        left.set()
        signal.set_wakeup_fd(-1)
        os.close(write_end)
        repeater.join()


def _is_unwinding() -> bool:
    """Return whether the main thread handles a `SystemExit`, or an error that occurred during its cleanup."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, SystemExit):
        error = error.__context__
    return error is not None


def _repeat_signal(read_end: int, left: threading.Event) -> None:
    """Wait for a signal, repeat it until the main thread has left the context, and end the process if it does not."""
    with open(read_end, "rb", buffering=0) as pipe:
        while number := pipe.read(1):  # nothing once the context was left
            if number[0] in _SIGNALS:
                break
        else:
            return
        for _ in range(round(_GRACE_SECONDS / _RETRY_SECONDS)):
            if left.wait(_RETRY_SECONDS):
                return
            signal.pthread_kill(threading.main_thread().ident or 0, number[0])
    with contextlib.suppress(OSError):
        if sys.stderr is not None and sys.stderr.isatty():
            typer.echo("\x1b[?25h", err=True)  # the progress of an export hides the cursor
        if number[0] == signal.SIGINT:
            typer.echo("Interrupted; the next export removes unfinished files.", err=True)
    os._exit(128 + number[0])
