"""Exports that were asked for under an id are made once, whatever happens between the asking and the answer."""

from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import KEY, NOW, exported, people, visible
from processes import python

import feedback_etl as fe
from feedback_etl.errors import FolderLockedError, UsageError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.audit_verification import verify
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.locks import lock_folder

REQUEST = "0b9f7c1e-0d3c-4a52-8f5e-6f1b9d6e7a11"

# An export that is killed at a call of ours, the manifest having its name or not.
KILLED = """
import os, signal, sys
from datetime import datetime
import feedback_etl as fe
from feedback_etl.exports.local_transaction import LocalExportTransaction
url, folder, method, request = sys.argv[1:]
now = datetime(2025, 10, 25, 12)
setattr(LocalExportTransaction, method, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
fe.export_feedback(url, days_back=-1, key="k" * 32, output_dir=folder, now=now, idempotency_key=request)
"""


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Three users with three good rows each."""
    sqlite_database.fill(**people(3))
    return sqlite_database


def asked(database: Database, folder: Path, **options: Any) -> fe.ExportReport:
    return exported(database, folder, **{"idempotency_key": REQUEST, **options})


def facts(report: fe.ExportReport) -> dict[str, Any]:
    """A report but for what belongs to the moment."""
    return {
        name: value for name, value in report.to_dict().items() if name not in ("audit_head", "execution_time_seconds")
    }


class TestAskedTwice:
    """The second time nothing is read."""

    def test_the_second_answer_is_the_first(self, application: Database, tmp_path: Path) -> None:
        """Figures, files, window and risk; one export, though there is more feedback by now."""
        folder = tmp_path / "exports"
        first = asked(application, folder)
        application.clear()
        second = asked(application, folder, now=NOW.replace(hour=13))
        assert facts(second) == facts(first)
        assert (first.exported_records, first.errors, len(first.rejected_reasons)) == (9, 0, 0)
        assert len([name for name in visible(folder) if name.endswith(".csv")]) == 1
        assert [each["event"] for each in AuditLog(folder).records()] == ["started", "committed"]

    def test_rejected_rows_and_their_file_come_again_too(self, sqlite_database: Database, tmp_path: Path) -> None:
        """With the names of both files."""
        sqlite_database.fill(**people(2, each=4))
        first, second = (asked(sqlite_database, tmp_path / "exports") for _ in range(2))
        assert facts(second) == facts(first)
        assert (Path(second.rejected_filename).exists(), Path(second.export_filename).exists()) == (True, True)
        assert second.errors == 2

    def test_nothing_to_export_is_an_answer_as_well(self, sqlite_database: Database, tmp_path: Path) -> None:
        """What came in later is for the next request."""
        first = asked(sqlite_database, tmp_path / "exports")
        sqlite_database.fill(**people(1))
        second = asked(sqlite_database, tmp_path / "exports")
        assert facts(first) == facts(second)
        assert second.export_filename == ""
        assert asked(sqlite_database, tmp_path / "exports", idempotency_key="another").exported_records == 3

    def test_another_id_is_another_export(self, application: Database, tmp_path: Path) -> None:
        """As is none."""
        names = {
            asked(application, tmp_path, idempotency_key=each).export_filename for each in (REQUEST, "another", None)
        }
        assert len(names) == 3

    def test_one_that_failed_is_made(self, application: Database, tmp_path: Path) -> None:
        """A failure is no answer."""
        application.fill(feedbacks=[{"id": 1, "user_id": 1, "analysis_id": 1, "helpful_rating": 9, "created_at": NOW}])
        with pytest.raises(fe.errors.ValidationError):
            asked(application, tmp_path / "exports", strict=True, now=NOW.replace(hour=13))
        assert asked(application, tmp_path / "exports").exported_records == 9


class TestKilled:
    """Asked again after a kill."""

    @pytest.mark.sample("_end-committed")
    @pytest.mark.parametrize(("method", "recovered"), [("_give_names", "removed"), ("_end", "committed")])
    def test_there_is_one_export_in_the_end(
        self, application: Database, tmp_path: Path, method: str, recovered: str
    ) -> None:
        """Killed before the files had their names, and when they had them and nothing had told so."""
        folder = tmp_path / "exports"
        assert python(KILLED, application.url, folder, method, REQUEST).returncode == -9
        report = asked(application, folder)
        again = asked(application, folder)
        assert facts(report) == facts(again)
        assert report.exported_records == 9
        assert sorted(path.name for path in folder.glob("*.csv")) == [Path(report.export_filename).name]
        exported(application, folder)  # recovers what the dead run left
        log = AuditLog(folder)
        assert [each["outcome"] for each in log.records() if each["event"] == "recovered"] == [recovered]
        assert verify(log, [Key(KEY)], {}).problems == []


class TestOneAtATime:
    """The folder is locked from the beginning."""

    def test_nothing_is_read_while_others_use_the_folder(self, application: Database, tmp_path: Path) -> None:
        """Not even begun, so that two who ask at once do not both read."""
        with lock_folder(tmp_path / "exports", 1), pytest.raises(FolderLockedError):
            asked(application, tmp_path / "exports", lock_timeout=0)
        assert AuditLog(tmp_path / "exports").records() == []

    @pytest.mark.parametrize("idempotency_key", ["", "x" * 201, 7])
    def test_an_id_is_a_short_text(self, application: Database, tmp_path: Path, idempotency_key: Any) -> None:
        """It stands in the log."""
        with pytest.raises(UsageError, match=r"^idempotency_key must be a text of 1 to 200 characters"):
            asked(application, tmp_path / "exports", idempotency_key=idempotency_key)

    def test_incremental_exports_need_none(self, application: Database, tmp_path: Path) -> None:
        """They never take a row twice."""
        with pytest.raises(UsageError, match="leave idempotency_key out"):
            asked(application, tmp_path / "exports", incremental=True)
