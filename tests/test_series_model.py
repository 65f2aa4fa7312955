"""In any order of operations, the training set is what a model in plain Python says; see `series_model`."""

import errno
import json
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from databases import Database, create_schema, fill
from folders import NOW
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from processes import ProcessDied, die_after, python
from pseudonym_keys import KEY
from series_model import Increment, Row, Series, TrainingModel
from sqlalchemy.pool import StaticPool

import feedback_etl as fe
from feedback_etl.clock import parse_duration
from feedback_etl.errors import ExportFileError, FeedbackError, UsageError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport
from feedback_etl.storage.object_store import ObjectStorage
from feedback_etl.training.dataset import scan_training

MINUTE = timedelta(minutes=1)
USERS = (1, 2, 3)
WRITING_FUNCTIONS = [(os, name) for name in ("fsync", "link", "unlink", "rename", "replace")]
STORE_METHODS = [(ObjectStorage, name) for name in ("put_new", "replace", "delete")]
SETTINGS: list[dict[str, Any]] = [
    {"min_feedback_fields": 1},
    {"min_feedback_fields": 2, "format": "parquet", "lookback": "10m"},
    {"cursor": "updated_at", "lookback": "30m"},
]
"""Settings of series in one folder, the last of which follows changes; every row has two ratings."""

NUMBERS = (0, 0, 1, 2, 2, 2)
"""Numbers of the settings of incremental exports, the more interesting ones more often."""


class SeriesMachine(RuleBasedStateMachine):
    """Operations on an application, on the folder of its exports, and on the clock."""

    engine: ClassVar[sa.Engine]
    writing: ClassVar[Sequence[tuple[Any, str]]] = WRITING_FUNCTIONS
    """What changes files."""

    def __init__(self) -> None:
        super().__init__()
        self.location = self.new_location()
        self.now, self.number = NOW, 0
        self.model = TrainingModel()
        self.series = [
            Series(parse_duration(options.get("lookback", "1h")), "cursor" in options) for options in SETTINGS
        ]

    def new_location(self) -> str:
        """Return a location without exports."""
        return tempfile.mkdtemp()

    def teardown(self) -> None:
        """Delete what the example created."""
        if Path(self.location).is_dir():
            shutil.rmtree(self.location)

    @initialize()
    def begin(self) -> None:
        """Create an application without feedback, whose users all consent."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM recommendation_feedbacks")
            connection.exec_driver_sql("UPDATE users SET training_data_opt_in = true")

    @rule(
        ago=st.sampled_from([0, 0, 0, 5, 9, 11, 30, 59, 61, 600, 5000]),
        user=st.sampled_from(USERS),
        is_valid=st.sampled_from([True, True, True, False]),
        changed_ago=st.sampled_from([None, None, 0, 20, 9000]),
    )
    def insert(self, ago: int, user: int, is_valid: bool, changed_ago: int | None) -> None:
        """Insert feedback of now, or late feedback within and beyond the lookback; some with a time of change."""
        self.number += 1
        row = Row(self.number, user, self.number, self.now - ago * MINUTE - MINUTE / 2, is_valid=is_valid)
        row.updated_at = None if changed_ago is None else self.now - changed_ago * MINUTE
        self._insert(row)

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def insert_duplicate(self, data: st.DataObject) -> None:
        """Insert the same feedback again, with another id and another rating."""
        original = self._draw(data)
        self.number += 1
        self._insert(Row(self.number, original.user, original.analysis, original.created_at, version=100))

    def _insert(self, row: Row) -> None:
        self.model.rows[row.id] = row
        fill(self.engine, feedbacks=[row.values])

    def _draw(self, data: st.DataObject) -> Row:
        return self.model.rows[data.draw(st.sampled_from(sorted(self.model.rows)))]

    @precondition(lambda self: self.model.rows)
    @rule(
        data=st.data(),
        is_valid=st.sampled_from([True, True, False]),
        ago=st.sampled_from([0, 0, 0, 0, 5, 25, 40, 3000, -900, "unset", "kept"]),
    )
    def edit(self, data: st.DataObject, is_valid: bool, ago: int | str) -> None:
        """Change a rating, as applications do: the time of the change can be late, ahead of the clock, or missing."""
        row = self._draw(data)
        row.version, row.is_valid = (row.version + 1) % 100, is_valid
        if isinstance(ago, int):
            row.updated_at = self.now - ago * MINUTE
        elif ago == "unset":
            row.updated_at = None
        time = None if row.updated_at is None else row.updated_at.isoformat(sep=" ", timespec="microseconds")
        self._execute(
            "UPDATE recommendation_feedbacks SET routine_completion_pct = :routine_completion_pct, "
            "helpful_rating = :helpful_rating, updated_at = :updated_at WHERE id = :id",
            **row.values | {"updated_at": time},
        )

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a row."""
        row = self._draw(data)
        del self.model.rows[row.id]
        self._execute("DELETE FROM recommendation_feedbacks WHERE id = :id", id=row.id)

    @rule(user=st.sampled_from(USERS))
    def change_consent(self, user: int) -> None:
        """Withdraw consent, or give it again."""
        self.model.opted_out ^= {user}
        opt_in = user not in self.model.opted_out
        self._execute("UPDATE users SET training_data_opt_in = :opt_in WHERE id = :id", opt_in=opt_in, id=user)

    def _execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                sa.text(statement), {name: value for name, value in values.items() if f":{name}" in statement}
            )

    @rule(minutes=st.sampled_from([1, 10, 60, 1500, -1, -30, -300]))
    def pass_time(self, minutes: int) -> None:
        """Advance the clock, or set it back."""
        self.now += minutes * MINUTE

    @rule()
    def export_full(self) -> None:
        """Run a full export, which belongs to no series."""
        increment = self.model.plan_full(self.now)
        self._run(increment, None, days_back=-1)

    @rule(number=st.sampled_from(NUMBERS))
    def export_next(self, number: int) -> None:
        """Run the next incremental export with one of the settings."""
        series = self.series[number]
        increment = self.model.plan_increment(series, self.now)
        if increment is None:
            with pytest.raises(ExportFileError, match="backwards"):
                self._export_next(number)
        else:
            self._run(increment, series, **SETTINGS[number], incremental=True, new_series=True)
            series.is_tried = True

    @precondition(lambda self: any(series.watermark for series in self.series))
    @rule(data=st.data())
    def backfill(self, data: st.DataObject) -> None:
        """Export the rows below the watermark of a series that none of its exports contains."""
        number = data.draw(st.sampled_from([n for n, series in enumerate(self.series) if series.watermark]))
        increment = self.model.plan_backfill(self.series[number])
        options = SETTINGS[number] | {"incremental": True, "new_series": True, "backfill": True}
        self._run(increment, self.series[number], **options)

    @precondition(lambda self: any(each.watermark for each in self.series) and self.untried)
    @rule(data=st.data())
    def change_settings(self, data: st.DataObject) -> None:
        """Run an export that would begin a series beside another one, which requires `new_series`."""
        number = data.draw(st.sampled_from(self.untried))
        with pytest.raises(UsageError, match=r"`(min_feedback_fields|cursor)` is .*, the series has .* `new_series`"):
            self._export(**SETTINGS[number], incremental=True)

    @property
    def untried(self) -> list[int]:
        """The numbers of the series that have not begun."""
        return [number for number, series in enumerate(self.series) if not series.is_tried]

    def _export_next(self, number: int) -> ExportReport:
        return self._export(**SETTINGS[number], incremental=True, new_series=True)

    def _run(self, increment: Increment, series: Series | None, **options: Any) -> None:
        if increment.is_refused:
            with pytest.raises(ValidationError):
                self._export(**options)
            return
        report = self._export(**options)
        assert (report.total_feedback_records, report.exported_records, report.errors, report.changed_records) == (
            len(increment.rows),
            len(increment.pairs),
            increment.rejected,
            increment.changed,
        )
        if increment.is_published:
            self.model.publish(increment, self.now, series)

    @rule(
        number=st.sampled_from(NUMBERS),
        how=st.sampled_from(["death", "full disk", "lost connection"]),
        calls=st.integers(0, 40),
    )
    def crash(self, number: int, how: str, calls: int) -> None:
        """Run an incremental export that fails at some call: it counts if its manifest exists."""
        series, before = self.series[number], self._count_exports()
        increment = self.model.plan_increment(series, self.now)
        series.is_tried = True
        with self._failing(how, calls), suppress(ProcessDied, FeedbackError):
            self._export_next(number)
        if self._count_exports() > before:
            assert increment is not None
            assert increment.is_published
            self.model.publish(increment, self.now, series)

    def _failing(self, how: str, calls: int) -> Any:
        if how == "lost connection":
            return fail_statement(self.engine, calls % 8)
        return die_after(calls, self.writing) if how == "death" else fail_once(calls, self.writing)

    def _count_exports(self) -> int:
        return len(fe.exports.list_exports(self.location).exports)

    @rule(user=st.sampled_from(USERS))
    def erase(self, user: int) -> None:
        """Erase a user."""
        fe.privacy.erase(self.location, user_ids=[user], database=self.engine, keys=[Key(KEY)])
        self.model.erase_user(user)

    @rule(user=st.sampled_from(USERS), how=st.sampled_from(["death", "full disk"]), calls=st.integers(0, 40))
    def crash_erasing(self, user: int, how: str, calls: int) -> None:
        """Erase a user, and fail at some call; another erasure completes it."""
        try:
            with self._failing(how, calls):
                self.erase(user)
        except (ProcessDied, FeedbackError):
            self.erase(user)

    @rule()
    def sweep(self) -> None:
        """Erase everyone whom the database does not have, or without consent."""
        options: dict[str, Any] = {"not_in_database": True, "database": self.engine, "keys": [Key(KEY)]}
        if not self.model.remaining:
            with pytest.raises(UsageError, match="everyone would be erased"):
                fe.privacy.erase(self.location, **options)
            return
        fe.privacy.erase(self.location, **options)
        self.model.sweep(self.series)

    def _export(self, **options: Any) -> ExportReport:
        usual: dict[str, Any] = {"days_back": 365, "now": self.now, "key": KEY, "max_rejected": 1.0}
        with self.engine.connect() as connection:
            return fe.export_feedback(connection, **usual | {"output_dir": self.location} | options)

    @invariant()
    def training_set_is_that_of_the_model(self) -> None:
        """Every pair once, in its newest version."""
        if not self.model.exports:
            with pytest.raises(ExportFileError, match="contains no export"):
                scan_training(self.location)
            return
        columns = ("analysis_hash", "feedback_timestamp", "routine_completion_pct")
        pairs = scan_training(self.location).select(columns).collect()
        times = pairs["feedback_timestamp"].dt.replace_time_zone(None)
        found = sorted(zip(pairs["analysis_hash"], times, pairs["routine_completion_pct"], strict=True))
        assert found == self.model.training_set()


class KilledSeriesMachine(SeriesMachine):
    """The same where the failing export is another process, which is killed."""

    @rule(number=st.sampled_from(NUMBERS), calls=st.integers(0, 40))
    def crash(self, number: int, calls: int) -> None:
        """Kill an incremental export at some call: it counts if its manifest exists."""
        series, before = self.series[number], self._count_exports()
        increment = self.model.plan_increment(series, self.now)
        options = SETTINGS[number] | {"days_back": 365, "key": KEY, "max_rejected": 1.0, "output_dir": self.location}
        series.is_tried = True
        ended = python(KILLED, calls, self.engine.url, self.now.isoformat(), json.dumps(options))
        assert ended.returncode in (0, -signal.SIGKILL, 1), ended.stderr
        if self._count_exports() > before:
            assert increment is not None
            self.model.publish(increment, self.now, series)


KILLED = """
import json, os, signal, sys
from datetime import datetime
import feedback_etl as fe

calls, url, now, options = int(sys.argv[1]), *sys.argv[2:]

def limit(function):
    def call(*arguments, **options):
        global calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for name in ("fsync", "link", "unlink", "rename", "replace"):
    setattr(os, name, limit(getattr(os, name)))
try:
    fe.export_feedback(url, now=datetime.fromisoformat(now), incremental=True, new_series=True, **json.loads(options))
except fe.errors.FeedbackError:
    sys.exit(1)
"""
"""An export that is killed at a call that changes a file, after so many of them."""


class StoredSeriesMachine(SeriesMachine):
    """The same in an object store."""

    bucket: ClassVar[str]
    writing = STORE_METHODS

    def new_location(self) -> str:
        """Return a prefix without exports."""
        return f"{self.bucket}-{uuid.uuid4().hex}"

    @initialize()
    def begin(self) -> None:
        """Create an application, and a prefix with an audit log: there is nothing to erase from before that."""
        super().begin()
        self._export(days_back=-1)


@contextmanager
def fail_once(calls: int, functions: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Fail the nth writing call; later ones succeed, as after a disk was full."""
    attempts = 0

    def limit(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == calls + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in functions:
            patch.setattr(owner, name, limit(getattr(owner, name)))
        yield


@contextmanager
def fail_statement(engine: sa.Engine, statements: int) -> Iterator[None]:
    """Lose the connection at the nth statement."""
    attempts = 0

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts > statements:
            raise sa.exc.OperationalError(statement, {}, Exception("server closed the connection"))

    sa.event.listen(engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)


def add_people(engine: sa.Engine) -> None:
    """Create the tables, a recommendation, and users who consent."""
    create_schema(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN DEFAULT true")
    fill(engine, records=[{"id": 1, "recommendation_id": "rec_1"}], users=[{"id": user} for user in USERS])


@pytest.fixture
def memory_engine() -> Iterator[sa.Engine]:
    """An application in a SQLite database in memory."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    add_people(engine)
    yield engine
    engine.dispose()


def run_machine(machine: type[SeriesMachine], examples: int, steps: int, **attributes: Any) -> None:
    """Run a machine whose class gets these attributes."""
    run_state_machine_as_test(
        type(machine.__name__, (machine,), attributes),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            print_blob=True,
        ),
    )


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_training_set_is_that_of_the_model(memory_engine: sa.Engine) -> None:
    """Three orders of fifteen operations; the slow tier takes 12 of 40, the torture tier 200 of 50."""
    run_machine(SeriesMachine, 3, 15, engine=memory_engine)


ORDERS = [pytest.param((12, 40), marks=pytest.mark.slow), pytest.param((200, 50), marks=pytest.mark.torture)]
FEW_ORDERS = [pytest.param((3, 25), marks=pytest.mark.slow), pytest.param((40, 40), marks=pytest.mark.torture)]
"""Of operations that take longer, in processes or by requests of a server."""


@pytest.mark.parametrize("size", ORDERS)
def test_training_set_is_that_of_the_model_in_many_orders(memory_engine: sa.Engine, size: tuple[int, int]) -> None:
    """Many orders of many operations."""
    run_machine(SeriesMachine, *size, engine=memory_engine)


@pytest.mark.parametrize("size", [pytest.param((8, 30), marks=pytest.mark.slow), *ORDERS[1:]])
@pytest.mark.parametrize("database", ["postgresql", "mysql"], indirect=True)
def test_training_set_is_that_of_the_model_on_servers(database: Database, size: tuple[int, int]) -> None:
    """On PostgreSQL and MariaDB."""
    add_people(database.engine)
    run_machine(SeriesMachine, *size, engine=database.engine)


@pytest.mark.parametrize("size", FEW_ORDERS)
def test_training_set_is_that_of_the_model_after_kills(sqlite_database: Database, size: tuple[int, int]) -> None:
    """Exports are killed by a signal, in a process of their own."""
    add_people(sqlite_database.engine)
    run_machine(KilledSeriesMachine, *size, engine=sqlite_database.engine)


@pytest.mark.parametrize("size", FEW_ORDERS)
@pytest.mark.served_store
def test_training_set_is_that_of_the_model_in_an_object_store(
    memory_engine: sa.Engine, bucket_url: str, size: tuple[int, int]
) -> None:
    """Exports are folders of parts."""
    run_machine(StoredSeriesMachine, *size, engine=memory_engine, bucket=bucket_url)
