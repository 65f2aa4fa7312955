"""Concurrent exports, erasures and prunes in one folder: each is complete, and none is lost."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import Database
from folders import exported, people, rows_of, visible
from processes import environment
from pseudonym_keys import KEY

from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import REJECTED_FOLDER
from feedback_etl.storage.posix import hash_file

# One operation, repeated in one folder; it begins when all processes are ready.
PROGRAM = """
import sqlite3, sys
from datetime import datetime
import sqlalchemy as sa
import feedback_etl as fe
import feedback_etl.pipeline.batch_processor
key_text, what, first, times, path, folder = sys.argv[1:]
engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(path))
key, now = fe.privacy.Key(key_text), datetime(2025, 10, 25, 12)

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
    """Create an application of twelve users with feedback, some of it invalid."""
    sqlite_database.fill(**people(12, each=4))
    return sqlite_database


def run_concurrently(database: Database, folder: Path, *tasks: tuple[str, int, int]) -> None:
    """Run each task in a process of its own: its operation, first number and repetitions."""
    path = database.url.removeprefix("sqlite:///")
    commands = [[sys.executable, "-c", PROGRAM, KEY, *map(str, task), path, str(folder)] for task in tasks]
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
    results = [(*process.communicate(), process.returncode) for process in processes]
    assert results == [("", "", 0)] * len(processes)


def assert_all_complete(folder: Path) -> None:
    """Assert that every file belongs to an export and equals its manifest, and that the log verifies."""
    digests = {}
    for manifest in list_manifests(folder):
        assert manifest.files
        for file in manifest.files:
            digests[file.path] = file.sha256
            assert manifest.pruned_at or (folder / file.path).exists()
    data = [name for name in visible(folder) if not name.endswith(".json")]
    assert {*data} <= {*digests}
    assert {name: hash_file(folder / name) for name in data} == {name: digests[name] for name in data}
    assert not list(folder.rglob(".*.tmp*"))
    anchors = {manifest.stem: manifest.audit_head for manifest in list_manifests(folder)}
    assert verify_lines(AuditLog(folder).lines(), [Key(KEY)], anchors).problems == []


def test_concurrent_exports_of_one_second_in_threads_are_all_published(application: Database, tmp_path: Path) -> None:
    """In threads here; `make test-all` uses processes."""
    folder = tmp_path / "exports"
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: exported(application, folder), range(8)))
    assert {report.exported_records for report in reports} == {36}
    assert len({report.export_filename for report in reports}) == len(list_manifests(folder)) == 8
    assert_all_complete(folder)


@pytest.mark.parametrize(
    ("processes", "times"),
    [
        pytest.param(3, 4, id="few", marks=pytest.mark.slow),
        pytest.param(8, 25, id="many", marks=pytest.mark.torture),
    ],
)
def test_concurrent_exports_of_one_second_are_all_published(
    application: Database, tmp_path: Path, processes: int, times: int, count: Callable[[str, int], None]
) -> None:
    """They have the same `now`, so they compete for names, and none is lost."""
    folder = tmp_path / "exports"
    run_concurrently(application, folder, *(("export", 0, times) for _ in range(processes)))
    manifests = list_manifests(folder)
    assert len(manifests) == processes * times
    assert {manifest.statistics["exported_records"] for manifest in manifests} == {36}
    assert_all_complete(folder)
    assert len(list((folder / REJECTED_FOLDER).iterdir())) == processes * times
    count("exports at once", len(manifests))


@pytest.mark.parametrize(
    "times",
    [pytest.param(3, id="few", marks=pytest.mark.slow), pytest.param(25, id="many", marks=pytest.mark.torture)],
)
def test_concurrent_exports_erasures_and_prunes_are_consistent(
    application: Database, tmp_path: Path, times: int, count: Callable[[str, int], None]
) -> None:
    """No erased person is in any file in the end, and the incremental series and the log stay consistent."""
    folder = tmp_path / "exports"
    exported(application, folder)
    tasks = [("export", 0, times), ("export", 1, times), ("incremental", 0, times), ("erase", 101, 3)]
    run_concurrently(application, folder, *tasks, ("erase", 201, 3), ("prune", 0, times))
    assert_all_complete(folder)
    assert [manifest.chain["number"] for manifest in list_manifests(folder) if manifest.chain] == [1]
    reference = tmp_path / "reference"
    exported(application, reference)
    (everyone,) = (rows_of(path) for path in reference.glob("*.csv"))
    erased = {*everyone["analysis_hash"][-6:]}  # users 1 and 2 gave the newest feedback
    files = [folder / name for name in visible(folder) if not name.endswith(".json")]
    assert files
    for path in files:
        assert not erased & {*rows_of(path)["analysis_hash"]}
    records = AuditLog(folder).records()
    assert len([record for record in records if record["event"] == "committed"]) >= 2 * times + 2
    count("exports, erasures and prunes at once", 4 * times + 6)
