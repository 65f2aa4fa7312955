"""The examples run as they are: each is started as a person would start it. (Celery's is in its tests, Ray's in
those of executors.)"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from applications import FOLDER, configure, exported_rows, give_feedback
from databases import Database
from processes import environment, python, wait_for
from pseudonym_keys import KEY

EXAMPLES = Path(__file__).parent.parent / "examples"

# Makes tomorrow's run due now, and ends the scheduler when it is done.
ONE_NIGHT = """
from datetime import UTC, datetime
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler_daily import scheduler
scheduler.add_listener(lambda _: scheduler.shutdown(wait=False), EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
(job,) = scheduler.get_jobs()
job.modify(next_run_time=datetime.now(UTC))
scheduler.start()
"""


@pytest.fixture(autouse=True)
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Two good rows, and the examples in the working directory."""
    configure(sqlite_database, monkeypatch)
    give_feedback(sqlite_database, 1, 2)
    shutil.copytree(EXAMPLES, ".", dirs_exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    return sqlite_database


@contextmanager
def uvicorn(application: str) -> Iterator[str]:
    """The address of an application that uvicorn serves, in a process of its own."""
    log = Path("uvicorn.log")
    command = [sys.executable, "-m", "uvicorn", application, "--port", "0"]
    with log.open("w") as output, subprocess.Popen(command, stderr=output, stdout=output, env=environment()) as server:
        try:
            wait_for(lambda: server.poll() is not None or "running on" in log.read_text())
            found = re.search(r"running on (http://\S+)", log.read_text())
            assert found, log.read_text()
            yield found[1]
        finally:
            server.send_signal(signal.SIGINT)


def test_they_are_short() -> None:
    """Under forty lines each, but for the one that trains a model, which has tests of its own."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.iterdir() if path.is_file()}
    callers = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"train_baseline.py"}
    assert len(callers) == 8
    assert max(lengths[name] for name in callers) < 40


@pytest.mark.slow
def test_fastapi_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Served by uvicorn: an admin exports, others do not."""
    monkeypatch.setenv("ADMIN_TOKEN", "letmein")
    with uvicorn("fastapi_app:app") as address, httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        for token, code in (("", 401), ("Bearer", 401), ("Bearer other", 401), ("Bearer letmein", 200)):
            answer = client.post("/admin/export-feedback", json={}, headers={"Authorization": token})
            assert answer.status_code == code
        assert answer.json()["exported_records"] == 2
    assert exported_rows() == 2


@pytest.mark.slow
def test_apscheduler_daily() -> None:
    """The job is there, and its run exports."""
    done = python(ONE_NIGHT)
    assert done.returncode == 0, done.stderr
    assert 'Added job "feedback_etl: daily export"' in done.stderr
    assert exported_rows() == 2


@pytest.mark.slow
def test_event_hook() -> None:
    """A thousand events, and everything is exported."""
    command = [sys.executable, "event_hook.py"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    counts = [int(line.removeprefix("exported ")) for line in done.stdout.splitlines()]
    assert (1 <= len(counts) <= 2, sum(counts), done.stderr) == (True, 2, "")


@pytest.mark.slow
def test_crontab(application: Database, tmp_path: Path) -> None:
    """The command of the line runs in an environment as bare as cron's; a failure sets the exit code."""
    *_, path, line = Path("crontab").read_text().replace("/opt/feedback/.venv", sys.prefix).splitlines()
    fields = line.replace("/opt/feedback", str(tmp_path)).split(maxsplit=5)
    assert all(re.fullmatch(r"\*|\d+", field) for field in fields[:5])
    assert "%" not in fields[5]  # which would end the command
    bare = {"HOME": os.environ["HOME"], "SHELL": "/bin/sh", "PATH": path.removeprefix("PATH=")}

    def night() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(fields[5], shell=True, env=bare, capture_output=True, text=True, check=False, timeout=60)

    Path("key").write_text(KEY)
    Path("key").chmod(0o600)
    Path("feedback-etl.toml").write_text(f'database_url = "{application.url}"\nkey_file = "key"\n')
    assert [(run.returncode, run.stdout, run.stderr) for run in (night(), night())] == [(0, "", "")] * 2
    assert [json.loads(line)["exported_records"] for line in Path("exports.jsonl").read_text().splitlines()] == [2, 0]
    Path("key").unlink()
    failed = night()
    assert (failed.returncode, failed.stderr[:7], exported_rows()) == (2, "error: ", 2)
    assert FOLDER.exists()
