"""Any number of exports, erasures and prunes at once in one folder: each is whole, and none is lost."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import Database
from folders import KEY, exported, people, rows_of, visible
from processes import environment

from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.audit_verification import verify
from feedback_etl.exports.layout import REJECTED_FOLDER
from feedback_etl.exports.manifest import list_local_manifests
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.posix import hash_file

# One thing that is done some times in one folder; it begins when all are ready.
PROGRAM = """
import sqlite3, sys
from datetime import datetime
import sqlalchemy as sa
import feedback_etl as fe
import feedback_etl.pipeline.batch_processor
what, first, times, path, folder = sys.argv[1:]
engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(path))
key, now = fe.privacy.Key("k" * 32), datetime(2025, 10, 25, 12)

def export(**options):
    fe.export_feedback(engine, days_back=-1, now=now, key=key, output_dir=folder, lock_timeout=300, **options)

fe.export_feedback, fe.privacy.erase, fe.exports.prune
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(first), int(first) + int(times)):
    if what == "export":
        export(compression=("none", "gzip", "zstd")[number % 3])
    elif what == "incremental":
        export(incremental=True, format="parquet")
    elif what == "erase":
        fe.privacy.erase(folder, analysis_ids=[number], keys=[key], lock_timeout=300)
    else:
        fe.exports.prune(folder, keep_days=0, keep_last=5, now=datetime(2025, 10, 26), key=key, lock_timeout=300)
"""


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Twelve users with feedback, some of it wrong."""
    sqlite_database.fill(**people(12, each=4))
    return sqlite_database


def at_once(database: Database, folder: Path, *tasks: tuple[str, int, int]) -> None:
    """Do what, from which number on, how many times: each in a process of its own."""
    path = database.url.removeprefix("sqlite:///")
    commands = [[sys.executable, "-c", PROGRAM, *map(str, task), path, str(folder)] for task in tasks]
    pipe, env = subprocess.PIPE, environment()
    processes = [
        subprocess.Popen(command, text=True, env=env, stdin=pipe, stdout=pipe, stderr=pipe) for command in commands
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(*process.communicate(), process.returncode) for process in processes]
    assert ended == [("", "", 0)] * len(processes)


def assert_all_whole(folder: Path) -> None:
    """Every file that there is belongs to an export and is as its manifest says; so is the log."""
    named = {}
    for manifest in list_local_manifests(folder):
        assert manifest.files
        for file in manifest.files:
            named[file.path] = file.sha256
            assert manifest.pruned_at or (folder / file.path).exists()
    data = [name for name in visible(folder) if not name.endswith(".json")]
    assert {*data} <= {*named}
    assert {name: hash_file(folder / name) for name in data} == {name: named[name] for name in data}
    assert not list(folder.rglob(".*.tmp*"))
    anchors = {manifest.stem: manifest.audit_head for manifest in list_local_manifests(folder)}
    assert verify(AuditLog(folder), [Key(KEY)], anchors).problems == []


def test_exports_of_one_second_in_threads_are_all_there(application: Database, tmp_path: Path) -> None:
    """As those of processes, which `make test-all` starts."""
    folder = tmp_path / "exports"
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: exported(application, folder), range(8)))
    assert {report.exported_records for report in reports} == {36}
    assert len({report.export_filename for report in reports}) == len(list_local_manifests(folder)) == 8
    assert_all_whole(folder)


@pytest.mark.parametrize(
    ("processes", "times"),
    [
        pytest.param(3, 4, id="few", marks=pytest.mark.slow),
        pytest.param(8, 25, id="many", marks=pytest.mark.torture),
    ],
)
def test_exports_of_one_second_are_all_there(
    application: Database, tmp_path: Path, processes: int, times: int, count: Callable[[str, int], None]
) -> None:
    """With the same `now`: names are what they have to share, and nothing is lost."""
    folder = tmp_path / "exports"
    at_once(application, folder, *(("export", 0, times) for _ in range(processes)))
    manifests = list_local_manifests(folder)
    assert len(manifests) == processes * times
    assert {manifest.statistics["exported_records"] for manifest in manifests} == {36}
    assert_all_whole(folder)
    assert len(list((folder / REJECTED_FOLDER).iterdir())) == processes * times
    count("exports at once", len(manifests))


@pytest.mark.parametrize(
    "times",
    [pytest.param(3, id="few", marks=pytest.mark.slow), pytest.param(25, id="many", marks=pytest.mark.torture)],
)
def test_exports_erasures_and_prunes_at_once(
    application: Database, tmp_path: Path, times: int, count: Callable[[str, int], None]
) -> None:
    """Nobody who was erased is anywhere in the end, though exports were under way; the chain is one chain."""
    folder = tmp_path / "exports"
    exported(application, folder)
    tasks = [("export", 0, times), ("export", 1, times), ("incremental", 0, times), ("erase", 101, 3)]
    at_once(application, folder, *tasks, ("erase", 201, 3), ("prune", 0, times))
    assert_all_whole(folder)
    assert [each.chain["number"] for each in list_local_manifests(folder) if each.chain] == [1]
    reference = tmp_path / "reference"
    exported(application, reference)
    (everybody,) = (rows_of(path) for path in reference.glob("*.csv"))
    erased = {*everybody["analysis_hash"][-6:]}  # users 1 and 2 gave the newest feedback
    files = [folder / name for name in visible(folder) if not name.endswith(".json")]
    assert files
    for path in files:
        assert not erased & {*rows_of(path)["analysis_hash"]}
    records = AuditLog(folder).records()
    assert len([each for each in records if each["event"] == "committed"]) >= 2 * times + 2
    count("exports, erasures and prunes at once", 4 * times + 6)
