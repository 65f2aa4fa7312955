"""Running a command from start to finish: its time, the processor time it and the server took, its peak memory."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SAMPLE_SECONDS = 0.05
_QUIET_SECONDS = 10.0
_BLOCK_BYTES = 1 << 20
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)

Command = Callable[[Path], Sequence[str | Path]]
"""Gives the command that leaves its output in a folder."""


class Failed(Exception):
    """A contender ended with an error, or gave a wrong result."""


class Output(NamedTuple):
    """What a command left behind.

    Attributes:
        told: What it printed, a JSON object; empty where it printed nothing.
        rows: Rows in the CSV files of its folder.
    """

    told: dict[str, Any]
    rows: int


class Timing(NamedTuple):
    """What a run took, in seconds.

    Attributes:
        wall: From start to end.
        cpu: Processor time, user and system, of the process and its descendants.
        server_cpu: The same of PostgreSQL meanwhile.
        output: What the run gave.
    """

    wall: float
    cpu: float
    server_cpu: float
    output: Output


class Bench:
    """Runs commands one at a time, each with an output folder of its own that is deleted after it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], server: psutil.Process) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._server = server
        self._idle = {child.pid for child in server.children()}

    def time(self, command: Command, *, keep: Path | None = None) -> Timing:
        """Run to the end, and keep the CSV file where a place is given.

        Raises:
            Failed: The command ended with an error.
        """
        os.sync()  # what the run before left to be written shall not slow this one down
        before = self._server_seconds()
        with self._output_folder() as output:
            started = time.perf_counter()
            with self._running(command(output), output) as process:
                _, status, usage = os.wait4(process.pid, 0)
                wall = time.perf_counter() - started
                process.returncode = os.waitstatus_to_exitcode(status)
            found = _output(process, output)
            if keep is not None:
                next(output.glob("*.csv")).replace(keep)
        return Timing(wall, usage.ru_utime + usage.ru_stime, self._server_seconds() - before, found)

    def run(self, command: Sequence[str | Path]) -> dict[str, Any]:
        """Run to the end, without measuring, and return what the command printed.

        Raises:
            Failed: The command ended with an error.
        """
        with self._output_folder() as output:
            with self._running(command, output) as process:
                process.wait()
            return _output(process, output).told

    def peak_memory(self, command: Command) -> int | None:
        """Run to the end; the highest sum of proportional set sizes (PSS) of the process and its descendants, in bytes.

        Memory that processes share counts once. None where there is no /proc.

        Raises:
            Failed: The command ended with an error.
        """
        peak = 0
        with self._output_folder() as output:
            with self._running(command(output), output) as process:
                while process.poll() is None:
                    peak = max(peak, _pss_of_tree(process.pid))
                    time.sleep(SAMPLE_SECONDS)
            _output(process, output)
        return peak or None

    @contextmanager
    def _output_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            yield Path(folder)

    @contextmanager
    def _running(self, command: Sequence[str | Path], output: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the command in a process group of its own, and end the whole group."""
        with (output / "told").open("wb") as told, (output / "error").open("wb") as error:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=error,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError, PermissionError):  # nobody is left, or only the dead
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _server_seconds(self) -> float:
        """Processor time of the server so far, counted when the connections before have ended."""
        end = time.monotonic() + _QUIET_SECONDS
        while {child.pid for child in self._server.children()} - self._idle and time.monotonic() < end:
            time.sleep(0.01)
        times = self._server.cpu_times()
        total: float = times.user + times.system + times.children_user + times.children_system
        for child in self._server.children():
            with suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:2])
        return total


def _output(process: "subprocess.Popen[bytes]", folder: Path) -> Output:
    if process.returncode:
        error = (folder / "error").read_text(errors="replace").strip()
        raise Failed(f"exit code {process.returncode}\n{error[-2000:]}")
    told = (folder / "told").read_bytes()
    return Output(json.loads(told) if told.startswith(b"{") else {}, sum(map(_rows, folder.glob("*.csv"))))


def _rows(path: Path) -> int:
    """Lines but for the header; no value of ours holds a line end."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK_BYTES), b"")) - 1


def _pss_of_tree(pid: int) -> int:
    if sys.platform != "linux":
        return 0
    try:
        processes = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_pss, processes))


def _pss(pid: int) -> int:
    with suppress(OSError):  # it has just ended
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
        return int(found[1]) * 1024 if found else 0
    return 0
