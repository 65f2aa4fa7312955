"""A Redis that cannot outlive the tests, and Celery workers."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import redis
from processes import no_server, wait_for

# The shell ends its Redis when its standard input ends, which only pytest holds open: however pytest ends.
_REDIS = 'redis-server --port 0 --unixsocket "$1" --save "" --daemonize no >/dev/null & read -r _; kill $!; wait'


@contextlib.contextmanager
def running_redis() -> Iterator[str]:
    """The URL of an empty Redis: FEEDBACK_ETL_TEST_REDIS_URL, or one of the tests' own on a Unix socket."""
    if given := os.environ.get("FEEDBACK_ETL_TEST_REDIS_URL"):
        number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        url = urlsplit(given)._replace(path=f"/{number}").geturl()  # for each process of pytest one of its own
        redis.Redis.from_url(url).flushdb()
        yield url
        return
    if not shutil.which("redis-server"):
        no_server("there is no Redis: apt-get install redis-server, or set FEEDBACK_ETL_TEST_REDIS_URL")
    with tempfile.TemporaryDirectory(prefix="feedback_etl_redis_") as folder:
        path = Path(folder) / "redis.sock"
        command = ["sh", "-c", _REDIS, "sh", str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as shell:
            wait_for(path.exists)
            yield f"redis+socket://{path}"
            assert shell.stdin
            shell.stdin.close()


class Worker:
    """A Celery worker of an application in a module of the working directory, with one child that works."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self._log = psutil.Process(process.pid), log

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    @property
    def child(self) -> psutil.Process:
        """The process of its pool."""
        (child,) = self._process.children()
        return child


@contextlib.contextmanager
def running_worker(module: str, *arguments: str) -> Iterator[Worker]:
    """A worker that is ready."""
    log = Path("worker.log")
    usual = ["--pool=prefork", "--concurrency=1", "--loglevel=info", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "--app", module, "worker", *usual, *arguments]
    # Celery warns of root, and of what later versions of its own change.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path.cwd())}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or "ready." in log.read_text())
        assert process.poll() is None, log.read_text()
        yield Worker(process, log)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let a worker finish its task, but not for ever: a child may hang."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
