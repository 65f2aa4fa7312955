"""Reader processes that wait for a job, so that a program or its next job need not wait for one to start.

Imports nothing heavy, so that `prestart` can be the first thing that a program does: the process then imports its
libraries while the program imports its own.
"""

import atexit
import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from typing import IO, NamedTuple

_PIPE_BYTES = 1 << 20


class ReaderProcess(NamedTuple):
    """A reader process, and the thread that started it: the kernel ends the process with that thread."""

    popen: subprocess.Popen[bytes]
    starter: threading.Thread


_waiting: list[ReaderProcess] = []


def prestart() -> None:
    """Start a reader process that waits for the first job of this program; it ends with the program in any case."""
    if not _waiting:
        wait(_spawn())


def wait(process: ReaderProcess) -> None:
    """Let a process wait for a job."""
    atexit.unregister(end_waiting)
    atexit.register(end_waiting)
    _waiting.append(process)


def end_waiting() -> None:
    """End all processes that wait for a job; the next job starts one of its own."""
    while _waiting:
        popen = _waiting.pop().popen
        popen.kill()
        popen.communicate()


def _forget_waiting() -> None:
    """In a fork: they are the other program's."""
    for popen, _ in _waiting:
        popen.returncode = 0
        for pipe in pipes(popen):
            pipe.close()
    _waiting.clear()


os.register_at_fork(after_in_child=_forget_waiting)


def take() -> ReaderProcess:
    """A process that will live as long as the thread that asks; those that died with theirs are put away."""
    for process in _waiting.copy():
        is_over = process.popen.poll() is not None
        if is_over or process.starter in (threading.current_thread(), threading.main_thread()):
            try:
                _waiting.remove(process)
            except ValueError:  # another thread was faster
                continue
            if not is_over:
                return process
            process.popen.communicate()
    return _spawn()


def _spawn() -> ReaderProcess:
    pipe = subprocess.PIPE
    # One arena: memory that threads give back is used again. ConnectorX reads RUST_LOG when it is imported.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "RUST_LOG": "off"}
    command = [sys.executable, "-m", "feedback_etl.source.reader_process"]
    popen = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)  # noqa: S603  ours
    if hasattr(fcntl, "F_SETPIPE_SZ") and popen.stdout is not None:  # Linux
        with contextlib.suppress(OSError):  # more than the user may have: the pipe works as it is
            fcntl.fcntl(popen.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ReaderProcess(popen, threading.current_thread())


def pipes(popen: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """What goes in, what comes out, and what it tells of its work."""
    assert popen.stdin is not None and popen.stdout is not None and popen.stderr is not None  # noqa: S101,PT018  asked for
    return popen.stdin, popen.stdout, popen.stderr
