"""Killed, stopped and interrupted runs: no partial file ever has a final name."""

import signal
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from folders import row_files
from processes import Finished, feedback_etl_process, python

from feedback_etl.demo.sample import create_sample_database

STEPS = [30, pytest.param(1, marks=pytest.mark.slow)]
"""At every thirtieth line; `make test-all` takes each."""

STEM = "feedback_training_20251025_120000"

# What the snippets below share: an export that calls `act` at its nth line in our code. Of a line that runs again and
# again the first four times count, two for each of the two files; further ones are turns of loops over names.
SWEEP = """
import json, os, signal, sys, warnings
from collections import Counter
from datetime import datetime
from pathlib import Path
import polars as pl
from feedback_etl.storage import local, locks, posix
from feedback_etl.storage import whole_files
from feedback_etl.exports import recovery
from feedback_etl.records import audit, audit_records, manifest
from feedback_etl.exports import preconditions, publication, transaction
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.data_files import file_formats
from feedback_etl.exports import cleanup, part_writer

OURS = {
    module.__file__
    for module in (
        audit, audit_records, cleanup, locks, manifest, transaction, preconditions, publication, file_formats,
        local, part_writer, posix, recovery, whole_files
    )
}
DATA = "number\\n" + "".join(f"{number}\\n" for number in range(1000))
top, step = Path(sys.argv[1]), int(sys.argv[2])
warnings.simplefilter("ignore", ResourceWarning)  # Python itself closes a file that an interrupt took from its `with`

class Stopped(BaseException):
    pass

def stop():
    raise Stopped

def export(folder, nth, act):
    lines, runs = 0, Counter()
    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename not in OURS:
            return None
        if event == "line":
            line = frame.f_code.co_filename, frame.f_lineno
            runs[line] += 1
            lines += runs[line] <= 4
            if lines == nth and runs[line] <= 4:
                act()
        return trace
    frame = pl.DataFrame({"number": range(1000)})
    sys.settrace(trace)
    try:
        with ExportTransaction(folder, datetime(2025, 10, 25, 12), form=FileFormat()) as files:
            files.write(frame)
            files.write_rejected(frame)
            files.commit()
    finally:
        sys.settrace(None)

def state(folder):
    found = [path for path in folder.rglob("*") if path.is_file() and ".feedback_etl" not in path.parts]
    visible = [path for path in found if path.name[0] != "."]
    manifests = [path for path in visible if path.suffix == ".json"]
    partial = [path for path in visible if path.suffix == ".csv" and path.read_text() != DATA]
    assert not partial, f"{partial} after {nth} lines"
    assert all(len(json.loads(path.read_text())["files"]) == 2 for path in manifests)
    return len(manifests), len(visible) - len(manifests), len(found) - len(visible)
"""

STOP = """
states = []
for nth in range(1, 5000, step):
    folder = top / str(nth)
    try:
        export(folder, nth, stop)
    except Stopped:
        states.append(state(folder))
    else:
        break
print(nth, sorted(set(states)))
"""

KILL = """
warnings.simplefilter("ignore", DeprecationWarning)  # Polars has threads, but has not run before the fork
states = []
for nth in range(1, 5000, step):
    folder = top / str(nth)
    child = os.fork()
    if not child:
        export(folder, nth, lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    states.append(state(folder))
    if ended == 0:
        break
    assert os.WTERMSIG(ended) == signal.SIGKILL
    if len(states) % 10:
        continue
    child = os.fork()
    if not child:
        export(folder, 0, stop)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    exports = states[-1][0] + 1
    assert state(folder) == (exports, 2 * exports, 0), (nth, states[-1], state(folder))
print(nth, sorted(set(states)))
"""


def points_and_states(finished: Finished) -> tuple[int, list[tuple[int, int, int]]]:
    """The number of lines tried, and the numbers of manifests, data files and temporary files that were left."""
    assert (finished.returncode, finished.stderr) == (0, "")
    points, states = finished.stdout.split(" ", 1)
    return int(points), [tuple(map(int, state.strip("[()]\n").split(","))) for state in states.split("), ")]  # type: ignore[misc]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("injections", [(), ("link,linkat:error=EPERM",)], ids=["links", "no links"])
def test_interrupt_at_any_line_publishes_everything_or_nothing(
    tmp_path: Path, injections: tuple[str, ...], step: int
) -> None:
    """Either all files are there, or none; a temporary file never is."""
    points, states = points_and_states(python(SWEEP + STOP, tmp_path, step, injections=injections))
    assert points > 300
    assert states == [(0, 0, 0), (1, 2, 0)] if step == 1 else {*states} <= {(0, 0, 0), (1, 2, 0)}


@pytest.mark.parametrize(
    "step", [30, pytest.param(3, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.torture)]
)
def test_kill_at_any_line_leaves_no_partial_file(tmp_path: Path, step: int) -> None:
    """Temporary files may stay, and data without its manifest, which is not an export; the next run removes both.

    A kill leaves what the last system call left, and several lines pass between two of them: the slow tier takes every
    third line, the torture tier each.
    """
    points, states = points_and_states(python(SWEEP + KILL, tmp_path, step))
    assert points > 300
    assert {named for manifests, named, _ in states if manifests} == {2}
    assert (1, 2, 0) in states
    without_manifest = {named for manifests, named, _ in states if not manifests}
    assert without_manifest == {0, 1, 2} if step < 30 else 0 in without_manifest


@pytest.mark.parametrize("when", [2, *(pytest.param(value, marks=pytest.mark.slow) for value in (1, 3))])
def test_kill_during_writing_leaves_no_visible_file(tmp_path: Path, when: int) -> None:
    """Of a file that is written in several pieces."""
    code = """
import sys
from datetime import datetime
import polars as pl
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports.transaction import ExportTransaction
with ExportTransaction(sys.argv[1], datetime(2025, 10, 25, 12), form=FileFormat()) as files:
    for _ in range(4):
        files.write(pl.DataFrame({"text": ["x" * 100] * 20_000}))
        print("appended", flush=True)
    files.commit()
"""
    finished = python(code, tmp_path, injections=(f"write:signal=KILL:when={when * 2}",))
    assert finished.returncode == -signal.SIGKILL
    assert {path.name[0] for path in tmp_path.iterdir()} == {"."}


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose export has rejected rows."""
    path = tmp_path_factory.mktemp("application") / "app.db"
    create_sample_database(path, rows=1_000, now=datetime.now())
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE recommendation_feedbacks SET helpful_rating = 9 WHERE id % 100 = 0")
        database.commit()
    return path


def export(application: Path, folder: Path, injection: str) -> Finished:
    """The command line, with a signal at a system call."""
    url = f"sqlite:///{application}"
    return feedback_etl_process(
        "export", "--days", "-1", "--unkeyed", "--database-url", url, "--output", folder, injections=(injection,)
    )


def visible_files(folder: Path) -> list[Path]:
    return [path for path in row_files(folder) if path.name[0] != "."]


@pytest.mark.parametrize(("call", "rejected"), [pytest.param("fsync", 0, marks=pytest.mark.slow), ("fsync:10", 2)])
def test_killed_export_leaves_no_partial_file(application: Path, tmp_path: Path, call: str, rejected: int) -> None:
    """SIGKILL before the first fsync, and when both files have their names."""
    name, _, when = call.partition(":")
    finished = export(application, tmp_path / "exports", f"{name}:signal=KILL:when={when or 1}")
    assert finished.returncode == -signal.SIGKILL
    visible = visible_files(tmp_path / "exports")
    assert len(visible) == rejected
    assert all(path.read_text().endswith("\n") and path.read_text().count("\n") > 10 for path in visible)


@pytest.mark.parametrize(
    ("injection", "code"),
    [
        pytest.param("flock:signal=TERM:when=1", 143, marks=pytest.mark.slow),
        pytest.param("fsync:signal=INT:when=1", 130, marks=pytest.mark.slow),
        ("link,linkat:signal=HUP:when=2", 129),
    ],
)
def test_stopped_export_leaves_no_file(application: Path, tmp_path: Path, injection: str, code: int) -> None:
    """SIGTERM when the first file is created, Ctrl-C while it is written, the terminal closed after the first name."""
    finished = export(application, tmp_path / "exports", injection)
    sentence = "Interrupted; unfinished files were removed.\n" if code == 130 else ""
    assert (finished.returncode, finished.stdout, finished.stderr) == (code, "", sentence)
    files = [path for path in (tmp_path / "exports").rglob("*") if path.is_file()]
    assert [path for path in files if ".feedback_etl" not in path.parts] == []


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_exit_code_names_the_signal(name: str, code: int) -> None:
    """128 and the signal's number, as a shell counts; a second signal does not disturb the cleaning up."""
    snippet = """
import signal, sys
from feedback_etl.cli.app import main
def run():
    try:
        signal.raise_signal(signal.Signals[sys.argv[1]])
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)
        print("cleaned up")
main(run)
"""
    finished = python(snippet, name)
    sentence = "Interrupted; unfinished files were removed.\n" if name == "SIGINT" else ""
    assert (finished.returncode, finished.stdout, finished.stderr) == (code, "cleaned up\n", sentence)


# What a signal meets in libraries: each would drop the exception that the handler raises, or keep it from being raised.
OBSTACLES = {
    "dropped": """
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    time.sleep(60)""",
    "dropped by an extension": """
    class Noticed:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    sys.unraisablehook = lambda _: None
    Noticed()
    time.sleep(60)""",
    "replaced": """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException:
        raise RuntimeError("the query was interrupted") from None""",
    "in a C library": """
    termination._GRACE_SECONDS = 0.5
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    endless = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT count(*) FROM numbers"
    sqlite3.connect(":memory:").execute(endless).fetchone()""",
    "in a cleanup": """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        try:
            {}["missing"]
        except KeyError:
            time.sleep(1)
        time.sleep(1)
        os.write(1, b"cleaned up")""",
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_signal_ends_the_program_when_a_library_discards_its_exception(obstacle: str) -> None:
    """With its exit code, in less time than anything here sleeps, and not before a cleanup is complete."""
    started = time.monotonic()
    finished = run_command(OBSTACLES[obstacle])
    cleaned = "cleaned up" if obstacle == "in a cleanup" else ""
    assert (finished.returncode, finished.stdout, finished.stderr) == (143, cleaned, "")
    assert time.monotonic() - started < 50


def test_ctrl_c_in_a_c_library_ends_with_a_sentence() -> None:
    """Which does not claim that files were removed."""
    finished = run_command(OBSTACLES["in a C library"].replace("SIGTERM", "SIGINT"))
    sentence = "Interrupted; the next export removes unfinished files.\n"
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "", sentence)


def run_command(body: str) -> Finished:
    """Run a command line whose command has this body."""
    imports = "import contextlib, os, signal, sqlite3, sys, threading, time\nfrom feedback_etl.cli import termination"
    return python(f"{imports}\ndef run():{body}\nfrom feedback_etl.cli.app import main\nmain(run)")


def test_ignored_signal_stays_ignored() -> None:
    """`nohup` ignores SIGHUP for what it runs."""
    snippet = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from feedback_etl.cli.app import main
main(lambda: print(signal.raise_signal(signal.SIGHUP)))
"""
    finished = python(snippet)
    assert (finished.returncode, finished.stdout) == (0, "None\n")
