"""The nightly job on a real scheduler: at its hour, one at a time, late rather than never, and loud when it fails."""

import logging
import queue
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from applications import configure, exported_rows, exports, give_feedback, kept_waiting
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from databases import Database, opened
from processes import wait_for
from pseudonym_keys import KEY

from feedback_etl.errors import SourceError
from feedback_etl.integrations.apscheduler import JOB_ID, add_daily_export

HEARD = EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES


@pytest.fixture
def scheduler() -> Iterator[BackgroundScheduler]:
    """A running scheduler."""
    scheduler = BackgroundScheduler(timezone="America/St_Johns")
    scheduler.start()
    yield scheduler
    scheduler.shutdown()


@pytest.fixture
def heard(scheduler: BackgroundScheduler) -> "queue.Queue[Any]":
    """The events that the scheduler sends to its listeners."""
    events: queue.Queue[Any] = queue.Queue()
    scheduler.add_listener(events.put, HEARD)
    return events


@pytest.fixture
def application(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Two good rows."""
    configure(sqlite_database, monkeypatch)
    give_feedback(sqlite_database, 1, 2)
    return sqlite_database


def due(job: Job, *, days_ago: int = 0) -> None:
    """Let a job believe that its next run is (or was) due."""
    job.modify(next_run_time=datetime.now(UTC) - timedelta(days=days_ago))


class TestRuns:
    """What happens at its hour."""

    def test_each_run_takes_what_is_new(
        self, application: Database, scheduler: BackgroundScheduler, heard: "queue.Queue[Any]"
    ) -> None:
        """Listeners get the report."""
        job = add_daily_export(scheduler)
        due(job)
        assert heard.get(timeout=60).retval.exported_records == 2
        give_feedback(application, 3)
        due(job)
        assert heard.get(timeout=60).retval.exported_records == 1
        assert [export.mode for export in exports()] == ["incremental", "incremental"]

    @pytest.mark.usefixtures("application")
    def test_runs_that_were_missed_are_made_up_for_by_one(
        self, scheduler: BackgroundScheduler, heard: "queue.Queue[Any]"
    ) -> None:
        """However late it is."""
        job = add_daily_export(scheduler, days_back=90)
        due(job, days_ago=5)
        event = heard.get(timeout=60)
        assert (event.code, event.retval.exported_records) == (EVENT_JOB_EXECUTED, 2)
        assert job.next_run_time > datetime.now(UTC)
        assert heard.empty()
        assert len(exports()) == 1

    @pytest.mark.usefixtures("application")
    def test_a_run_may_be_too_late(self, scheduler: BackgroundScheduler, heard: "queue.Queue[Any]") -> None:
        """On request."""
        due(add_daily_export(scheduler, misfire_grace_time=60), days_ago=1)
        assert heard.get(timeout=60).code == EVENT_JOB_MISSED
        assert exports() == []

    def test_there_is_one_at_a_time(
        self,
        postgres_database: str,
        monkeypatch: pytest.MonkeyPatch,
        scheduler: BackgroundScheduler,
        heard: "queue.Queue[Any]",
    ) -> None:
        """A run that is due while another one goes on is left out; the next one takes all."""
        with opened(postgres_database) as database:
            configure(database, monkeypatch)
            give_feedback(database, 1, 2)
            job = add_daily_export(scheduler)
            with kept_waiting(database) as is_waiting:
                due(job)
                wait_for(is_waiting)
                due(job)
                assert heard.get(timeout=60).code == EVENT_JOB_MAX_INSTANCES
            assert heard.get(timeout=60).retval.exported_records == 2
        assert exported_rows() == 2

    @pytest.mark.usefixtures("application")
    def test_failure_is_reported_and_the_next_run_takes_place(
        self,
        scheduler: BackgroundScheduler,
        heard: "queue.Queue[Any]",
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """To listeners and to the log, without the password."""
        monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", "postgresql://someone:p4ssword@127.0.0.1:9/application")
        job = add_daily_export(scheduler)
        with caplog.at_level(logging.ERROR):
            due(job)
            event = heard.get(timeout=60)
        assert isinstance(event.exception, SourceError)
        assert "raised an exception" in caplog.text
        assert "p4ssword" not in caplog.text
        assert job.next_run_time > datetime.now(UTC)

    @pytest.mark.usefixtures("application")
    def test_a_window_of_days_instead(self, scheduler: BackgroundScheduler, heard: "queue.Queue[Any]") -> None:
        """With any option of an export."""
        due(add_daily_export(scheduler, incremental=False, days_back=7, format="parquet"))
        report = heard.get(timeout=60).retval
        assert (report.mode, Path(report.export_filename).suffix) == ("full", ".parquet")


class TestSchedule:
    """When it runs, and that it is there once."""

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
    def test_it_runs_at_its_hour_in_its_zone(self, scheduler: BackgroundScheduler, zone: str) -> None:
        """In any time zone of the scheduler and the machine."""
        local = add_daily_export(scheduler, hour=5, minute=15, timezone=zone).next_run_time.astimezone(ZoneInfo(zone))
        assert (local.hour, local.minute) == (5, 15)
        assert timedelta(0) < local - datetime.now(UTC) <= timedelta(days=1, hours=1)

    def test_in_a_persistent_store_it_is_there_once_and_holds_no_secret(self, application: Database) -> None:
        """A program that starts again replaces its job; the store knows neither the database nor the key."""
        for _ in range(2):
            scheduler = BackgroundScheduler(jobstores={"default": SQLAlchemyJobStore("sqlite:///jobs.db")})
            scheduler.start(paused=True)
            add_daily_export(scheduler)
            assert [job.id for job in scheduler.get_jobs()] == [JOB_ID]
            scheduler.shutdown()
        with closing(sqlite3.connect("jobs.db")) as store:
            (stored,) = store.execute("SELECT job_state FROM apscheduler_jobs")
        assert b"run_export" in stored[0]
        assert not [secret for secret in (application.url, KEY) if secret.encode() in stored[0]]
