"""An incremental export goes on where the last one ended: every row exactly once, whenever it runs."""

import hashlib
import hmac
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, create_schema, fill
from folders import FORMS, KEY, NOW, exported, rows_of, visible
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
from sqlalchemy.pool import StaticPool

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, FolderLockedError, UsageError, ValidationError
from feedback_etl.exports.audit import AuditLog
from feedback_etl.exports.audit_verification import verify
from feedback_etl.exports.catalog import list_manifests
from feedback_etl.exports.incremental import MAX_COUNTED_WINDOWS, parse_lookback
from feedback_etl.exports.manifest import Manifest
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.storage.locks import lock_folder

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


def row(number: int, at: datetime, **more: Any) -> dict[str, Any]:
    """A feedback with everything in order."""
    ratings = {"helpful_rating": 5, "product_satisfaction": 4, "routine_completion_pct": 80, "would_recommend": True}
    ids = {"id": number, "user_id": number, "analysis_id": number, "recommendation_id": 1}
    return {**ids, **ratings, "created_at": at, **more}


def add(database: Database, *rows: dict[str, Any]) -> None:
    """More feedback."""
    database.fill(feedbacks=rows)


@pytest.fixture
def app(database: Database) -> Database:
    """An application with one recommendation, on both kinds of database."""
    database.fill(records=[{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}])
    return database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the exports go."""
    return tmp_path / "exports"


def go_on(database: Database, folder: Path, now: datetime, **options: Any) -> ExportReport:
    """The next incremental export."""
    return exported(database, folder, **{"incremental": True, "now": now, "days_back": 30, **options})


def pairs_in(folder: Path, stem: str = "") -> int:
    """How many rows the data files hold."""
    found = [file for each in list_manifests(folder) if (file := each.file("pairs")) and stem in each.stem]
    return sum(rows_of(folder / file.path).height for file in found if (folder / file.path).exists())


class TestChain:
    """One export after the other."""

    def test_each_exports_what_is_new(self, app: Database, folder: Path) -> None:
        """The first takes the days; the next ones go on; nothing new gives no file."""
        add(app, row(1, NOW - 40 * DAY), row(2, NOW - 2 * DAY), row(3, NOW - MINUTE))
        first = go_on(app, folder, NOW)
        assert (first.mode, first.total_feedback_records, first.exported_records) == ("incremental", 2, 2)
        before = visible(folder)
        nothing = go_on(app, folder, NOW + HOUR)
        assert (nothing.total_feedback_records, nothing.export_filename, visible(folder)) == (0, "", before)
        add(app, row(4, NOW + HOUR))
        second = go_on(app, folder, NOW + DAY)
        assert (second.total_feedback_records, second.exported_records) == (1, 1)
        assert second.window == (NOW - MINUTE - HOUR, NOW + DAY)
        assert [each.mode for each in list_manifests(folder)] == ["incremental"] * 2
        assert pairs_in(folder) == 3

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_a_row_that_is_late_is_found_once(self, app: Database, folder: Path, form: dict[str, Any]) -> None:
        """Within the lookback before the newest row; also one at the very time of another, and in any form."""
        add(app, row(1, NOW - 50 * MINUTE), row(2, NOW - MINUTE))
        go_on(app, folder, NOW, **form)
        add(app, row(3, NOW - 61 * MINUTE), row(4, NOW - MINUTE), row(5, NOW - 30 * MINUTE))
        report = go_on(app, folder, NOW + HOUR, **form)
        assert (report.total_feedback_records, report.exported_records, report.late_records) == (3, 3, 0)
        assert go_on(app, folder, NOW + 2 * HOUR, **form).export_filename == ""
        assert pairs_in(folder) == 5

    @pytest.mark.any_database
    def test_a_row_that_is_too_late_is_told_once(self, app: Database, folder: Path) -> None:
        """It is in no incremental export, and the report counts it."""
        add(app, row(1, NOW - DAY), row(2, NOW - MINUTE))
        go_on(app, folder, NOW)
        add(app, row(3, NOW - 3 * HOUR), row(4, NOW - 2 * DAY), row(5, NOW + MINUTE))
        assert go_on(app, folder, NOW + HOUR).late_records == 2
        add(app, row(6, NOW + 2 * HOUR))
        report = go_on(app, folder, NOW + 3 * HOUR)
        assert (report.late_records, report.exported_records, pairs_in(folder)) == (0, 1, 4)

    @pytest.mark.any_database
    def test_a_duplicate_in_a_later_export_is_dropped(self, app: Database, folder: Path) -> None:
        """The pair was exported; so it was read, counted and left out."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW)
        add(app, row(2, NOW - MINUTE, analysis_id=1), row(3, NOW))
        report = go_on(app, folder, NOW + HOUR)
        assert (report.total_feedback_records, report.deduplicated_records, report.exported_records) == (2, 1, 1)

    @pytest.mark.any_database
    def test_a_valid_row_like_a_rejected_one_is_exported(self, app: Database, folder: Path) -> None:
        """Only what was exported makes a later row a duplicate."""
        add(app, row(1, NOW - MINUTE, helpful_rating=9), row(2, NOW - MINUTE))
        assert go_on(app, folder, NOW).errors == 1
        add(app, row(3, NOW - MINUTE, analysis_id=1))
        report = go_on(app, folder, NOW + HOUR)
        assert (report.exported_records, report.errors, report.deduplicated_records) == (1, 0, 0)

    @pytest.mark.any_database
    def test_a_row_in_the_minute_of_the_watermark_is_not_read_twice(self, app: Database, folder: Path) -> None:
        """Rows are remembered by their minute, and the watermark can lie in the middle of it."""
        second = timedelta(seconds=1)
        add(app, row(1, NOW - 30 * MINUTE + 20 * second), row(2, NOW - MINUTE))
        go_on(app, folder, NOW)
        add(app, row(3, NOW + 30 * MINUTE + 10 * second))
        go_on(app, folder, NOW + HOUR)
        add(app, row(4, NOW + HOUR))
        report = go_on(app, folder, NOW + 2 * HOUR)
        assert report.window == (NOW - 30 * MINUTE + 10 * second, NOW + 2 * HOUR)
        assert (report.total_feedback_records, report.exported_records, pairs_in(folder)) == (1, 1, 4)

    def test_after_a_pause_nothing_is_missing(self, app: Database, folder: Path) -> None:
        """However late it runs: a rolling day would leave a hole."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW, days_back=1)
        add(app, *(row(number, NOW + number * DAY) for number in range(2, 40)))
        assert go_on(app, folder, NOW + 50 * DAY, days_back=1).exported_records == 38

    def test_what_it_read_in_quiet_times_is_no_barrier(self, app: Database, folder: Path) -> None:
        """The lookback counts from the newest row, so that a backlog that arrives at once is read."""
        add(app, row(1, NOW - 10 * HOUR))
        go_on(app, folder, NOW)
        add(app, *(row(number, NOW - number * HOUR) for number in range(2, 10)))
        assert go_on(app, folder, NOW + HOUR).exported_records == 8

    @pytest.mark.any_database
    def test_other_exports_do_not_move_it(self, app: Database, folder: Path) -> None:
        """Neither full ones, nor chains of other settings; the form of the file is no other setting."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW)
        add(app, row(2, NOW + MINUTE))
        assert exported(app, folder, now=NOW + HOUR).exported_records == 2
        assert go_on(app, folder, NOW + HOUR, hash_recommendation_id=True).exported_records == 2
        assert go_on(app, folder, NOW + 2 * HOUR, format="parquet").exported_records == 1

    @pytest.mark.any_database
    def test_other_options_begin_another_one_and_say_so(self, app: Database, folder: Path) -> None:
        """Rows of the first are in it again."""
        add(app, row(1, NOW - HOUR), row(2, NOW - DAY))
        first = go_on(app, folder, NOW)
        other = go_on(app, folder, NOW + timedelta(minutes=1), include_subject_hash=True)
        assert (first.advice, first.exported_records, other.exported_records) == ("", 2, 2)
        assert other.advice.startswith("this began a new series")
        assert go_on(app, folder, NOW + timedelta(minutes=2), include_subject_hash=True).advice == ""

    @pytest.mark.any_database
    def test_windows_are_counted_so_far_back(self, app: Database, folder: Path) -> None:
        """The manifest does not grow for ever."""
        for number in range(1, 4):
            add(app, row(number, NOW + number * DAY))
            go_on(app, folder, NOW + (number + 1) * DAY)
        counted = list_manifests(folder)[-1].chain["counted"]
        assert [rows for *_, rows in counted] == [0, 1, 1]
        assert [end for _, end, _ in counted[:-1]] == [start for start, *_ in counted[1:]]
        assert MAX_COUNTED_WINDOWS == 100

    @pytest.mark.any_database
    def test_only_the_last_one_remembers_rows(self, app: Database, folder: Path) -> None:
        """In a file that holds neither ids nor, but for the pseudonym, anything that is in an export."""
        for number in range(1, 4):
            add(app, row(number, NOW + number * MINUTE))
            go_on(app, folder, NOW + (number + 1) * MINUTE)
        (remembered,) = (folder / ".feedback_etl").glob("*.rows")
        assert remembered.stem == list_manifests(folder)[-1].stem
        assert remembered.stat().st_mode & 0o777 == 0o600
        header, *lines = remembered.read_text().splitlines()
        assert (header, len(lines)) == ("analysis_hash,digest,minute,version", 6)


@pytest.mark.any_database
class TestTrouble:
    """What can go wrong."""

    def test_the_clock_went_far_back(self, app: Database, folder: Path) -> None:
        """There is nothing to read before what was read; a little is no harm."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW)
        with pytest.raises(ExportFileError, match="clock says 2025-10-25 09:00:00: it may have gone backwards"):
            go_on(app, folder, NOW - 3 * HOUR)
        add(app, row(2, NOW - 50 * MINUTE))
        assert go_on(app, folder, NOW - 30 * MINUTE).exported_records == 1
        add(app, row(3, NOW))
        assert go_on(app, folder, NOW + HOUR).exported_records == 1
        assert pairs_in(folder) == 3

    def test_all_new_rows_are_wrong(self, app: Database, folder: Path) -> None:
        """Nothing is published, and they are read again."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW)
        add(app, row(2, NOW, helpful_rating=9))
        with pytest.raises(ValidationError):
            go_on(app, folder, NOW + HOUR)
        add(app, row(3, NOW + MINUTE))
        report = go_on(app, folder, NOW + HOUR)
        assert (report.errors, report.exported_records) == (1, 1)

    @pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("analysis_hash,digest,minute\n")])
    def test_what_it_remembers_is_gone(self, app: Database, folder: Path, harm: Callable[[Path], object]) -> None:
        """It says so, rather than export rows twice."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW)
        harm(next((folder / ".feedback_etl").glob("*.rows")))
        with pytest.raises(ExportFileError, match=r"rows is missing or was changed: .* twice"):
            go_on(app, folder, NOW + HOUR)

    @pytest.mark.parametrize("lookback", ["", "h", "1", "-1h", "1.5h", "1w", "½h", "9" * 30 + "d", -HOUR, 3600])
    def test_a_lookback_that_is_none(self, lookback: Any) -> None:
        """Refused, with what there is."""
        with pytest.raises(UsageError, match="30m, 2h or 1d"):
            parse_lookback(lookback)

    def test_a_lookback_may_be_nothing(self, app: Database, folder: Path) -> None:
        """Then only rows at the very time of the newest one are known."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW, lookback="0s")
        add(app, row(2, NOW - MINUTE), row(3, NOW - 2 * MINUTE))
        report = go_on(app, folder, NOW + HOUR, lookback=timedelta(0))
        assert (report.exported_records, report.late_records) == (1, 1)

    def test_a_window_of_its_own_is_refused(self, folder: Path) -> None:
        """It goes on where it ended."""
        with pytest.raises(UsageError, match="leave since and until out"):
            fe.export_feedback("sqlite://", incremental=True, since="2025-01-01", key=KEY, output_dir=folder)

    def test_two_at_once(self, app: Database, folder: Path) -> None:
        """The second waits, or gives up; the chain is one chain."""
        add(app, row(1, NOW - MINUTE))
        with lock_folder(folder), pytest.raises(FolderLockedError, match="is in use"):
            go_on(app, folder, NOW, lock_timeout=0.05)
        assert go_on(app, folder, NOW).exported_records == 1

    def test_prune_does_not_break_it(self, app: Database, folder: Path) -> None:
        """It keeps what the next one has to know."""
        add(app, row(1, NOW - MINUTE))
        go_on(app, folder, NOW)
        fe.exports.prune(folder, keep_days=10, now=NOW + 50 * DAY, key=Key(KEY))
        assert visible(folder) == [f"{list_manifests(folder)[0].stem}.manifest.json"]
        add(app, row(2, NOW - MINUTE))
        assert go_on(app, folder, NOW + 50 * DAY).exported_records == 1

    def test_nobody_who_was_erased_comes_back(self, app: Database, folder: Path) -> None:
        """Nor stays in what it remembers."""
        add(app, row(1, NOW - MINUTE), row(2, NOW - MINUTE))
        go_on(app, folder, NOW)
        fe.privacy.erase(folder, user_ids=[1], database=app.url, keys=[Key(KEY)])
        (remembered,) = (folder / ".feedback_etl").glob("*.rows")
        assert remembered.read_text().count("\n") == 3
        add(app, row(3, NOW - MINUTE, user_id=1), row(4, NOW))
        report = go_on(app, folder, NOW + HOUR)
        assert (report.exported_records, report.excluded_records, pairs_in(folder)) == (1, 2, 2)


class Died(BaseException):
    """The process is gone: nothing that it does after this has an effect."""


@contextmanager
def dying_after(calls: int) -> Iterator[None]:
    """After so many calls that change files, every further one fails."""
    done = 0

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done > calls:
                raise Died
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "link", "unlink", "rename", "replace"):
            patch.setattr(os, name, mortal(getattr(os, name)))
        yield


@dataclass
class Model:
    """A chain as it should be."""

    options: dict[str, Any]
    number: int = 0
    known_since: datetime | None = None
    read: set[int] = field(default_factory=set)
    exported: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """By the stem of the export: analysis and time of each pair."""


CHAINS: list[dict[str, Any]] = [
    {"min_feedback_fields": 1},
    {"min_feedback_fields": 2, "format": "parquet", "lookback": "10m"},
]


class Exports(RuleBasedStateMachine):
    """Whatever is done in whatever order, the files of each chain hold every row that they should, once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self.now, self.rows, self.gone = NOW, list[dict[str, Any]](), set[int]()
        self.models = [Model(options) for options in CHAINS]

    def teardown(self) -> None:
        """Nothing is kept between examples."""
        self.engine.dispose()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        """An application without feedback."""
        create_schema(self.engine)
        fill(self.engine, records=[{"id": 1, "recommendation_id": "rec_1"}])

    @rule(
        ago=st.sampled_from([0, 0, 1, 5, 30, 59, 61, 600, 5000]),
        user=st.integers(1, 3),
        kind=st.sampled_from(["good", "good", "good", "few", "none", "bad"]),
    )
    def insert(self, ago: int, user: int, kind: str) -> None:
        """Feedback of now, or that arrives late."""
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
        """The same feedback again, with another id."""
        self._add(data.draw(st.sampled_from(self.rows)) | {"id": len(self.rows) + 1})

    def _add(self, values: dict[str, Any]) -> None:
        self.rows.append(values)
        fill(self.engine, feedbacks=[values])

    @rule(minutes=st.sampled_from([1, 10, 60, 1500, -1, -30, -300]))
    def pass_time(self, minutes: int) -> None:
        """The clock goes on, or is set back."""
        self.now += minutes * MINUTE

    @rule()
    def export_everything(self) -> None:
        """A full export, which is no part of a chain."""
        with suppress(ValidationError):
            self._export({}, days_back=-1)

    @rule(chain=st.integers(0, 1))
    def export_what_is_new(self, chain: int) -> None:
        """The next incremental export."""
        model = self.models[chain]
        if model.known_since is not None and model.known_since >= self.now:
            with pytest.raises(ExportFileError, match="backwards"):
                self._export(model.options, incremental=True)
            return
        new, pairs, rejected = self._expected(model)
        judged = [each for each in new if _ratings(each) >= model.options["min_feedback_fields"]]
        if judged and rejected == len(judged):
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
        """One that dies: it is a part of the chain if it has got its manifest."""
        model = self.models[chain]
        _, pairs, _ = self._expected(model)
        with dying_after(calls), suppress(Died, ValidationError, ExportFileError):
            self._export(model.options, incremental=True)
        if len(self._manifests(model)) > model.number:
            self._committed(model, pairs)

    @rule(user=st.integers(1, 3))
    def erase(self, user: int) -> None:
        """Somebody asks to be forgotten."""
        self.gone.add(user)
        fe.privacy.erase(self.folder, user_ids=[user], database=self.engine, keys=[Key(KEY)])
        theirs = {_pair(each) for each in self.rows if each["user_id"] == user}
        for model in self.models:
            model.exported = {stem: pairs - theirs for stem, pairs in model.exported.items()}

    @rule(days=st.integers(0, 2), last=st.integers(0, 2))
    def prune(self, days: int, last: int) -> None:
        """Old files go; nothing does where the clock has gone back."""
        with suppress(ExportFileError):
            done = fe.exports.prune(self.folder, keep_days=days, keep_last=last, now=self.now, key=Key(KEY))
            for model in self.models:
                for manifest in done.exports:
                    model.exported.pop(manifest.stem, None)

    def _export(self, options: dict[str, Any], **more: Any) -> ExportReport:
        usual: dict[str, Any] = {"days_back": 30, "now": self.now, "key": KEY, "output_dir": self.folder}
        return fe.export_feedback(self.engine, **usual | options | more)

    def _expected(self, model: Model) -> tuple[list[dict[str, Any]], set[tuple[str, str]], int]:
        """The rows that the next export reads, the pairs that it has, and how many rows it rejects."""
        start = model.known_since or self.now - 30 * DAY
        new = [
            each
            for each in self.rows
            if start <= each["created_at"] < self.now
            and each["user_id"] not in self.gone
            and each["id"] not in model.read
        ]
        enough = [each for each in new if _ratings(each) >= model.options["min_feedback_fields"]]
        valid = [each for each in enough if each["helpful_rating"] != 9]
        before = {_pair(each) for each in self.rows if each["id"] in model.read and self._is_valid(each, model)}
        return new, {_pair(each) for each in valid} - before, len(enough) - len(valid)

    def _is_valid(self, each: dict[str, Any], model: Model) -> bool:
        return bool(each["helpful_rating"] != 9 and _ratings(each) >= model.options["min_feedback_fields"])

    def _committed(self, model: Model, pairs: set[tuple[str, str]]) -> None:
        start = model.known_since or self.now - 30 * DAY
        there = [each for each in self.rows if start <= each["created_at"] < self.now]
        model.read |= {each["id"] for each in there if each["user_id"] not in self.gone}
        newest = max(each["created_at"] for each in there)
        model.known_since = max(start, newest - parse_lookback(model.options.get("lookback", "1h")))
        model.number += 1
        model.exported[self._manifests(model)[-1].stem] = pairs

    def _manifests(self, model: Model) -> list[Manifest]:
        least = model.options["min_feedback_fields"]
        chain = [each for each in list_manifests(self.folder) if each.chain]
        ours = [each for each in chain if each.settings["min_feedback_fields"] == least]
        return sorted(ours, key=lambda each: int(each.chain["number"]))

    @invariant()
    def every_file_is_whole_and_holds_what_it_should(self) -> None:
        """Nothing is lost, nothing is there twice, nobody comes back."""
        for model in self.models:
            found = Counter[tuple[str, str]]()
            for manifest in self._manifests(model):
                file = manifest.file("pairs")
                if file and not manifest.pruned_at:
                    rows = rows_of(self.folder / file.path)
                    assert rows.height == file.rows
                    times = rows["feedback_timestamp"].str.slice(0, 19).str.replace(" ", "T")
                    found.update(zip(rows["analysis_hash"], times, strict=True))
            assert found == Counter(pair for pairs in model.exported.values() for pair in pairs)

    @invariant()
    def the_log_is_as_it_was_written(self) -> None:
        """A torn line, where there is one, is told of by the next record."""
        log = AuditLog(self.folder)
        if log.path.exists():
            faults = verify(
                log, [Key(KEY)], {each.stem: each.audit_head for each in list_manifests(self.folder)}
            ).problems
            assert [fault for fault in faults if "the next record will say so" not in fault] == []


def _ratings(values: dict[str, Any]) -> int:
    names = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")
    return sum(values[name] is not None for name in names)


def _pair(values: dict[str, Any]) -> tuple[str, str]:
    """Analysis, as its pseudonym, and time: what is one pair."""
    digest = hmac.new(KEY.encode(), f"analysis_id:{values['analysis_id']}".encode(), hashlib.sha256).hexdigest()
    return digest[:16], values["created_at"].isoformat(timespec="seconds")


DEAD_LEAVE_FILES_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.slow
@DEAD_LEAVE_FILES_OPEN
def test_every_row_is_exported_once_whatever_is_done() -> None:
    """A quick set of what can be done in some order."""
    run_state_machine_as_test(Exports, settings=settings(max_examples=10, stateful_step_count=25, deadline=None))


@DEAD_LEAVE_FILES_OPEN
@pytest.mark.torture
def test_every_row_is_exported_once_whatever_is_done_for_long() -> None:
    """Two hundred orders of fifty things."""
    run_state_machine_as_test(Exports, settings=settings(max_examples=200, stateful_step_count=50, deadline=None))
