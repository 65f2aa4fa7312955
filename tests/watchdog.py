"""Servers of databases that cannot outlive the tests.

`running_server(kind)` starts this file as a process of its own, which owns a server and its data and blocks reading a
pipe that only pytest holds open. However pytest ends, SIGKILL included, the pipe closes, the server is stopped and its
data deleted: the normal end of the tests and the violent one take the same way out.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

PATIENCE_SECONDS = 60


@contextlib.contextmanager
def running_server(kind: str) -> Iterator[str]:
    """The SQLAlchemy URL of a new server's superuser ("postgres" or "mariadb"); it is gone when the block ends."""
    command = [sys.executable, "-W", "ignore", __file__, kind]
    pipe = subprocess.PIPE
    watchdog = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    with watchdog:
        assert watchdog.stdin
        assert watchdog.stdout
        url = watchdog.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"no {kind} for the tests: {__file__} ended with {watchdog.wait()}")
        yield url
        watchdog.stdin.close()
        watchdog.wait(PATIENCE_SECONDS)


def main(kind: str) -> None:
    """Print the URL of a server, and stop it when standard input ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A new folder directly under the system's: its parents become world-readable when root starts PostgreSQL.
    data = Path(tempfile.mkdtemp(prefix=f"feedback_etl_{kind}_")).resolve()
    try:
        with import_module(f"{kind}_server").serving(data) as url:
            print(url, flush=True)
            sys.stdin.read()
    finally:
        shutil.rmtree(data)


def free_port() -> int:
    """A port of 127.0.0.1 on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(sys.argv[1])
