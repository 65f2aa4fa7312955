"""Files that version 0.1.0 wrote are listed, verified, read, continued and erased by this version."""

import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import NOW, exported, people
from processes import environment

from feedback_etl.exports.maintenance import list_exports, prune
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.legacy_key_ids import bind_keys
from feedback_etl.records.tombstones import TombstoneFile
from feedback_etl.training.dataset import scan_training

KEY = Key("feedback-etl-demo-key-of-version-0.1.0", accept_weak=True)
STEM = "feedback_training_"
PRESENT = [f"{STEM}20251025_{hour}0000" for hour in (12, 13, 14, 15, 16, 17)]
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the folder that version 0.1.0 wrote."""
    return Path(shutil.copytree(Path(__file__).parent / "data" / "exports_of_0_1_0", tmp_path / "exports"))


def fill_as_exported(database: Database) -> None:
    """Fill a database with the rows that the newest exports of the folder were read from."""
    database.fill(**people(4, each=4))
    late: dict[str, Any] = {"user_id": 3, "recommendation_id": 1, "helpful_rating": 4}
    rows = [late | {"id": n, "analysis_id": n, "created_at": NOW + (n - 900 + 0.25) * HOUR} for n in (904, 905)]
    database.fill(feedbacks=rows)


def test_exports_are_listed(folder: Path) -> None:
    contents = list_exports(folder)
    pruned = [f"{STEM}20240612_120000", f"{STEM}20250101_000000"]
    assert [export.stem for export in contents.exports] == [*pruned, *PRESENT]
    assert [export.stem for export in contents.exports if export.pruned_at] == pruned
    assert [export.rows for export in contents.exports] == [3, 1, 9, 9, 9, 9, 9, 1]
    assert [export.erased_rows for export in contents.exports] == [3, 0, 4, 4, 4, 4, 4, 0]
    assert [export.mode for export in contents.exports][-2:] == ["incremental", "incremental"]
    assert contents.exports[-1].chain["number"] == 2
    assert contents.unmanaged == []


def test_audit_log_and_manifests_verify(folder: Path) -> None:
    verdict = verify_folder(folder, [KEY])
    assert (verdict.records, verdict.problems, verdict.unsigned, verdict.unknown) == (17, [], 0, 0)


def test_changed_audit_record_is_found(folder: Path) -> None:
    log = folder / ".feedback_etl" / "audit.jsonl"
    log.write_text(log.read_text().replace('"keep_days": 200', '"keep_days": 201'))
    assert verify_folder(folder, [KEY]).problems == ["line 17: it was changed"]


def test_rows_are_scanned_with_verified_digests(folder: Path) -> None:
    """The full exports repeat each other's pairs; the last incremental one has a pair of its own."""
    frame = scan_training(folder, mixed=True, verify=True).collect()
    assert frame.height == 10
    assert frame["analysis_hash"].n_unique() == 10


def test_erased_person_is_known(folder: Path) -> None:
    (tombstones,) = TombstoneFile(folder).select(bind_keys(folder, [KEY]))
    assert (len(tombstones.users), len(tombstones.pseudonyms)) == (1, 4)


def test_incremental_series_continues(folder: Path, sqlite_database: Database) -> None:
    """Rows that the series has read, and rows of the erased person, are not exported again."""
    fill_as_exported(sqlite_database)
    report = exported(sqlite_database, folder, key=KEY, now=NOW + 6 * HOUR, incremental=True)
    assert (report.exported_records, report.late_records) == (1, 0)
    assert list_exports(folder).exports[-1].chain["number"] == 3
    assert verify_folder(folder, [KEY]).problems == []


def test_repeated_request_returns_the_first_export(folder: Path, sqlite_database: Database) -> None:
    report = exported(sqlite_database, folder, key=KEY, now=NOW + 6 * HOUR, idempotency_key="weekly 2025-43")
    assert Path(report.export_filename).name == f"{STEM}20251025_140000.csv.gz"


def test_people_are_erased_from_every_form(folder: Path, sqlite_database: Database) -> None:
    fill_as_exported(sqlite_database)
    before = {export.stem: export.rows for export in list_exports(folder).exports}
    erasure = erase(folder, keys=[KEY], user_ids=(1,), database=sqlite_database.url)
    after = {export.stem: export.rows for export in list_exports(folder).exports}
    assert erasure.rows > 0
    assert [before[stem] - after[stem] for stem in PRESENT] == [3, 3, 3, 3, 3, 0]
    assert scan_training(folder, mixed=True, verify=True).select(pl.len()).collect().item() == 7
    assert AuditLog(folder).records()[-1]["event"] == "erased"
    assert verify_folder(folder, [KEY]).problems == []


def test_rejected_rows_are_erased_and_pruned_under_their_earlier_names(folder: Path) -> None:
    """The lists were called `.csv`."""
    lists = sorted(folder.glob("rejected/**/*.csv"))
    assert len(lists) == 5
    assert all("e7e266575a301c5d" in path.read_text() for path in lists)
    erase(folder, keys=[KEY], analysis_ids=(304,))
    assert sorted(folder.glob("rejected/**/*.csv")) == lists
    assert not any("e7e266575a301c5d" in path.read_text() for path in lists)
    prune(folder, keep_days=0, key=KEY, now=NOW + 24 * HOUR)
    assert not any(path.exists() for path in lists)
    assert list_exports(folder).unmanaged == []


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
import polars as pl
from feedback_etl.data_files.file_formats import FileFormat
from feedback_etl.exports import uncommitted
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
uncommitted.rejected_path = lambda stem: f"rejected/{stem}_rejected.csv"
options, form = TransactionOptions(key=None), FileFormat()
with ExportTransaction(Path(sys.argv[1]), datetime(2025, 10, 26), options, form=form) as files:
    files.write_rejected(pl.DataFrame({"feedback_id": [1]}))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_rejected_rows_of_a_killed_earlier_version_are_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment(), check=False, timeout=60)
    (left,) = tmp_path.glob("rejected/.*_rejected.csv.tmp")
    prune(tmp_path, keep_days=0, key=None)
    assert not left.exists()
