"""Incremental exports in an object store and by an executor: every row is exported exactly once there, too."""

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from clusters import NOW, Watched, exported
from databases import Database
from pseudonym_keys import KEY
from test_incremental import HOUR, MINUTE, add, row

import feedback_etl as fe
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.storage.base import Storage
from feedback_etl.storage.location import open_storage

DAY = timedelta(days=1)

# Runs incremental exports until one of them finds nothing new, and prints the number of their rows.
EXPORT_UNTIL_DONE = """
import sys
from datetime import datetime
import feedback_etl as fe
url, store, key = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
options = {"days_back": -1, "key": key, "output_dir": store, "incremental": True, "workers": 2}
print(fe.export_feedback(url, now=datetime(2025, 10, 25, 12), **options).exported_records)
"""

# An export that is killed before or after its manifest is put.
KILLED = """
import os, signal, sys
from datetime import datetime
import feedback_etl as fe
from feedback_etl.exports.publication import ObjectPublisher
from feedback_etl.exports.transaction import ExportTransaction
url, store, key, method = sys.argv[1:]
owner = {"publish": ObjectPublisher, "_end": ExportTransaction}[method]
setattr(owner, method, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
fe.export_feedback(url, days_back=-1, now=datetime(2025, 10, 25, 12), key=key, output_dir=store, incremental=True)
"""


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create an application with one recommendation."""
    sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}])
    return sqlite_database


def export_next(database: Database, store: str, **options: Any) -> ExportReport:
    """Run the next incremental export of an application."""
    with database.engine.connect() as connection:
        return fe.export_feedback(
            connection, **{"incremental": True, "days_back": 30, "key": KEY, "output_dir": store, **options}
        )


def read_pairs(storage: Storage) -> pl.DataFrame:
    """Return the rows of all exports as text."""
    frames = []
    for file in (file for manifest in list_manifests(storage) for file in manifest.all("pairs")):
        with storage.local_copy(file.path) as path:
            frames.append(pl.read_csv(path, infer_schema=False))
    return pl.concat(frames)


def list_seen_rows(storage: Storage) -> list[str]:
    """Return the files of seen rows."""
    return [name for name in storage.list_files(".feedback_etl") if name.endswith(".rows")]


def list_outcomes(store: str) -> list[str]:
    """Return how the runs began and ended, after verifying the log."""
    log = AuditLog(open_storage(store))
    assert verify_lines(log.lines(), [Key(KEY)], {}).problems == []
    return [str(record.get("outcome", record["event"])) for record in log.records()]


class TestSeries:
    """Successive exports of one series in an object store."""

    def test_each_export_contains_new_rows(self, app: Database, bucket_url: str) -> None:
        """Late rows within the lookback too; without new rows there is no export."""
        add(app, row(1, NOW - 50 * MINUTE), row(2, NOW - MINUTE))
        first = export_next(app, bucket_url, now=NOW)
        assert (first.mode, first.exported_records) == ("incremental", 2)
        assert export_next(app, bucket_url, now=NOW + MINUTE).export_filename == ""
        add(app, row(3, NOW - 61 * MINUTE), row(4, NOW - MINUTE), row(5, NOW - MINUTE, analysis_id=2), row(6, NOW))
        report = export_next(app, bucket_url, now=NOW + HOUR)
        assert (report.total_feedback_records, report.exported_records, report.deduplicated_records) == (4, 3, 1)
        assert read_pairs(open_storage(bucket_url)).height == 5
        assert [manifest.mode for manifest in list_manifests(bucket_url)] == ["incremental"] * 2

    def test_row_older_than_the_lookback_is_reported_once(self, app: Database, bucket_url: str) -> None:
        """As in a folder."""
        add(app, row(1, NOW - DAY), row(2, NOW - MINUTE))
        export_next(app, bucket_url, now=NOW)
        add(app, row(3, NOW - 3 * HOUR), row(4, NOW - 2 * DAY), row(5, NOW + MINUTE))
        assert export_next(app, bucket_url, now=NOW + HOUR).late_records == 2
        assert export_next(app, bucket_url, now=NOW + 2 * HOUR).late_records == 0

    def test_only_the_last_export_has_seen_rows(self, app: Database, bucket_url: str) -> None:
        """They contain no lines of rows that are not read again."""
        storage = open_storage(bucket_url)
        for number in range(1, 5):
            add(app, row(number, NOW + number * DAY))
            export_next(app, bucket_url, now=NOW + (number + 1) * DAY)
        last = list_manifests(storage)[-1]
        assert list_seen_rows(storage) == sorted(file.path for file in last.all("rows"))
        assert sum(file.rows for file in last.all("rows")) == 4

    def test_erased_people_are_not_exported_again(self, app: Database, bucket_url: str) -> None:
        """The seen rows do not contain them either."""
        storage = open_storage(bucket_url)
        add(app, row(1, NOW - MINUTE), row(2, NOW - MINUTE))
        export_next(app, bucket_url, now=NOW)
        fe.privacy.erase(bucket_url, user_ids=[1], database=app.url, keys=[Key(KEY)])
        assert sum(file.rows for file in list_manifests(storage)[-1].all("rows")) == 2
        add(app, row(3, NOW - MINUTE, user_id=1), row(4, NOW))
        report = export_next(app, bucket_url, now=NOW + HOUR)
        assert (report.exported_records, report.erased_records, report.excluded_records) == (1, 2, 0)
        assert read_pairs(storage).height == 2

    def test_missing_seen_rows_are_an_error(self, app: Database, bucket_url: str) -> None:
        """Rows could be exported twice otherwise."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, bucket_url, now=NOW)
        storage = open_storage(bucket_url)
        storage.delete(*list_seen_rows(storage))
        with pytest.raises(ExportFileError, match=r"rows is missing or was changed: .* twice"):
            export_next(app, bucket_url, now=NOW + HOUR)

    def test_prune_keeps_the_state(self, app: Database, bucket_url: str) -> None:
        """The next export continues after its predecessor was pruned."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, bucket_url, now=NOW)
        fe.exports.prune(bucket_url, keep_days=10, now=NOW + 50 * DAY, key=Key(KEY))
        assert len(list_seen_rows(open_storage(bucket_url))) == 1
        add(app, row(2, NOW - MINUTE))
        assert export_next(app, bucket_url, now=NOW + 50 * DAY).exported_records == 1


class TestManyParts:
    """Parts that threads or workers write, from a database that is read in ranges."""

    @pytest.mark.parametrize(
        ("where", "has_executor"),
        [("folder", True), ("store", False), pytest.param("store", True, marks=pytest.mark.slow)],
    )
    def test_exports_of_a_series_have_the_rows_of_one_export(
        self, shared_url: str, bucket_url: str, tmp_path: Path, where: str, has_executor: bool
    ) -> None:
        """No row is missing or duplicated."""
        place = bucket_url if where == "store" else str(tmp_path / "exports")
        executor = Watched() if has_executor else None
        for now in (NOW - 20 * DAY, NOW, NOW):
            exported(shared_url, place, incremental=True, now=now, executor=executor, lookback="1d")
        alone = exported(shared_url, tmp_path / "alone")
        columns = ["analysis_hash", "recommendation_id", "feedback_timestamp"]
        pairs, expected = read_pairs(open_storage(place)), pl.read_csv(alone.export_filename, infer_schema=False)
        assert pairs.select(columns).sort(columns).equals(expected.select(columns).sort(columns))
        assert [len(manifest.all("pairs")) > 1 for manifest in list_manifests(place)] == [True, True]
        assert {file.path for file in list_manifests(place)[-1].all("rows")} == {*list_seen_rows(open_storage(place))}


class TestConcurrentRuns:
    """Runs of one series at the same time: one is committed, and the other continues it."""

    def test_run_that_was_overtaken_continues_the_new_state(self, app: Database, bucket_url: str) -> None:
        """A later run is committed first; it aborts the earlier one, which is run again."""
        add(app, row(1, NOW - 2 * MINUTE), row(2, NOW - MINUTE))
        later = list[ExportReport]()

        def overtake(rows: int, total: int) -> None:
            if not later:
                later.append(export_next(app, bucket_url, now=NOW))
                add(app, row(3, NOW - MINUTE))

        report = export_next(app, bucket_url, now=NOW, on_progress=overtake)
        assert (later[0].exported_records, report.exported_records) == (2, 1)
        assert read_pairs(open_storage(bucket_url)).height == 3
        assert list_outcomes(bucket_url) == [
            *["started", "started", "removed", "committed"],
            *["failed", "started", "committed"],
        ]

    def test_run_that_began_on_an_old_state_continues_the_new_state(
        self, app: Database, bucket_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another run is committed after the state was read and before the start is recorded."""
        add(app, row(1, NOW - 2 * MINUTE), row(2, NOW - MINUTE))
        enter, other = ExportTransaction.__enter__, list[ExportReport]()

        def enter_after_another_run(transaction: ExportTransaction) -> ExportTransaction:
            if not other:
                monkeypatch.setattr(ExportTransaction, "__enter__", enter)
                other.append(export_next(app, bucket_url, now=NOW))
            return enter(transaction)

        monkeypatch.setattr(ExportTransaction, "__enter__", enter_after_another_run)
        report = export_next(app, bucket_url, now=NOW)
        assert (other[0].exported_records, report.exported_records) == (2, 0)
        assert read_pairs(open_storage(bucket_url)).height == 2

    def test_aborted_export_is_not_continued(
        self, app: Database, bucket_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that has put its manifest takes it back after a sweep; its rows are exported by the next run."""
        add(app, row(1, NOW - MINUTE))
        check_preconditions, checks = ExportTransaction._check_preconditions, list[str]()

        def sweep_before_the_second_check(transaction: ExportTransaction) -> None:
            checks.append(transaction.stem)
            if len(checks) == 2:
                with AuditLog(open_storage(bucket_url)).lock() as opened:
                    opened.append("erasing", Key(KEY), swept=True)
                add(app, row(2, NOW))
                with pytest.raises(ExportFileError, match="may take it back"):
                    export_next(app, bucket_url, now=NOW + HOUR)
            check_preconditions(transaction)

        monkeypatch.setattr(ExportTransaction, "_check_preconditions", sweep_before_the_second_check)
        with pytest.raises(ExportFileError, match="swept meanwhile"):
            export_next(app, bucket_url, now=NOW)
        assert list_manifests(bucket_url) == []
        assert export_next(app, bucket_url, now=NOW + HOUR).exported_records == 2

    @pytest.mark.slow
    @pytest.mark.served_store
    def test_processes_at_once_export_every_row_once(self, shared_url: str, bucket_url: str, tmp_path: Path) -> None:
        """Three processes with a store that speaks S3."""
        command = [sys.executable, "-c", EXPORT_UNTIL_DONE, shared_url, bucket_url, KEY]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        runs = [subprocess.Popen(command, **pipes) for _ in range(3)]  # type: ignore[call-overload]
        for run in runs:
            assert run.stdout.readline() == "ready\n"
        for run in runs:
            run.stdin.write("\n")
            run.stdin.flush()
        rows = [int(run.communicate(timeout=300)[0]) for run in runs]
        expected = exported(shared_url, tmp_path / "alone").exported_records
        assert sorted(rows) == [0, 0, expected]
        pairs = read_pairs(open_storage(bucket_url))
        assert pairs.height == pairs.unique().height == expected

    @pytest.mark.slow
    @pytest.mark.served_store
    @pytest.mark.parametrize(("method", "outcome"), [("publish", "removed"), ("_end", "committed")])
    def test_run_after_a_kill_exports_every_row_once(
        self, app: Database, bucket_url: str, method: str, outcome: str
    ) -> None:
        """Killed before its manifest, which contains the state, is put, and after that before the log records it."""
        add(app, row(1, NOW - MINUTE))
        killed = subprocess.run([sys.executable, "-c", KILLED, app.url, bucket_url, KEY, method], check=False)
        assert killed.returncode == -signal.SIGKILL
        add(app, row(2, NOW))
        export_next(app, bucket_url, now=NOW + HOUR)
        assert read_pairs(open_storage(bucket_url)).height == 2
        assert list_outcomes(bucket_url) == (
            ["started", "started", "removed", "committed"]
            if outcome == "removed"
            else ["started", "committed", "started", "committed"]
        )
