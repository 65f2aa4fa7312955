"""Crashes: processes that are killed, or whose system calls fail, at every call that changes a file."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database
from folders import FORMS, NOW, people, rows_of, visible
from processes import PATIENCE_SECONDS, environment, tracer
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import (
    REJECTED_FOLDER,
    candidate_stems,
    export_paths,
    staged_path,
)
from feedback_etl.storage.base import STATE_FOLDER
from feedback_etl.storage.posix import hash_file, replacement_path

CHANGING = "write,pwrite64,fsync,link,linkat,unlink,unlinkat,rename,renameat,renameat2"
LATER = NOW + timedelta(minutes=1)
Count = Callable[[str, int], None]
ERASED = 2
"""The user who is erased."""

# An export, or an erasure, of a database that SQLAlchemy reads in this very process.
PROGRAM = f"""
from feedback_etl.cli.pandera_import import hide_pandas_from_pandera
hide_pandas_from_pandera()
import json, sqlite3, sys
from datetime import datetime
import sqlalchemy as sa
import feedback_etl as fe
from feedback_etl.errors import FeedbackError
what, path, folder, options = sys.argv[1:]
engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(path))

def export(folder):
    now, usual = datetime(2025, 10, 25, 12), json.loads(options)
    return fe.export_feedback(engine, incremental=True, days_back=-1, now=now, key={KEY!r}, output_dir=folder, **usual)

def erase(folder):
    return fe.privacy.erase(folder, user_ids=[2], database=engine, keys=[fe.privacy.Key({KEY!r})])
"""

RUN = f"""{PROGRAM}
try:
    globals()[what](folder)
except FeedbackError as error:
    print(error)
    sys.exit(error.exit_code)
"""

# Kill it at random moments, each time in a folder of its own, and begin it again.
MOMENTS = f"""{PROGRAM}
import os, random, signal, time, warnings
from pathlib import Path
import feedback_etl.pipeline.batch_processor
warnings.simplefilter("ignore")  # nothing of Polars has run before the fork
export, erase  # the lazy imports, before the fork
fe.export_feedback, fe.privacy.erase, fe.privacy.Key
seconds, moments, seed = (float(word) for word in sys.stdin.readline().split())
generator = random.Random(seed)

def child(folder):
    started = os.fork()
    if not started:
        globals()[what](folder)
        os._exit(0)
    return started

longest = 0.0
for number in range(int(moments)):
    target = Path(folder) / str(number)
    begun = time.monotonic()
    killed = child(target)
    if number:
        time.sleep(generator.random() * longest)
        os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    longest = longest or time.monotonic() - begun
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    print(json.dumps([number, {{name: __import__("hashlib").sha256((target / name).read_bytes()).hexdigest()
                              for name in names}}]), flush=True)
    assert os.waitpid(child(target), 0)[1] == 0
"""


@pytest.fixture
def application(sqlite_database: Database) -> Path:
    """Three users with feedback, some of it wrong, and texts of several lines."""
    rows = people(3, each=4)
    for row in rows["feedbacks"]:
        row["product_ratings"] = '{"a": 3}'
    sqlite_database.fill(**rows)
    return Path(sqlite_database.url.removeprefix("sqlite:///"))


class Call(NamedTuple):
    """A system call that changes a file: the nth of its kind that a thread makes on a path."""

    name: str
    path: Path
    nth: int


def list_paths(folder: Path) -> list[Path]:
    """Everything in a folder that an export may touch."""
    stem = next(candidate_stems(NOW))
    names = [folder / name for name in (*export_paths(stem), f"{STATE_FOLDER}/audit.jsonl", f"{STATE_FOLDER}/lock")]
    places = [folder, folder / REJECTED_FOLDER, folder / STATE_FOLDER, folder / STATE_FOLDER / "tombstones.jsonl"]
    return [*names, *map(staged_path, names), *map(replacement_path, names), *places]


def command(what: str, application: Path, folder: Path, form: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", RUN, what, str(application), str(folder), json.dumps(form)]


def trace_calls(what: str, application: Path, folder: Path, form: dict[str, Any]) -> list[Call]:
    """The calls of an undisturbed run that change something in the folder, in their order."""
    log = folder.parent / "calls.txt"
    watched = [word for path in list_paths(folder) for word in ("-P", str(path))]
    traced = [*tracer(), "-y", "-o", str(log), "-e", f"trace={CHANGING}", *watched]
    subprocess.run([*traced, *command(what, application, folder, form)], env=environment(), check=True)
    seen: dict[tuple[str, str, str], int] = {}
    calls = []
    for line in log.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\((.*)", line)
        if found:
            thread, name, rest = found.groups()
            path = re.search(rf"{re.escape(str(folder))}[^\">]*", rest)
            assert path
            seen[thread, name, path[0]] = nth = seen.get((thread, name, path[0]), 0) + 1
            calls.append(Call(name, Path(path[0]), nth))
    return calls


def disturbed(
    what: str, application: Path, folder: Path, form: dict[str, Any], call: Call, how: str
) -> "subprocess.CompletedProcess[str]":
    """A run with one call of it killed, or failing."""
    injected = ["-P", str(call.path), "-e", f"trace={call.name}", "-e", f"inject={call.name}:{how}:when={call.nth}"]
    stops = ["--seccomp-bpf"] if how.startswith("error") else []  # stops at these calls alone, and sends no signals
    traced = [*tracer(), *stops, "-o", "/dev/null", *injected]
    return subprocess.run(
        [*traced, *command(what, application, folder, form)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


class Undisturbed:
    """The expected result: that of an undisturbed run, and a function that starts one again."""

    def __init__(
        self, what: str, application: Path, top: Path, form: dict[str, Any], *, is_traced: bool = True
    ) -> None:
        self.what, self.application, self.form = what, application, form
        self.engine = sa.create_engine(f"sqlite:///{application}", poolclass=sa.NullPool)
        self.folder = top / "undisturbed" / "exports"
        self.prepare(self.folder)
        if is_traced:
            self.calls = trace_calls(what, application, self.folder, form)
        else:
            self.begin_again(self.folder)
        self.digests = {file.path: file.sha256 for export in list_manifests(self.folder) for file in export.files}
        self.rows = all_rows(self.folder)

    def prepare(self, folder: Path) -> None:
        """An erasure needs an export."""
        folder.mkdir(parents=True)
        if self.what == "erase":
            self.export(folder)

    def export(self, folder: Path) -> fe.ExportReport:
        """In this process."""
        usual: dict[str, Any] = {"incremental": True, "days_back": -1, "now": NOW, "key": KEY, "output_dir": folder}
        with self.engine.connect() as connection:  # a connection of the caller's is read by SQLAlchemy
            return fe.export_feedback(connection, **usual | self.form)

    def begin_again(self, folder: Path) -> None:
        """The same once more, undisturbed."""
        if self.what == "export":
            self.export(folder)
        else:
            fe.privacy.erase(folder, user_ids=[ERASED], database=self.engine, keys=[Key(KEY)])

    def assert_whole(self, folder: Path, before: dict[str, str] | None = None) -> None:
        """No visible file is incomplete."""
        allowed = {*self.digests.values(), *(before or {}).values()}
        for name in visible(folder):
            if not name.endswith(".json"):
                assert hash_file(folder / name) in allowed, name

    def assert_done(self, folder: Path) -> None:
        """Every row is there once, and nothing else is; the log is whole."""
        assert all_rows(folder).equals(self.rows)
        assert not list(folder.rglob(".*.tmp*"))
        for manifest in list_manifests(folder):
            for file in manifest.files:
                path = folder / file.path
                assert not path.exists() or (hash_file(path), file.becoming) == (file.sha256, {})
        anchors = {export.stem: export.audit_head for export in list_manifests(folder)}
        assert verify_lines(AuditLog(folder).lines(), [Key(KEY)], anchors).problems == []


def all_rows(folder: Path) -> pl.DataFrame:
    """The pairs of all exports."""
    files = [file for manifest in list_manifests(folder) for kind in ("pairs", "items") for file in manifest.all(kind)]
    assert {path for path in visible(folder) if "rejected" not in path and not path.endswith(".json")} == {
        file.path for file in files
    }
    return pl.concat([rows_of(folder / file.path) for file in files], how="diagonal")


def kill_at(run: Undisturbed, calls: list[Call], top: Path) -> int:
    """Kill a run at each of these calls and begin it again; how many were killed."""
    for number, call in enumerate(calls):
        folder = top / f"killed {number}" / "exports"
        run.prepare(folder)
        before = {name: hash_file(folder / name) for name in visible(folder)}
        ended = disturbed(run.what, run.application, folder, run.form, moved(call, run.folder, folder), "signal=KILL")
        assert ended.returncode == -9, (call, ended.stdout, ended.stderr)
        run.assert_whole(folder, before)
        run.begin_again(folder)
        run.assert_done(folder)
    return len(calls)


def refuse_at(run: Undisturbed, calls: list[Call], top: Path, errors: list[str]) -> int:
    """Let each of these calls fail and begin the run again; how many were refused."""
    refused = 0
    for number, call in enumerate(calls):
        # An erasure makes many more calls: each fails with one of the errors, in turn.
        for error in errors if run.what == "export" else [errors[number % len(errors)]]:
            folder = top / f"refused {number} {error}" / "exports"
            run.prepare(folder)
            before = {name: hash_file(folder / name) for name in visible(folder)}
            here = moved(call, run.folder, folder)
            ended = disturbed(run.what, run.application, folder, run.form, here, f"error={error}")
            assert ended.stderr == ""
            run.assert_whole(folder, before)
            if call.name.startswith("unlink"):
                assert ended.returncode in (0, 5)  # a temporary name that stays is removed by the next run
            else:
                assert (ended.returncode, call) == (5, call), ended.stdout
                assert run.what == "erase" or visible(folder) == []
                assert not list(folder.rglob(".*.tmp*"))
            run.begin_again(folder)
            run.assert_done(folder)
            refused += 1
    return refused


def moved(call: Call, old: Path, new: Path) -> Call:
    """The same call in another folder."""
    return call._replace(path=new / call.path.relative_to(old))


@pytest.mark.parametrize(("form", "pattern"), [({}, "*.json"), ({"items": "product_ratings"}, "*.csv")])
def test_export_killed_while_publishing_is_recovered(
    application: Path, tmp_path: Path, form: dict[str, Any], pattern: str
) -> None:
    """When the pairs have their name and the manifest has none yet; or the items, and the pairs have none yet."""
    run = Undisturbed("export", application, tmp_path, form, is_traced=False)
    (path,) = run.folder.glob(pattern)
    assert kill_at(run, [Call("link,linkat", path, 1)], tmp_path) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["export", "erase"])
def test_killed_run_is_recovered(application: Path, tmp_path: Path, what: str) -> None:
    """At one in twenty of the calls that change a file; `make torture` takes each."""
    run = Undisturbed(what, application, tmp_path, {})
    assert {call.name for call in run.calls} >= {"write", "fsync"}
    assert kill_at(run, run.calls[::20], tmp_path) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["export", "erase"])
def test_failed_call_leaves_the_folder_unchanged(application: Path, tmp_path: Path, what: str) -> None:
    """A full disk, a disk that fails, one that has become read-only."""
    run = Undisturbed(what, application, tmp_path, {"format": "parquet"})
    assert refuse_at(run, run.calls[3::36], tmp_path, ["ENOSPC"]) >= 2


@pytest.mark.torture
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("what", ["export", "erase"])
def test_run_killed_at_any_call_is_recovered(
    application: Path, tmp_path: Path, what: str, form: dict[str, Any], count: Count
) -> None:
    """At every call that changes a file, in every form."""
    run = Undisturbed(what, application, tmp_path, form)
    count(f"{what} killed at a call, {form}", kill_at(run, run.calls, tmp_path))


@pytest.mark.torture
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("what", ["export", "erase"])
def test_any_failed_call_leaves_the_folder_unchanged(
    application: Path, tmp_path: Path, what: str, form: dict[str, Any], count: Count
) -> None:
    """Every call, with each error."""
    run = Undisturbed(what, application, tmp_path, form)
    errors = ["ENOSPC", "EIO", "EROFS"]
    count(f"{what} refused a call, {form}", refuse_at(run, run.calls, tmp_path, errors))


def killed_at_moments(run: Undisturbed, top: Path, moments: int) -> int:
    """Kill a run at random moments of its life and begin it again."""
    arguments = [sys.executable, "-c", MOMENTS, run.what, str(run.application), str(top), json.dumps(run.form)]
    finished = subprocess.run(
        arguments,
        input=f"0 {moments} {random.randrange(10**6)}\n",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(lines) == moments
    for number, digests in lines:
        for name, digest in digests.items():
            hidden = any(part.startswith(".") for part in Path(name).parts)
            assert hidden or name.endswith(".json") or digest in run.digests.values(), (number, name)
        run.assert_done(top / str(number))
    return moments


@pytest.mark.slow
def test_export_killed_at_some_moment_is_recovered(application: Path, tmp_path: Path) -> None:
    """Four of them."""
    run = Undisturbed("export", application, tmp_path, {"compression": "gzip"})
    assert killed_at_moments(run, tmp_path / "moments", 4) == 4


@pytest.mark.torture
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_export_killed_at_any_moment_is_recovered(
    application: Path, tmp_path: Path, form: dict[str, Any], count: Count
) -> None:
    """Two hundred in each form."""
    run = Undisturbed("export", application, tmp_path, form)
    count(f"export killed at a moment, {form}", killed_at_moments(run, tmp_path / "moments", 200))
