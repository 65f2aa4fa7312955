"""The status of incremental series, and its use for monitoring."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW, exported, people
from processes import Here

import feedback_etl as fe
from feedback_etl.exports.series_status import list_series
from feedback_etl.records import audit_records
from feedback_etl.schema.classic import CLASSIC_SCHEMA

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    """Run commands in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Here(capfd, monkeypatch)


def export_at(
    monkeypatch: pytest.MonkeyPatch, database: Database, folder: Path, now: datetime = NOW, **options: Any
) -> int:
    """Run an incremental export while the clock of the machine shows its time."""
    with monkeypatch.context() as patch:
        patch.setattr(audit_records, "resolve_now", lambda: now)
        return exported(database, folder, incremental=True, now=now, **options).exported_records


def add(database: Database, number: int, at: datetime) -> None:
    """Insert feedback."""
    ids = {"id": number, "analysis_id": number, "user_id": 9, "recommendation_id": 1}
    database.fill(feedbacks=[{**ids, "helpful_rating": 5, "created_at": at}])


def test_status_of_series(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finds nothing counts as a run; full exports belong to none; late rows are those not exported yet."""
    sqlite_database.fill(**people(2))
    exported(sqlite_database, tmp_path)
    assert list_series(tmp_path) == []
    rows = export_at(monkeypatch, sqlite_database, tmp_path)
    for number in (1, 2):
        add(sqlite_database, 900 + number, NOW - 9 * DAY)
        assert export_at(monkeypatch, sqlite_database, tmp_path, NOW + number * MINUTE) == 0
    (series,) = fe.exports.list_series(tmp_path)
    assert (series.exports, series.rows, series.late_records, series.pending_records) == (1, rows, 2, 0)
    assert (series.read_until, series.last_run, series.has_ended) == (NOW + 2 * MINUTE, NOW + 2 * MINUTE, False)
    assert (series.watermark, series.cursor) == (NOW - HOUR - MINUTE - HOUR, "created_at")
    other = export_at(monkeypatch, sqlite_database, tmp_path, NOW + DAY, min_feedback_fields=0, new_series=True)
    first, second = list_series(tmp_path)
    assert (first.has_ended, second.has_ended, second.rows) == (True, False, other)
    assert second.settings["min_feedback_fields"] == 0
    assert json.loads(json.dumps(second.to_dict()))["last_run"] == (NOW + DAY).isoformat()


def test_series_that_found_nothing_yet_is_listed(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export_at(monkeypatch, sqlite_database, tmp_path) == 0
    (series,) = list_series(tmp_path)
    assert (series.exports, series.rows, series.watermark, series.last_run) == (0, 0, None, NOW)


class TestCommand:
    """`feedback-etl status`."""

    def test_series_are_printed(self, sqlite_database: Database, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
        sqlite_database.fill(**people(2))
        export_at(monkeypatch, sqlite_database, Path("ml/feedback_training"))
        add(sqlite_database, 900, NOW - 9 * DAY)
        export_at(monkeypatch, sqlite_database, Path("ml/feedback_training"), NOW + MINUTE)
        ended = here("status")
        assert (ended.code, ended.err) == (0, "")
        lines = ended.out.splitlines()
        assert lines[:4] == [
            "Series    by created_at",
            "exports   1 with 6 rows",
            "last run  2025-10-25 12:01:00 UTC, read until 2025-10-25 12:01:00 UTC",
            "next      reads from 2025-10-25 09:59:00 UTC on",
        ]
        assert lines[4].startswith("settings  min_feedback_fields 1, ")
        backfill = "export --incremental --backfill exports those that no export contains"
        assert " ".join(map(str.strip, lines[5:])) == f"late      at least 1 row arrived after the lookback; {backfill}"
        (series,) = json.loads(here("status", "--json", "ml/feedback_training").out)["series"]
        assert (series["late_records"], series["watermark"]) == (1, "2025-10-25T09:59:00")

    def test_command_in_the_notice_of_late_rows_exports_them(self, sqlite_database: Database, here: Here) -> None:
        """It is the same command with an option, and the notice ends."""
        sqlite_database.fill(**people(2))
        export = ["export", "--incremental", "--days", "-1", "--database-url", sqlite_database.url, "--unkeyed"]
        assert here(*export).code == 0
        add(sqlite_database, 900, NOW - 9 * DAY)
        notice = "late       at least 1 row arrived after the lookback"
        assert notice in here(*export).err
        assert "exported   1 of 1 rows" in here(*export, "--backfill").err
        empty = "Nothing exported: the exports contain every row of the earlier windows that can be exported."
        assert empty in here(*export, "--backfill").err
        assert "late  " not in here(*export).err + here("status").out

    def test_fresh_series_is_ok_and_an_old_one_fails(
        self, sqlite_database: Database, here: Here, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A series that was replaced need not be fresh."""
        now, folder = datetime.now(UTC).replace(tzinfo=None), Path("exports")
        sqlite_database.fill(**people(2))
        export_at(monkeypatch, sqlite_database, folder, now - 48 * HOUR)
        assert here("status", "exports", "--fail-if-older", "3d").code == 0
        old = here("status", "exports", "--fail-if-older", "36h")
        assert (old.code, old.err) == (1, "A series was not exported within the last 36h (--fail-if-older).\n")
        export_at(monkeypatch, sqlite_database, folder, now - HOUR, min_feedback_fields=0, new_series=True)
        assert here("status", "exports", "--fail-if-older", "36h").code == 0

    def test_digest_of_a_query_is_for_programs(self, sqlite_database: Database, here: Here) -> None:
        """The text has the settings that a person has chosen."""
        sqlite_database.fill(**people(2))
        columns = ", ".join(("user_id", "analysis_id", "recommendation_id", *CLASSIC_SCHEMA.rating_names, "timeframe"))
        lists = "'[]' AS conditions_analyzed, '[]' AS rules_applied, 30 AS age"
        query = f"SELECT id AS feedback_id, {columns}, {lists}, created_at FROM recommendation_feedbacks"
        exported(sqlite_database, Path("exports"), incremental=True, query=query)
        assert "query_sha256" not in here("status", "exports").out
        assert "query_sha256" in here("status", "exports", "--json").out

    def test_folder_without_series_is_not_fresh(self, sqlite_database: Database, here: Here) -> None:
        exported(sqlite_database, Path("exports"))
        ended = here("status", "exports")
        assert (ended.code, ended.err) == (0, "There is no incremental series in this folder.\n")
        ended = here("status", "exports", "--fail-if-older", "36h")
        message = "There is no incremental series in this folder, so none was exported within the last 36h"
        assert (ended.code, ended.err) == (1, f"{message} (--fail-if-older).\n")

    def test_wrong_duration_and_missing_folder_are_refused(self, here: Here) -> None:
        assert here("status", "exports").code == 2
        ended = here("status", "--fail-if-older", "1.5d")
        assert (ended.code, "--fail-if-older must be a duration such as 30m, 2h or 1d" in ended.err) == (2, True)
