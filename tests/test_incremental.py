"""Incremental exports: each continues where the last one ended, and every row is exported exactly once."""

import hashlib
import hmac
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, create_schema, fill
from folders import FORMS, NOW, exported, rows_of, visible
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from processes import ProcessDied, die_after
from pseudonym_keys import KEY
from sqlalchemy.pool import StaticPool

import feedback_etl as fe
from feedback_etl.clock import parse_duration
from feedback_etl.errors import ExportFileError, FolderLockedError, UsageError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.manifest import Manifest
from feedback_etl.records.window_counts import MAX_COUNTED_WINDOWS
from feedback_etl.results import ExportReport
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.storage.locks import lock_folder

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


def row(number: int, at: datetime, **more: Any) -> dict[str, Any]:
    """Return a valid row of feedback."""
    ratings = {"helpful_rating": 5, "product_satisfaction": 4, "routine_completion_pct": 80, "would_recommend": True}
    ids = {"id": number, "user_id": number, "analysis_id": number, "recommendation_id": 1}
    return {**ids, **ratings, "created_at": at, **more}


def add(database: Database, *rows: dict[str, Any]) -> None:
    """Insert feedback."""
    database.fill(feedbacks=rows)


@pytest.fixture
def app(database: Database) -> Database:
    """Create an application with one recommendation, in each kind of database."""
    database.fill(records=[{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}])
    return database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the exports."""
    return tmp_path / "exports"


def export_next(database: Database, folder: Path, now: datetime = NOW, **options: Any) -> ExportReport:
    """Run the next incremental export."""
    return exported(database, folder, **{"incremental": True, "now": now, "days_back": 30, **options})


def count_pairs(folder: Path, stem: str = "") -> int:
    """Return the number of rows in the data files."""
    manifests = [manifest for manifest in list_manifests(folder) if stem in manifest.stem]
    files = [file for manifest in manifests for file in manifest.all("pairs")]
    return sum(rows_of(folder / file.path).height for file in files if (folder / file.path).exists())


class TestSeries:
    """Successive exports of one incremental series."""

    def test_each_export_contains_new_rows(self, app: Database, folder: Path) -> None:
        """The first reads `days_back`, the next ones continue; without new rows there is no file."""
        add(app, row(1, NOW - 40 * DAY), row(2, NOW - 2 * DAY), row(3, NOW - MINUTE))
        first = export_next(app, folder, NOW)
        assert (first.mode, first.total_feedback_records, first.exported_records) == ("incremental", 2, 2)
        before = visible(folder)
        nothing = export_next(app, folder, NOW + HOUR)
        assert (nothing.total_feedback_records, nothing.export_filename, visible(folder)) == (0, "", before)
        add(app, row(4, NOW + HOUR))
        second = export_next(app, folder, NOW + DAY)
        assert (second.total_feedback_records, second.exported_records) == (1, 1)
        assert second.window == (NOW - MINUTE - HOUR, NOW + DAY)
        assert [manifest.mode for manifest in list_manifests(folder)] == ["incremental"] * 2
        assert count_pairs(folder) == 3

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_late_row_within_the_lookback_is_exported_once(
        self, app: Database, folder: Path, form: dict[str, Any]
    ) -> None:
        """Also one with the same time as another, and in any file format."""
        add(app, row(1, NOW - 50 * MINUTE), row(2, NOW - MINUTE))
        export_next(app, folder, NOW, **form)
        add(app, row(3, NOW - 61 * MINUTE), row(4, NOW - MINUTE), row(5, NOW - 30 * MINUTE))
        report = export_next(app, folder, NOW + HOUR, **form)
        assert (report.total_feedback_records, report.exported_records, report.late_records) == (3, 3, 0)
        assert export_next(app, folder, NOW + 2 * HOUR, **form).export_filename == ""
        assert count_pairs(folder) == 5

    @pytest.mark.any_database
    def test_row_older_than_the_lookback_is_reported_once(self, app: Database, folder: Path) -> None:
        """No incremental export contains it, and the report counts it."""
        add(app, row(1, NOW - DAY), row(2, NOW - MINUTE))
        export_next(app, folder, NOW)
        add(app, row(3, NOW - 3 * HOUR), row(4, NOW - 2 * DAY), row(5, NOW + MINUTE))
        assert export_next(app, folder, NOW + HOUR).late_records == 2
        add(app, row(6, NOW + 2 * HOUR))
        report = export_next(app, folder, NOW + 3 * HOUR)
        assert (report.late_records, report.exported_records, count_pairs(folder)) == (0, 1, 4)

    @pytest.mark.any_database
    def test_late_row_is_reported_once_by_runs_that_write_nothing(self, app: Database, folder: Path) -> None:
        """And again only when another one arrives; an export does not report them once more."""
        add(app, row(1, NOW - DAY), row(2, NOW - MINUTE))
        export_next(app, folder, NOW)
        late = []
        for number in range(3, 8):
            if number in (4, 6):
                add(app, row(number, NOW - 2 * DAY))
            late.append(export_next(app, folder, NOW + number * MINUTE).late_records)
        add(app, row(8, NOW + MINUTE))
        late.append(export_next(app, folder, NOW + HOUR).late_records)
        assert late == [0, 1, 0, 1, 0, 0]

    @pytest.mark.any_database
    def test_duplicate_in_a_later_export_is_dropped(self, app: Database, folder: Path) -> None:
        """The pair was exported, so the row is read, counted and dropped."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        add(app, row(2, NOW - MINUTE, analysis_id=1), row(3, NOW))
        report = export_next(app, folder, NOW + HOUR)
        assert (report.total_feedback_records, report.deduplicated_records, report.exported_records) == (2, 1, 1)

    @pytest.mark.any_database
    def test_valid_row_equal_to_a_rejected_one_is_exported(self, app: Database, folder: Path) -> None:
        """Only exported rows make a later row a duplicate."""
        add(app, row(1, NOW - MINUTE, helpful_rating=9), row(2, NOW - MINUTE))
        assert export_next(app, folder, NOW).errors == 1
        add(app, row(3, NOW - MINUTE, analysis_id=1))
        report = export_next(app, folder, NOW + HOUR)
        assert (report.exported_records, report.errors, report.deduplicated_records) == (1, 0, 0)

    @pytest.mark.any_database
    def test_row_in_the_minute_of_the_watermark_is_read_once(self, app: Database, folder: Path) -> None:
        """Seen rows are stored with their minute, and the watermark can lie within it."""
        second = timedelta(seconds=1)
        add(app, row(1, NOW - 30 * MINUTE + 20 * second), row(2, NOW - MINUTE))
        export_next(app, folder, NOW)
        add(app, row(3, NOW + 30 * MINUTE + 10 * second))
        export_next(app, folder, NOW + HOUR)
        add(app, row(4, NOW + HOUR))
        report = export_next(app, folder, NOW + 2 * HOUR)
        assert report.window == (NOW - 30 * MINUTE + 10 * second, NOW + 2 * HOUR)
        assert (report.total_feedback_records, report.exported_records, count_pairs(folder)) == (1, 1, 4)

    def test_no_row_is_missing_after_a_pause(self, app: Database, folder: Path) -> None:
        """A window of the last day would leave a gap."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW, days_back=1)
        add(app, *(row(number, NOW + number * DAY) for number in range(2, 40)))
        assert export_next(app, folder, NOW + 50 * DAY, days_back=1).exported_records == 38

    def test_backlog_after_empty_windows_is_exported(self, app: Database, folder: Path) -> None:
        """The lookback counts from the newest row, so rows that arrive together later are read."""
        add(app, row(1, NOW - 10 * HOUR))
        export_next(app, folder, NOW)
        add(app, *(row(number, NOW - number * HOUR) for number in range(2, 10)))
        assert export_next(app, folder, NOW + HOUR).exported_records == 8

    @pytest.mark.any_database
    def test_other_exports_do_not_move_the_watermark(self, app: Database, folder: Path) -> None:
        """Neither full exports nor series of other settings; the file format belongs to no series."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        add(app, row(2, NOW + MINUTE))
        assert exported(app, folder, now=NOW + HOUR).exported_records == 2
        other: dict[str, Any] = {"hash_recommendation_id": True, "new_series": True}
        assert export_next(app, folder, NOW + HOUR, **other).exported_records == 2
        assert export_next(app, folder, NOW + 2 * HOUR, format="parquet").exported_records == 1

    def test_other_options_begin_a_new_series_only_if_that_is_intended(self, app: Database, folder: Path) -> None:
        """The message names the change and both ways on; a series that has begun is continued without the option."""
        add(app, row(1, NOW - HOUR), row(2, NOW - DAY))
        other: dict[str, Any] = {"include_subject_hash": True, "min_feedback_fields": 2}
        assert export_next(app, folder, NOW).advice == ""
        before = visible(folder)
        with pytest.raises(
            UsageError,
            match=r"again: `min_feedback_fields` is 2, the series has 1; `extra_columns` is subject_hash, "
            r"the series has none\. Pass `new_series` to begin it, or name another folder \(`output_dir`\)\.$",
        ):
            export_next(app, folder, NOW + MINUTE, **other)
        assert visible(folder) == before
        begun = export_next(app, folder, NOW + MINUTE, **other, new_series=True)
        assert (begun.exported_records, begun.advice) == (
            2,
            "this began a new series, since the folder's other exports have other settings: it repeats their rows",
        )
        for new_series in (False, True):
            continued = export_next(app, folder, NOW + 2 * MINUTE, **other, new_series=new_series)
            assert (continued.exported_records, continued.advice) == (0, "")

    def test_series_that_has_found_nothing_yet_is_continued(self, app: Database, folder: Path) -> None:
        """Its first run needs the option, the runs after it do not."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        few: dict[str, Any] = {"min_feedback_fields": 4, "days_back": 1, "now": NOW + 2 * DAY}
        assert export_next(app, folder, **few, new_series=True).exported_records == 0
        assert export_next(app, folder, **few).exported_records == 0

    def test_comments_and_white_space_of_a_query_make_no_difference(self, app: Database, folder: Path) -> None:
        """Another query does; its text is not shown. A series of an earlier version, by the text, is continued."""
        add(app, row(1, NOW - MINUTE))
        names = "'[]' AS conditions_analyzed, '[]' AS rules_applied, 30 AS age, 'rec_1' AS recommendation_id"
        columns = ", ".join(("user_id", "analysis_id", *CLASSIC_SCHEMA.rating_names, "timeframe", "created_at"))
        query = f"SELECT id AS feedback_id, {columns}, {names} FROM recommendation_feedbacks"
        assert export_next(app, folder, NOW, query=query).exported_records == 1
        spaced = f"-- nightly\n{query.replace(', ', ' ,  ')} /* all */ ;\n"
        assert export_next(app, folder, NOW + MINUTE, query=spaced).exported_records == 0
        with pytest.raises(UsageError, match=r"again: the query is another one\. Pass `new_series`"):
            export_next(app, folder, NOW + MINUTE, query=f"{query} WHERE id > 0")
        with pytest.raises(UsageError, match=r"again: `query` is not set, the series has one\. Pass"):
            export_next(app, folder, NOW + MINUTE)
        earlier = folder.with_name("earlier")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("feedback_etl.pipeline.request.normalize_query", lambda _, text: text)
            export_next(app, earlier, NOW, query=spaced)
        assert export_next(app, earlier, NOW + MINUTE, query=spaced).exported_records == 0
        assert len({manifest.settings_digest for manifest in list_manifests(earlier)}) == 1

    @pytest.mark.any_database
    def test_number_of_counted_windows_is_bounded(self, app: Database, folder: Path) -> None:
        """The manifest does not grow without limit."""
        for number in range(1, 4):
            add(app, row(number, NOW + number * DAY))
            export_next(app, folder, NOW + (number + 1) * DAY)
        counted = list_manifests(folder)[-1].chain["counted"]
        assert [rows for *_, rows in counted] == [0, 1, 1]
        assert [end for _, end, _ in counted[:-1]] == [start for start, *_ in counted[1:]]
        assert MAX_COUNTED_WINDOWS == 100

    @pytest.mark.any_database
    def test_only_the_last_export_has_seen_rows(self, app: Database, folder: Path) -> None:
        """Their file contains no ids and, except the pseudonym, no column of an export."""
        for number in range(1, 4):
            add(app, row(number, NOW + number * MINUTE))
            export_next(app, folder, NOW + (number + 1) * MINUTE)
        (seen_rows,) = (folder / ".feedback_etl").glob("*.rows")
        assert seen_rows.stem == list_manifests(folder)[-1].stem
        assert seen_rows.stat().st_mode & 0o777 == 0o600
        header, *lines = seen_rows.read_text().splitlines()
        assert (header, len(lines)) == ("analysis_hash,digest,minute,version", 6)


@pytest.mark.any_database
class TestErrors:
    """Clocks, invalid rows, damaged state, locks, pruning and erasure."""

    def test_clock_that_went_back_is_an_error(self, app: Database, folder: Path) -> None:
        """Unless it is less than the lookback."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        with pytest.raises(ExportFileError, match="clock says 2025-10-25 09:00:00: it may have gone backwards"):
            export_next(app, folder, NOW - 3 * HOUR)
        add(app, row(2, NOW - 50 * MINUTE))
        assert export_next(app, folder, NOW - 30 * MINUTE).exported_records == 1
        add(app, row(3, NOW))
        assert export_next(app, folder, NOW + HOUR).exported_records == 1
        assert count_pairs(folder) == 3

    def test_export_of_invalid_rows_alone_fails_and_reads_them_again(self, app: Database, folder: Path) -> None:
        """Nothing is published, and the next export rejects them."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        add(app, row(2, NOW, helpful_rating=9))
        with pytest.raises(ValidationError):
            export_next(app, folder, NOW + HOUR)
        add(app, row(3, NOW + MINUTE))
        report = export_next(app, folder, NOW + HOUR)
        assert (report.errors, report.exported_records) == (1, 1)

    @pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("analysis_hash,digest,minute\n")])
    def test_missing_or_changed_seen_rows_are_an_error(
        self, app: Database, folder: Path, harm: Callable[[Path], object]
    ) -> None:
        """Rows could be exported twice otherwise."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        harm(next((folder / ".feedback_etl").glob("*.rows")))
        with pytest.raises(ExportFileError, match=r"rows is missing or was changed: .* twice"):
            export_next(app, folder, NOW + HOUR)

    @pytest.mark.parametrize(
        "lookback", ["", "h", "1", "-1h", "1.5h", "1w", "½h", "9" * 30 + "d", "9" * 5000 + "d", -HOUR, 3600]
    )
    def test_invalid_lookback_is_refused(self, lookback: Any) -> None:
        """The message contains valid examples."""
        with pytest.raises(UsageError, match="30m, 2h or 1d"):
            parse_duration(lookback)

    def test_lookback_may_be_zero(self, app: Database, folder: Path) -> None:
        """Then only later rows, and those with the time of the newest row, are read."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW, lookback="0s")
        add(app, row(2, NOW - MINUTE), row(3, NOW - 2 * MINUTE))
        report = export_next(app, folder, NOW + HOUR, lookback=timedelta(0))
        assert (report.exported_records, report.late_records) == (1, 1)

    def test_explicit_window_is_refused(self, folder: Path) -> None:
        """The series determines the window."""
        with pytest.raises(UsageError, match="leave `since` and `until` out"):
            fe.export_feedback("sqlite://", incremental=True, since="2025-01-01", key=KEY, output_dir=folder)

    def test_concurrent_export_waits_or_fails(self, app: Database, folder: Path) -> None:
        """The folder is locked during an export."""
        add(app, row(1, NOW - MINUTE))
        with lock_folder(folder), pytest.raises(FolderLockedError, match="is in use"):
            export_next(app, folder, NOW, lock_timeout=0.05)
        assert export_next(app, folder, NOW).exported_records == 1

    def test_prune_keeps_the_state(self, app: Database, folder: Path) -> None:
        """The next export continues after its predecessor was pruned."""
        add(app, row(1, NOW - MINUTE))
        export_next(app, folder, NOW)
        fe.exports.prune(folder, keep_days=10, now=NOW + 50 * DAY, key=Key(KEY))
        assert visible(folder) == [f"{list_manifests(folder)[0].stem}.manifest.json"]
        add(app, row(2, NOW - MINUTE))
        assert export_next(app, folder, NOW + 50 * DAY).exported_records == 1

    def test_erased_people_are_not_exported_again(self, app: Database, folder: Path) -> None:
        """The seen rows do not contain them either."""
        add(app, row(1, NOW - MINUTE), row(2, NOW - MINUTE))
        export_next(app, folder, NOW)
        fe.privacy.erase(folder, user_ids=[1], database=app.url, keys=[Key(KEY)])
        (seen_rows,) = (folder / ".feedback_etl").glob("*.rows")
        assert seen_rows.read_text().count("\n") == 3
        add(app, row(3, NOW - MINUTE, user_id=1), row(4, NOW))
        report = export_next(app, folder, NOW + HOUR)
        assert (report.exported_records, report.erased_records, count_pairs(folder)) == (1, 2, 2)


WRITING_FUNCTIONS = [(os, name) for name in ("fsync", "link", "unlink", "rename", "replace")]


@dataclass
class Model:
    """The expected state of an incremental series."""

    options: dict[str, Any]
    number: int = 0
    known_since: datetime | None = None
    read: set[int] = field(default_factory=set)
    exported: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """By the stem of the export: analysis and time of each pair."""


CHAINS: list[dict[str, Any]] = [
    {"min_feedback_fields": 1, "new_series": True},
    {"min_feedback_fields": 2, "format": "parquet", "lookback": "10m", "new_series": True},
]


class Exports(RuleBasedStateMachine):
    """In any order of operations, the files of each series contain every expected row once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self.now, self.rows, self.gone = NOW, list[dict[str, Any]](), set[int]()
        self.models = [Model(options) for options in CHAINS]

    def teardown(self) -> None:
        """Delete what the example created."""
        self.engine.dispose()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        """Create an application without feedback."""
        create_schema(self.engine)
        fill(self.engine, records=[{"id": 1, "recommendation_id": "rec_1"}])

    @rule(
        ago=st.sampled_from([0, 0, 1, 5, 30, 59, 61, 600, 5000]),
        user=st.integers(1, 3),
        kind=st.sampled_from(["good", "good", "good", "few", "none", "bad"]),
    )
    def insert(self, ago: int, user: int, kind: str) -> None:
        """Insert feedback of now, or late feedback."""
        number = len(self.rows) + 1
        ratings: dict[str, dict[str, Any]] = {
            "good": {},
            "few": {"product_satisfaction": None, "routine_completion_pct": None, "would_recommend": None},
            "none": dict.fromkeys(("helpful_rating", "product_satisfaction", "routine_completion_pct")),
            "bad": {"helpful_rating": 9},
        }
        ratings["none"]["would_recommend"] = None
        self._add(row(number, self.now - ago * MINUTE - MINUTE / 2, user_id=user, **ratings[kind]))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def insert_duplicate(self, data: st.DataObject) -> None:
        """Insert the same feedback again, with another id."""
        self._add(data.draw(st.sampled_from(self.rows)) | {"id": len(self.rows) + 1})

    def _add(self, values: dict[str, Any]) -> None:
        self.rows.append(values)
        fill(self.engine, feedbacks=[values])

    @rule(minutes=st.sampled_from([1, 10, 60, 1500, -1, -30, -300]))
    def pass_time(self, minutes: int) -> None:
        """Advance the clock, or set it back."""
        self.now += minutes * MINUTE

    @rule()
    def export_full(self) -> None:
        """Run a full export, which belongs to no series."""
        with suppress(ValidationError):
            self._export({}, days_back=-1)

    @rule(chain=st.integers(0, 1))
    def export_incremental(self, chain: int) -> None:
        """Run the next incremental export."""
        model = self.models[chain]
        if model.known_since is not None and model.known_since >= self.now:
            with pytest.raises(ExportFileError, match="backwards"):
                self._export(model.options, incremental=True)
            return
        new, pairs, rejected = self._expected(model)
        validated = [row for row in new if _ratings(row) >= model.options["min_feedback_fields"]]
        if validated and rejected == len(validated):
            with pytest.raises(ValidationError):
                self._export(model.options, incremental=True)
            return
        report = self._export(model.options, incremental=True)
        assert (report.total_feedback_records, report.exported_records, report.errors) == (
            len(new),
            len(pairs),
            rejected,
        )
        if pairs or rejected:
            self._committed(model, pairs)

    @rule(chain=st.integers(0, 1), calls=st.integers(0, 40))
    def crash(self, chain: int, calls: int) -> None:
        """Run an export that dies: it belongs to the series if its manifest exists."""
        model = self.models[chain]
        _, pairs, _ = self._expected(model)
        with die_after(calls, WRITING_FUNCTIONS), suppress(ProcessDied, ValidationError, ExportFileError):
            self._export(model.options, incremental=True)
        if len(self._manifests(model)) > model.number:
            self._committed(model, pairs)

    @rule(user=st.integers(1, 3))
    def erase(self, user: int) -> None:
        """Erase a user."""
        self.gone.add(user)
        fe.privacy.erase(self.folder, user_ids=[user], database=self.engine, keys=[Key(KEY)])
        erased = {_pair(row) for row in self.rows if row["user_id"] == user}
        for model in self.models:
            model.exported = {stem: pairs - erased for stem, pairs in model.exported.items()}

    @rule(days=st.integers(0, 2), last=st.integers(0, 2))
    def prune(self, days: int, last: int) -> None:
        """Prune expired files; none after the clock has gone back."""
        with suppress(ExportFileError):
            done = fe.exports.prune(self.folder, keep_days=days, keep_last=last, now=self.now, key=Key(KEY))
            for model in self.models:
                for manifest in done.exports:
                    model.exported.pop(manifest.stem, None)

    def _export(self, options: dict[str, Any], **more: Any) -> ExportReport:
        usual: dict[str, Any] = {
            "days_back": 30,
            "now": self.now,
            "max_rejected": 1.0,
            "key": KEY,
            "output_dir": self.folder,
        }
        return fe.export_feedback(self.engine, **usual | options | more)

    def _expected(self, model: Model) -> tuple[list[dict[str, Any]], set[tuple[str, str]], int]:
        """Return the rows that the next export reads, the pairs that it exports, and the number of rejected rows."""
        start = model.known_since or self.now - 30 * DAY
        new = [
            row
            for row in self.rows
            if start <= row["created_at"] < self.now and row["user_id"] not in self.gone and row["id"] not in model.read
        ]
        rated = [row for row in new if _ratings(row) >= model.options["min_feedback_fields"]]
        valid = [row for row in rated if row["helpful_rating"] != 9]
        before = {_pair(row) for row in self.rows if row["id"] in model.read and self._is_valid(row, model)}
        return new, {_pair(row) for row in valid} - before, len(rated) - len(valid)

    def _is_valid(self, row: dict[str, Any], model: Model) -> bool:
        return bool(row["helpful_rating"] != 9 and _ratings(row) >= model.options["min_feedback_fields"])

    def _committed(self, model: Model, pairs: set[tuple[str, str]]) -> None:
        start = model.known_since or self.now - 30 * DAY
        read = [row for row in self.rows if start <= row["created_at"] < self.now]
        model.read |= {row["id"] for row in read if row["user_id"] not in self.gone}
        newest = max(row["created_at"] for row in read)
        model.known_since = max(start, newest - parse_duration(model.options.get("lookback", "1h")))
        model.number += 1
        model.exported[self._manifests(model)[-1].stem] = pairs

    def _manifests(self, model: Model) -> list[Manifest]:
        least = model.options["min_feedback_fields"]
        manifests = [manifest for manifest in list_manifests(self.folder) if manifest.chain]
        ours = [manifest for manifest in manifests if manifest.settings["min_feedback_fields"] == least]
        return sorted(ours, key=lambda manifest: int(manifest.chain["number"]))

    @invariant()
    def every_file_contains_the_expected_rows(self) -> None:
        """No row is missing or duplicated, and no erased person is exported."""
        for model in self.models:
            counts = Counter[tuple[str, str]]()
            for manifest in self._manifests(model):
                for file in manifest.all("pairs") if not manifest.pruned_at else []:
                    rows = rows_of(self.folder / file.path)
                    assert rows.height == file.rows
                    times = rows["feedback_timestamp"].str.slice(0, 19).str.replace(" ", "T")
                    counts.update(zip(rows["analysis_hash"], times, strict=True))
            assert counts == Counter(pair for pairs in model.exported.values() for pair in pairs)

    @invariant()
    def log_verifies(self) -> None:
        """Only a torn last line, which the next record will report, is a problem."""
        log = AuditLog(self.folder)
        if log.path.exists():
            problems = verify_lines(
                log.lines(),
                [Key(KEY)],
                {manifest.stem: manifest.audit_head for manifest in list_manifests(self.folder)},
            ).problems
            assert [problem for problem in problems if "the next record will say so" not in problem] == []


def _ratings(values: dict[str, Any]) -> int:
    names = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")
    return sum(values[name] is not None for name in names)


def _pair(values: dict[str, Any]) -> tuple[str, str]:
    """Return what identifies a pair: the pseudonym of its analysis, and its time."""
    digest = hmac.new(KEY.encode(), f"analysis_id:{values['analysis_id']}".encode(), hashlib.sha256).hexdigest()
    return digest[:16], values["created_at"].isoformat(timespec="seconds")


IGNORE_OPEN_FILES = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.slow
@IGNORE_OPEN_FILES
def test_every_row_is_exported_once_in_any_order_of_operations() -> None:
    """Ten orders of 25 operations."""
    run_state_machine_as_test(Exports, settings=settings(max_examples=10, stateful_step_count=25, deadline=None))


@IGNORE_OPEN_FILES
@pytest.mark.torture
def test_every_row_is_exported_once_in_many_orders_of_operations() -> None:
    """Two hundred orders of fifty operations."""
    run_state_machine_as_test(Exports, settings=settings(max_examples=200, stateful_step_count=50, deadline=None))
