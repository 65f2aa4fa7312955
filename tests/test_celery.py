"""The Celery tasks on a real worker and a real Redis: JSON, done exactly once, and retried where that helps."""

import json
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from applications import FOLDER, configure, events, exported_rows, exports, give_feedback, kept_waiting
from brokers import Worker, running_redis, running_worker
from celery import Celery
from celery.result import AsyncResult
from databases import Database, opened
from kombu import pools
from processes import PATIENCE_SECONDS, wait_for

from feedback_etl.errors import UsageError
from feedback_etl.integrations.celery import BULK, DAILY, register
from feedback_etl.integrations.run import TRANSIENT

EXAMPLE = Path(__file__).parent.parent / "examples" / "celery_app.py"

USED = """
from feedback_etl.transform import fork_guard
fork_guard._ANSWER_SECONDS = 2.0
pl.DataFrame({'a': range(100_000)}).lazy().group_by('a').len().collect()
"""
FORKED = """
import polars as pl
{use}
from celery_app import app
"""


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """Of a Redis of this module's own."""
    with running_redis() as url:
        yield url


@pytest.fixture
def producer(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """What sends tasks; the example is in the working directory for a worker, and its queue is empty."""
    shutil.copy(EXAMPLE, "celery_app.py")
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Celery("producer", broker=redis_url, backend=redis_url, set_as_current=False) as app:
        app.control.purge()
        yield app
        app.backend.result_consumer.stop()  # else its connections to Redis stay open
        app.backend.client.connection_pool.disconnect()
        pools.reset()  # type: ignore[no-untyped-call]


@pytest.fixture
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Two good rows, configured in the environment that workers inherit."""
    configure(sqlite_database, monkeypatch)
    give_feedback(sqlite_database, 1, 2)
    return sqlite_database


@pytest.fixture
def worker(application: Database, producer: Celery) -> Iterator[Worker]:
    """A worker of the example, beside that application."""
    with running_worker("celery_app") as worker:
        yield worker


def send(producer: Celery, name: str, *arguments: Any, **options: Any) -> AsyncResult:
    return producer.send_task(name, args=arguments, **options)


def result_of(task: AsyncResult) -> Any:
    """What a task gives, or the error with which it failed."""
    return task.get(timeout=PATIENCE_SECONDS, propagate=False)


@pytest.mark.usefixtures("application")
class TestTasks:
    """The tasks themselves, without a queue."""

    def test_the_daily_one_takes_what_is_new(self) -> None:
        """Once; an export without new rows is not an error."""
        daily = register(Celery("application", set_as_current=False)).daily
        first, second = (daily.apply().get() for _ in range(2))
        assert first == {"exported": 2, "deduped": 0, "filename": f"{exports()[0].stem}.csv"}
        assert second == {"exported": 0, "deduped": 0, "filename": None}

    def test_the_bulk_one_is_done_once_for_each_id(self, application: Database) -> None:
        """Delivered again it gives the same, though there is more feedback by now."""
        bulk = register(Celery("application", set_as_current=False)).bulk
        first = bulk.apply(task_id="one").get()
        give_feedback(application, 3)
        assert bulk.apply(task_id="one").get() == first
        assert (len(exports()), exported_rows()) == (1, 2)
        assert bulk.apply(task_id="two").get()["exported"] == 3


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
class TestResults:
    """What the tasks give."""

    def test_the_daily_one_takes_what_is_new(self, application: Database, producer: Celery) -> None:
        """Once; an export without new rows is not an error."""
        first = result_of(send(producer, DAILY))
        assert first == {"exported": 2, "deduped": 0, "filename": f"{exports()[0].stem}.csv"}
        assert result_of(send(producer, DAILY)) == {"exported": 0, "deduped": 0, "filename": None}
        give_feedback(application, 3)
        assert result_of(send(producer, DAILY))["exported"] == 1
        assert [export.mode for export in exports()] == ["incremental", "incremental"]

    def test_the_bulk_one_takes_everything(self, producer: Celery) -> None:
        """Or some days; each task makes an export of its own."""
        everything, days = (result_of(send(producer, BULK, *days)) for days in ((), (7,)))
        assert (everything["exported"], days["exported"]) == (2, 2)
        assert everything["filename"] != days["filename"]
        assert [export.window[0] is None for export in exports()] == [True, False]


@pytest.mark.slow
class TestOnce:
    """A task that is delivered twice, or whose worker is killed, is done once."""

    @pytest.mark.usefixtures("worker")
    def test_a_second_delivery_gives_the_same_export(self, application: Database, producer: Celery) -> None:
        """Of one task, by its id, though there is more feedback by now."""
        task_id = str(uuid.uuid4())
        first = result_of(send(producer, BULK, task_id=task_id))
        give_feedback(application, 3)
        producer.backend.delete(producer.backend.get_key_for_task(task_id))
        assert result_of(send(producer, BULK, task_id=task_id)) == first
        assert (len(exports()), exported_rows()) == (1, 2)
        assert result_of(send(producer, BULK))["exported"] == 3

    @pytest.mark.parametrize("name", [DAILY, BULK])
    def test_a_child_killed_in_mid_task_leaves_one_export(
        self, postgres_database: str, producer: Celery, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """The task comes again, to another child; nothing is left of the dead one."""
        with opened(postgres_database) as database:
            configure(database, monkeypatch)
            give_feedback(database, 1, 2)
            with running_worker("celery_app") as worker:
                with kept_waiting(database) as is_waiting:
                    task = send(producer, name)
                    wait_for(is_waiting)
                    killed = worker.child
                    killed.send_signal(signal.SIGKILL)
                    wait_for(lambda: not killed.is_running())
                    wait_for(lambda: worker.log.count("received") == 2)
                result = result_of(task)
                assert worker.child.pid != killed.pid
            (export,) = exports()
            assert result == {"exported": 2, "deduped": 0, "filename": f"{export.stem}.csv"}
            assert exported_rows() == 2
            assert events().count("committed") == 1
            assert not list(FOLDER.rglob(".*.tmp*"))


class TestErrors:
    """What helps to try again, and what does not."""

    @pytest.mark.slow
    @pytest.mark.usefixtures("worker")
    def test_wrong_usage_is_final(self, producer: Celery) -> None:
        """A task with a forbidden argument fails at once."""
        for task in [send(producer, BULK, days) for days in (0, "7; DROP TABLE users", None, 1.5)]:
            assert isinstance(result_of(task), UsageError)
            assert task.state == "FAILURE"
        assert not FOLDER.exists()

    @pytest.mark.slow
    def test_rows_that_break_the_rules_are_final(
        self, sqlite_database: Database, producer: Celery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They would break them again."""
        configure(sqlite_database, monkeypatch)
        give_feedback(sqlite_database, 1, helpful_rating=9)
        with running_worker("celery_app") as worker:
            task = send(producer, DAILY)
            assert type(result_of(task)).__name__ == "ValidationError"
            assert (task.state, "Retry in " in worker.log) == ("FAILURE", False)

    @pytest.mark.slow
    @pytest.mark.usefixtures("application")
    def test_a_database_that_is_away_is_tried_again(self, producer: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        """In half a minute; the log names no password."""
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "postgresql://someone:p4ssword@127.0.0.1:9/application")
        with running_worker("celery_app") as worker:
            task = send(producer, DAILY)
            wait_for(lambda: task.state == "RETRY")
            assert "Retry in " in worker.log
            assert "p4ssword" not in worker.log

    def test_a_task_knows_what_is_worth_another_try(self) -> None:
        """After growing waits, for an hour or so."""
        for task in register(Celery("application", set_as_current=False)):
            assert task.autoretry_for == TRANSIENT
            assert (task.acks_late, task.reject_on_worker_lost) == (True, True)
            waits = [min(task.retry_backoff * 2**number, task.retry_backoff_max) for number in range(task.max_retries)]
            assert 3_600 <= sum(waits) <= 7_200


class TestMessages:
    """What goes through the queue."""

    @pytest.mark.usefixtures("application")
    def test_they_are_json_and_hold_no_secret(self, producer: Celery) -> None:
        """Neither the database nor the key, nor where files go."""
        with producer.connection_for_read() as connection:
            queue = connection.SimpleQueue("celery")
            register(producer, hour=None).bulk.delay(7)
            message = queue.get(timeout=10)
            message.ack()
        assert (message.content_type, json.loads(message.body)[0]) == ("application/json", [7])
        assert not [secret for secret in ("sqlite", "kkkk", "feedback_training") if secret in str(vars(message))]

    @pytest.mark.slow
    @pytest.mark.usefixtures("worker")
    def test_a_pickle_is_not_opened(self, producer: Celery, worker: Worker) -> None:
        """As Celery's default is."""
        send(producer, BULK, serializer="pickle")
        wait_for(lambda: "ContentDisallowed" in worker.log or "Refusing to deserialize" in worker.log)
        assert not FOLDER.exists()


@pytest.mark.slow
class TestForks:
    """Children are forked, and Polars' threads do not survive that."""

    @pytest.mark.usefixtures("application")
    @pytest.mark.parametrize(
        ("use", "is_fine"),
        [("", True), (USED, False)],
        ids=["imported", "used"],
    )
    def test_a_worker_that_has_used_polars_says_so_instead_of_hanging(
        self, producer: Celery, use: str, is_fine: bool
    ) -> None:
        """Importing it is fine."""
        Path("forked_app.py").write_text(FORKED.format(use=use))
        with running_worker("forked_app"):
            result = result_of(send(producer, DAILY))
        if is_fine:
            assert result["exported"] == 2
        else:
            assert isinstance(result, UsageError)
            assert "Do not run Polars before the fork" in str(result)


class TestRegister:
    """What an application chooses."""

    def test_beat_knows_the_daily_task(self) -> None:
        """At the configured hour, in UTC; or not at all."""
        app, silent = (Celery("application", set_as_current=False) for _ in range(2))
        register(app, hour=3, minute=30)
        register(silent, hour=None)
        entry = app.conf.beat_schedule[DAILY]
        assert (entry["task"], entry["schedule"].hour, entry["schedule"].minute) == (DAILY, {3}, {30})
        assert (app.conf.timezone or "UTC", silent.conf.beat_schedule) == ("UTC", {})

    @pytest.mark.parametrize("option", ["incremental", "idempotency_key"])
    def test_what_the_tasks_decide_cannot_be_chosen(self, option: str) -> None:
        """They would not be done once any more."""
        options: dict[str, Any] = {option: "x"}
        with pytest.raises(UsageError, match="leave these options out"):
            register(Celery("application", set_as_current=False), **options)
