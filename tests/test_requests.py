"""Idempotency keys: an export with a key is created once, also after kills and repeated requests."""

from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW, exported, people, visible
from processes import python
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import FolderLockedError, UsageError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.storage.locks import lock_folder

REQUEST = "0b9f7c1e-0d3c-4a52-8f5e-6f1b9d6e7a11"

# An export that is killed before or after its files are published.
KILLED = f"""
import os, signal, sys
from datetime import datetime
import feedback_etl as fe
from feedback_etl.exports.transaction import ExportTransaction
url, folder, method, request = sys.argv[1:]
now = datetime(2025, 10, 25, 12)
setattr(ExportTransaction, method, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
fe.export_feedback(url, days_back=-1, key={KEY!r}, output_dir=folder, now=now, idempotency_key=request)
"""


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Create an application of three users with three valid rows each."""
    sqlite_database.fill(**people(3))
    return sqlite_database


def export_once(database: Database, folder: Path, **options: Any) -> fe.ExportReport:
    return exported(database, folder, **{"idempotency_key": REQUEST, **options})


def get_lasting_values(report: fe.ExportReport) -> dict[str, Any]:
    """Return the values of a report that do not depend on the moment."""
    return {
        name: value for name, value in report.to_dict().items() if name not in ("audit_head", "execution_time_seconds")
    }


class TestRepeatedRequests:
    """A repeated request reads nothing."""

    def test_repeated_request_returns_the_first_report(self, application: Database, tmp_path: Path) -> None:
        """Its statistics, files, window and risk, although the feedback has changed."""
        folder = tmp_path / "exports"
        first = export_once(application, folder)
        application.clear()
        second = export_once(application, folder, now=NOW.replace(hour=13))
        assert get_lasting_values(second) == get_lasting_values(first)
        assert (first.exported_records, first.errors, len(first.rejected_reasons)) == (9, 0, 0)
        assert len([name for name in visible(folder) if name.endswith(".csv")]) == 1
        assert [record["event"] for record in AuditLog(folder).records()] == ["started", "committed"]

    def test_repeated_report_contains_rejected_rows(self, sqlite_database: Database, tmp_path: Path) -> None:
        """It names both files."""
        sqlite_database.fill(**people(2, each=4))
        first, second = (export_once(sqlite_database, tmp_path / "exports") for _ in range(2))
        assert get_lasting_values(second) == get_lasting_values(first)
        assert (Path(second.rejected_filename).exists(), Path(second.export_filename).exists()) == (True, True)
        assert second.errors == 2

    def test_repeated_request_of_an_empty_export_is_empty(self, sqlite_database: Database, tmp_path: Path) -> None:
        """Later rows belong to the next request."""
        first = export_once(sqlite_database, tmp_path / "exports")
        sqlite_database.fill(**people(1))
        second = export_once(sqlite_database, tmp_path / "exports")
        assert get_lasting_values(first) == get_lasting_values(second)
        assert second.export_filename == ""
        assert export_once(sqlite_database, tmp_path / "exports", idempotency_key="another").exported_records == 3

    def test_another_key_is_another_export(self, application: Database, tmp_path: Path) -> None:
        """A request without a key is another one too."""
        names = {
            export_once(application, tmp_path, idempotency_key=key).export_filename
            for key in (REQUEST, "another", None)
        }
        assert len(names) == 3

    def test_failed_export_is_repeated(self, application: Database, tmp_path: Path) -> None:
        """A failure is not repeated as the result."""
        application.fill(feedbacks=[{"id": 1, "user_id": 1, "analysis_id": 1, "helpful_rating": 9, "created_at": NOW}])
        with pytest.raises(fe.errors.ValidationError):
            export_once(application, tmp_path / "exports", strict=True, now=NOW.replace(hour=13))
        assert export_once(application, tmp_path / "exports").exported_records == 9


class TestKilled:
    """Requests that are repeated after a kill."""

    @pytest.mark.sample("_end-committed")
    @pytest.mark.parametrize(("method", "recovered"), [("_publish", "removed"), ("_end", "committed")])
    def test_repeated_request_after_a_kill_gives_one_export(
        self, application: Database, tmp_path: Path, method: str, recovered: str
    ) -> None:
        """Killed before the files are published, and after that but before the log records it."""
        folder = tmp_path / "exports"
        assert python(KILLED, application.url, folder, method, REQUEST).returncode == -9
        report = export_once(application, folder)
        again = export_once(application, folder)
        assert get_lasting_values(report) == get_lasting_values(again)
        assert report.exported_records == 9
        assert sorted(path.name for path in folder.glob("*.csv")) == [Path(report.export_filename).name]
        exported(application, folder)  # recovers what the dead run left
        log = AuditLog(folder)
        assert [record["outcome"] for record in log.records() if record["event"] == "recovered"] == [recovered]
        assert verify_lines(log.lines(), [Key(KEY)], {}).problems == []


class TestOneAtATime:
    """The lock of the folder, and invalid keys."""

    def test_nothing_is_read_while_the_folder_is_locked(self, application: Database, tmp_path: Path) -> None:
        """The export does not begin, so that concurrent requests do not both read."""
        with lock_folder(tmp_path / "exports", 1), pytest.raises(FolderLockedError):
            export_once(application, tmp_path / "exports", lock_timeout=0)
        assert AuditLog(tmp_path / "exports").records() == []

    @pytest.mark.parametrize("idempotency_key", ["", "x" * 201, 7])
    def test_invalid_idempotency_key_is_refused(
        self, application: Database, tmp_path: Path, idempotency_key: Any
    ) -> None:
        """The log contains the key, so it is a short text."""
        with pytest.raises(UsageError, match=r"^`idempotency_key` must be a text of 1 to 200 characters"):
            export_once(application, tmp_path / "exports", idempotency_key=idempotency_key)

    def test_incremental_export_refuses_an_idempotency_key(self, application: Database, tmp_path: Path) -> None:
        """It never exports a row twice anyway."""
        with pytest.raises(UsageError, match="leave `idempotency_key` out"):
            export_once(application, tmp_path / "exports", incremental=True)
