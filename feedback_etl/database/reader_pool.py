"""A pool of idle reader processes: an export takes an idle one instead of waiting for a new one to start.

Imports nothing heavy: `prestart` can be a program's first call, and the process imports its libraries while the program
imports its own. The kernel ends a reader with the thread that started it, so one thread that lives as long as the
program starts all readers, and ends those that are idle for too long.
"""

import atexit
import contextlib
import fcntl
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import IO

_PIPE_BYTES = 1 << 20
MAX_IDLE = 2
"""The number of idle readers to keep; each uses about 90 MB, most of it shared with the others."""
IDLE_SECONDS = 60.0
"""An idle reader is ended after one to two times this period."""

Process = subprocess.Popen[bytes]

_idle: dict[Process, bool] = {}
"""The idle readers, and whether each was idle at the last check of the thread that ends them."""
_requests: queue.SimpleQueue["Future[Process]"] = queue.SimpleQueue()
_lock = threading.Lock()
_starter: threading.Thread | None = None


def prestart() -> None:
    """Start a reader process for the first job of this program; it ends with the program at the latest."""
    if not _idle:
        release(_start())


def acquire() -> Process:
    """Return an idle reader process, or a new one."""
    while True:
        with _lock:
            process, _ = _idle.popitem() if _idle else (None, None)
        if process is None:
            return _start()
        if process.poll() is None:
            return process
        process.communicate()


def release(process: Process) -> None:
    """Return a reader process that has finished its job to the pool."""
    atexit.unregister(end_idle)
    atexit.register(end_idle)
    with _lock:
        _idle[process] = False


def is_full() -> bool:
    """Return whether the pool contains as many idle readers as it keeps."""
    return len(_idle) >= MAX_IDLE


def end_idle(*, only_long_idle: bool = False) -> None:
    """End all idle reader processes, or only those that were idle already at the last such call."""
    with _lock:
        ended = [process for process, was_idle in _idle.items() if was_idle or not only_long_idle]
        for process in ended:
            del _idle[process]
        _idle.update(dict.fromkeys(_idle, True))
    for process in ended:
        process.kill()
        process.communicate()


def _start() -> Process:
    """Start a reader process in the pool's thread.

    Raises:
        OSError: The system cannot start another process.
    """
    global _starter
    with _lock:
        if _starter is None:
            _starter = threading.Thread(
                target=_serve_requests, args=(_requests,), name="feedback_etl reader pool", daemon=True
            )
            _starter.start()
    started: Future[Process] = Future()
    _requests.put(started)
    try:
        return started.result()
    except BaseException:  # an interrupt may come at any point and leave the process without an owner
        started.add_done_callback(_end_unused)
        raise


def _end_unused(started: "Future[Process]") -> None:
    if not started.exception():
        started.result().kill()
        started.result().communicate()


def _serve_requests(requests: queue.SimpleQueue["Future[Process]"]) -> None:
    while True:
        try:
            started = requests.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            end_idle(only_long_idle=True)
            continue
        try:
            started.set_result(_spawn())
        except BaseException as error:
            started.set_exception(error)
        del started  # otherwise this thread keeps the process, and its pipes, until the next one


def _spawn() -> Process:
    pipe = subprocess.PIPE
    # One arena, so that memory freed by one thread is reused by others. ConnectorX reads RUST_LOG at import.
    environment = _remove_secrets({**os.environ}) | {"MALLOC_ARENA_MAX": "1", "RUST_LOG": "off"}
    command = [sys.executable, "-m", "feedback_etl.database.reader_process"]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)  # noqa: S603  ours
    if hasattr(fcntl, "F_SETPIPE_SZ") and process.stdout is not None:  # Linux
        with contextlib.suppress(OSError):  # above the user's limit: the default size works too
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _remove_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without our settings (the key, the database's password): a job contains what it needs."""
    names = [name for name in environment if not name.startswith("FEEDBACK_ETL_") and name != "DATABASE_URL"]
    return {name: environment[name] for name in names}


def get_pipes(process: Process) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """Return the pipes of a reader process: jobs in, rows out, reports out."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101,PT018  requested
    return process.stdin, process.stdout, process.stderr


def _forget_after_fork() -> None:
    """Discard the readers of the parent process."""
    global _starter, _requests, _lock
    for process in _idle:
        process.returncode = 0
        for pipe in get_pipes(process):
            pipe.close()
    _idle.clear()
    _starter, _requests, _lock = None, queue.SimpleQueue(), threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
