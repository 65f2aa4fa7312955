"""Maintenance of partitioned exports in a folder: the same commands, and recovery after a kill."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from exports_in_parts import LocalParts
from folders import FORMS, NOW, exported, people, visible
from polars.testing import assert_frame_equal
from processes import Here, environment
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.layout import part_folders, part_path
from feedback_etl.records.manifest import Manifest
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.local import LocalStorage
from feedback_etl.storage.posix import hash_file

KEYS = [Key(KEY)]


def export_partitioned(local_parts: LocalParts, folder: Path) -> str:
    """Export rows in parts, and return the stem."""
    with ExportTransaction(folder, local_parts.now, TransactionOptions(key=KEYS[0])) as export:
        export.commit(local_parts.put(LocalStorage(folder), export.stem), local_parts.details)
    return export.stem


@pytest.fixture
def local_parts(sqlite_database: Database, tmp_path: Path) -> LocalParts:
    """Export three users with feedback."""
    sqlite_database.fill(**people(3, each=4))
    return LocalParts(sqlite_database, tmp_path / "made")


@pytest.fixture
def folder(local_parts: LocalParts, tmp_path: Path) -> Path:
    """Create a partitioned export of them."""
    export_partitioned(local_parts, tmp_path / "exports")
    return tmp_path / "exports"


def only(folder: Path) -> Manifest:
    (manifest,) = list_manifests(folder)
    return manifest


def assert_consistent(folder: Path) -> None:
    """Assert that the manifests and the log agree with the files."""
    for manifest in list_manifests(folder):
        for file in manifest.files if not manifest.pruned_at else []:
            assert hash_file(folder / file.path) == file.sha256
    assert verify_folder(folder, KEYS).problems == []


@pytest.mark.sample("{'format': 'csv'}", "{'format': 'parquet'}")
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_parts_are_scanned_as_one_frame(sqlite_database: Database, tmp_path: Path, form: dict[str, str]) -> None:
    """By the folder of the exports, the folder of the parts, or a pattern; one part by its name."""
    sqlite_database.fill(**people(3, each=4))
    stem = export_partitioned(LocalParts(sqlite_database, tmp_path / "made", **form), tmp_path / "exports")
    exported(sqlite_database, tmp_path / "alone", **form)
    alone = fe.scan_training(tmp_path / "alone").collect()
    for where in ("exports", f"exports/{stem}", "exports/feedback_training_2025*", "exports/**/part-*"):
        assert_frame_equal(fe.scan_training(tmp_path / where, verify=True).collect(), alone)
    assert fe.training.latest_export(tmp_path / "exports") == tmp_path / "exports" / stem
    first = only(tmp_path / "exports").all("pairs")[0]
    assert fe.scan_training(tmp_path / "exports" / first.path).collect().height == first.rows


def test_missing_and_unmanaged_parts_are_refused(folder: Path) -> None:
    """An incomplete export is not read."""
    stem = only(folder).stem
    (folder / stem / "part-00077.parquet").touch()
    with pytest.raises(ExportFileError, match="has no manifest"):
        fe.scan_training(folder / stem / "part-00077.parquet")
    assert fe.exports.list_exports(folder).unmanaged == [folder / stem / "part-00077.parquet"]
    (folder / stem / "part-00001.parquet").unlink()
    with pytest.raises(ExportFileError, match=r"part-00001\.parquet does not match its manifest"):
        fe.scan_training(folder)


def test_people_are_erased_from_every_part(folder: Path, sqlite_database: Database) -> None:
    """All other rows are unchanged."""
    before = fe.scan_training(folder).collect()
    done = fe.privacy.erase(folder, user_ids=[2], database=sqlite_database.url, keys=KEYS)
    after = fe.scan_training(folder, verify=True).collect()
    assert (done.rows, done.not_found, only(folder).erased_rows) == (4, [], 4)
    assert (before.height, after.height, only(folder).rows) == (9, 6, 6)
    assert_frame_equal(before.filter(pl.col("analysis_hash").is_in(after["analysis_hash"].implode())), after)
    assert [path.name for path in folder.rglob(".*.tmp*")] == []
    assert_consistent(folder)


def test_parts_of_expired_exports_are_pruned_with_their_folder(folder: Path) -> None:
    """The manifest is kept."""
    stem = only(folder).stem
    pruned = fe.exports.prune(folder, keep_days=0, key=KEYS[0], now=NOW + timedelta(days=9))
    assert [export.stem for export in pruned.exports] == [stem]
    assert visible(folder) == [f"{stem}.manifest.json"]
    assert not (folder / stem).exists()
    assert_consistent(folder)


def test_partitioned_exports_are_listed_reported_and_checked(
    folder: Path, sqlite_database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like exports of one file."""
    here, stem = Here(capsys, monkeypatch), only(folder).stem
    assert f"{stem}/ (3 parts)     9  full  " in here("list", folder).out
    assert here("report", folder, "-o", "report.html").code == 0
    assert here("contracts", "--croissant", folder).code == 0
    assert json.loads(here("risk", folder / stem, "--json").out)["rows"] == 9
    settings = load_settings(output_dir=folder, database_url=sqlite_database.url)
    found = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}
    names = ("columns", "pseudonyms", "ages", "contents", "duplicates", "modes", "audit log", "erasure")
    assert [(name, found[name].detail) for name in names if not found[name].passed] == []
    (folder / stem / "part-00000.parquet").chmod(0o644)
    assert not {item.name: item for item in check(settings, keys=KEYS, now=NOW)}["modes"].passed


KILLED = f"""
import os, signal, sys
from datetime import datetime
from pathlib import Path
from feedback_etl.records.layout import part_folders, part_path
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.privacy.keys import Key
folder = Path(sys.argv[1])
with ExportTransaction(folder, datetime(2025, 10, 25, 12), TransactionOptions(key=Key({KEY!r}))) as export:
    names = ("part-00000.parquet", ".part-00001.parquet.7-0a1b.tmp", ".part-00001.csv.gz.7-0a1b.tmp", "mine.md")
    for place in part_folders(export.stem):
        for name in names:
            (folder / place / name).write_text("left")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_files_of_a_killed_run_are_removed(folder: Path) -> None:
    """Its parts, temporary files and folders; other files are kept."""
    whole = {name: hash_file(folder / name) for name in visible(folder)}
    command = [sys.executable, "-c", KILLED, str(folder)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")
    stem = str(AuditLog(folder).records()[-1]["stem"])
    fe.privacy.erase(folder, analysis_ids=[999], keys=KEYS)
    for place in part_folders(stem):
        assert [path.name for path in (folder / place).iterdir()] == ["mine.md"]
    record = next(record for record in AuditLog(folder).records() if record["event"] == "recovered")
    assert (record["outcome"], len(record["removed"])) == ("removed", 10)
    assert {name: hash_file(folder / name) for name in visible(folder) if not name.endswith(".md")} == whole
    assert_consistent(folder)


def test_file_of_a_killed_erasure_is_removed(folder: Path) -> None:
    """It was to replace a part."""
    left = folder / only(folder).stem / ".part-00000.parquet.tmp2"
    left.touch()
    fe.privacy.erase(folder, analysis_ids=[999], keys=KEYS)
    assert not left.exists()


def test_file_of_a_late_worker_in_a_published_export_is_removed(folder: Path) -> None:
    """The worker was killed while it wrote a part that another worker has completed since."""
    left = folder / only(folder).stem / ".part-00000.parquet.123-0123abcd.tmp"
    left.touch()
    fe.privacy.erase(folder, analysis_ids=[999], keys=KEYS)
    assert not left.exists()
    assert_consistent(folder)


def test_late_worker_leaves_no_file(local_parts: LocalParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator has failed and removes the parts; the folder for further parts does not exist any more."""
    folder, place, outcomes = tmp_path / "exports", LocalStorage(tmp_path / "exports"), list[str]()
    unlink = Path.unlink

    def late(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == "part-00000.parquet" and not outcomes:
            with place.staging_path(part_path(export.stem, 7, ".csv")) as draft:
                try:
                    draft.touch()
                except FileNotFoundError:
                    outcomes.append("too late")

    monkeypatch.setattr(Path, "unlink", late)
    with (
        suppress(MemoryError),
        ExportTransaction(folder, local_parts.now, TransactionOptions(key=KEYS[0])) as export,
    ):
        local_parts.put(place, export.stem)
        raise MemoryError
    assert outcomes == ["too late"]
    assert {path.name for path in folder.iterdir()} == {".feedback_etl", "rejected"}
    assert not list((folder / "rejected").iterdir())


def test_renamed_folder_of_a_dead_run_is_removed_by_the_next_run(local_parts: LocalParts, folder: Path) -> None:
    """The coordinator was killed, or could not remove a file; with other files in it, the folder gets its name back."""
    with (
        suppress(MemoryError),
        ExportTransaction(folder, local_parts.now + timedelta(days=1), TransactionOptions(key=KEYS[0])) as export,
    ):
        local_parts.put(LocalStorage(folder), export.stem)
        hidden = folder / f".{export.stem}.tmp"
        (folder / export.stem).rename(hidden)
        (hidden / "mine.txt").touch()
        raise MemoryError
    assert [path.name for path in (folder / export.stem).iterdir()] == ["mine.txt"]
    assert not hidden.exists()
    (folder / export.stem / "mine.txt").rename(folder / "mine.txt")
    (folder / export.stem).rename(hidden)
    (hidden / "part-00003.csv").touch()
    fe.privacy.erase(folder, analysis_ids=[999], keys=KEYS)
    assert not hidden.exists()


def test_liveness_of_a_run_is_checked_without_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS gives the lock that keeps all others out only for files that are open for writing."""

    def on_nfs(file: Any, operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        is_read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if operation & fcntl.LOCK_EX and is_read_only:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", on_nfs)
    with ExportTransaction(folder, NOW, TransactionOptions(key=KEYS[0])) as export:
        fe.privacy.erase(folder, analysis_ids=[999], keys=KEYS)
        assert (folder / export.stem).is_dir()
    assert not (folder / export.stem).exists()


def test_parts_without_a_manifest_are_reported(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure does not reach their people; parts of a running export are not reported."""
    stem = only(folder).stem
    (folder / f"{stem}.manifest.json").rename(folder / "kept.json")
    lost = {path.relative_to(folder).as_posix() for path in folder.glob(f"**/{stem}/part-*")}
    assert any(name.startswith("rejected/") for name in lost)
    result = fe.privacy.erase(folder, analysis_ids=[999], keys=KEYS)
    assert {path.relative_to(folder).as_posix() for path in result.unmanaged} == lost
    first, second, *_ = Here(capfd, monkeypatch)("list", "--output", folder).out.splitlines()
    assert first.endswith("unmanaged: the manifest of this part is missing")
    assert second == "    restore it, or remove the folder"
    (folder / "kept.json").rename(folder / f"{stem}.manifest.json")
    with ExportTransaction(folder, NOW + timedelta(days=1), TransactionOptions(key=KEYS[0])) as export:
        (folder / export.stem / "part-00000.csv").touch()
        assert fe.exports.list_exports(folder).unmanaged == []
