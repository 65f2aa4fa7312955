"""The command line and snippets of Python in processes of their own, also with system calls that fail.

`Here` runs the command line in this process instead, which saves importing everything again.
"""

import contextlib
import fcntl
import functools
import io
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import psutil
import pytest

from feedback_etl.cli.app import app, main
from feedback_etl.database import reader_pool

COMMAND = str(Path(sysconfig.get_path("scripts")) / "feedback-etl")
PATIENCE_SECONDS = 300

Finished = subprocess.CompletedProcess[str]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The isolated environment of the test; a warning in a child is an error there too."""
    return {**os.environ, "PYTHONWARNINGS": "error", **(more or {})}


def feedback_etl_process(
    *arguments: str | Path, env: Mapping[str, str] | None = None, injections: tuple[str, ...] = ()
) -> Finished:
    """Run `feedback-etl` to its end in a process of its own, without a terminal."""
    return _run([*_failing(injections), COMMAND, *map(str, arguments)], environment(env))


def feedback_etl(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Finished:
    """The same in this process: for all that is about neither signals, descriptors nor starting up."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with (
        open(os.devnull) as nothing,
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "stdin", nothing)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        code = _exit_code(arguments, app, patch)
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Finished(arguments, code or 0, *texts)


def on_terminal(
    *arguments: str | Path,
    columns: int = 80,
    env: Mapping[str, str] | None = None,
    typed: str = "",
    interrupt_at: str = "",
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of this width on which a text is typed; return its exit code and its output.

    If `interrupt_at` is given, Ctrl-C is pressed once it was printed.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    os.write(master, typed.encode())
    words = [COMMAND, *map(str, arguments)]
    variables = environment({"TERM": "xterm", **(env or {})})
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=variables) as process:
        os.close(slave)
        screen = b""
        with contextlib.suppress(OSError):  # Linux reports this when the other end is closed
            while part := os.read(master, 4096):
                screen += part
                if interrupt_at and interrupt_at.encode() in screen:
                    process.send_signal(signal.SIGINT)
                    interrupt_at = ""
        os.close(master)
        return process.wait(PATIENCE_SECONDS), screen.decode().replace("\r\n", "\n")


def python(code: str, *arguments: object, umask: int = -1, injections: tuple[str, ...] = ()) -> Finished:
    """Run Python code to its end; `injections` are those of strace, such as `fsync:error=EIO:when=2`."""
    return _run([*_failing(injections), sys.executable, "-c", code, *map(str, arguments)], environment(), umask)


def _run(command: list[str], env: dict[str, str], umask: int = -1) -> Finished:
    return subprocess.run(
        command,
        env=env,
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def _failing(injections: tuple[str, ...]) -> list[str]:
    if not injections:
        return []
    calls = ",".join(injection.split(":")[0] for injection in injections)
    injected = [part for injection in injections for part in ("-e", f"inject={injection}")]
    return [*tracer(), "-o", "/dev/null", "-e", f"trace={calls}", *injected]


def tracer() -> list[str]:
    """The start of an strace command; the test is skipped where there is none."""
    if not _can_trace():
        pytest.skip("strace is missing, or may trace nobody here: apt-get install strace")
    return ["strace", "-f", "-qq", "--signal=none"]


def no_server(reason: str) -> NoReturn:
    """Skip a test for want of a server; in continuous integration, which installs it, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@functools.cache
def _can_trace() -> bool:
    return (
        bool(shutil.which("strace"))
        and subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    )


class Ended(NamedTuple):
    """How a command ended in this process."""

    code: Any
    out: str
    err: str


class Here:
    """Runs command lines in this process, and puts back what they change in it."""

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture, self._monkeypatch = capture, monkeypatch

    def __call__(self, *arguments: str | Path, command: Callable[[], None] = app) -> Ended:
        """Run `feedback-etl` with arguments, or something else the way it is run."""
        code = _exit_code(arguments, command, self._monkeypatch)
        return Ended(code, *self._capture.readouterr())


def _exit_code(arguments: Sequence[str | Path], command: Callable[[], None], patch: pytest.MonkeyPatch) -> Any:
    """Run a command as it is run as a program, and put back what that changes in this process."""
    stopping = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    handlers, show = [signal.getsignal(number) for number in stopping], warnings.showwarning
    patch.setattr(sys, "argv", ["feedback-etl", *map(str, arguments)])
    try:
        with pytest.raises(SystemExit) as end:
            main(command)
    finally:
        warnings.showwarning = show
        for number, handler in zip(stopping, handlers, strict=True):
            signal.signal(number, handler)
    return end.value.code


@contextlib.contextmanager
def without_privileges() -> Iterator[Path]:
    """Run the block as a user whom file modes stop; the folder that it gives is that user's own."""
    user = 65534 if os.geteuid() == 0 else os.geteuid()  # nobody
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)


class ProcessDied(BaseException):
    """Raised in place of a kill: no later call changes a file."""


@contextlib.contextmanager
def die_after(calls: int, functions: Sequence[tuple[Any, str]]) -> Iterator[Callable[[], bool]]:
    """Fail the given functions after so many calls; yield whether fewer were made, so that nothing failed."""
    attempts = 0

    def limit(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts > calls:
                raise ProcessDied
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in functions:
            patch.setattr(owner, name, limit(getattr(owner, name)))
        yield lambda: attempts < calls


def readers() -> list[psutil.Process]:
    """The reader processes that this process has started and that still work on a job."""
    idle = {process.pid for process in reader_pool._idle}
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if child.pid not in idle and "reader_process" in " ".join(child.cmdline()):
                found.append(child)
    return found


def finish_idle_readers() -> None:
    """Let the idle readers end by themselves, which stores what was measured in them."""
    for process in list(reader_pool._idle):
        reader_pool._idle.pop(process)
        process.communicate(timeout=PATIENCE_SECONDS)


def wait_for(condition: Any) -> None:
    """Until it holds; for ever, but for the limit of the run."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")
