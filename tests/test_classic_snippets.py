"""The classic documentation, example by example: what an application does with `FeedbackProcessor` still works.

Each test is what the documentation shows, in our own words, on SQLite and on PostgreSQL; only the import is another.
"""

import asyncio
import csv
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pytest
import sqlalchemy as sa
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from brokers import running_redis, running_worker
from celery import Celery
from databases import Database, opened
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from kombu import pools
from processes import PATIENCE_SECONDS, environment, wait_for
from pseudonym_keys import KEY
from sqlalchemy.orm import Session, sessionmaker

from feedback_etl.errors import FeedbackError
from feedback_etl.processor import FeedbackProcessingStats, FeedbackProcessor, FeedbackTrainingPair

OUTPUT = "ml/feedback_training"
AGES = {1: 17, 2: 18, 3: 30, 4: 64, 5: None}
CELERY_APP = """
import os
from celery import Celery
from feedback_etl.processor import FeedbackProcessor
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

app = Celery("classic", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
SessionLocal = sessionmaker(create_engine(os.environ["FEEDBACK_ETL_DATABASE_URL"]))

@app.task(name="export_feedback")
def export_feedback(days_back=1):
    db = SessionLocal()
    try:
        stats = FeedbackProcessor(db_session=db).process_and_export(days_back=days_back)
        return {"exported": stats.exported_records, "filename": stats.export_filename}
    finally:
        db.close()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def application(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Today five people have given feedback, one of them twice the same; one rating is wrong, one row has none."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    url = request.getfixturevalue("postgres_database") if request.param == "postgresql" else "sqlite:///application.db"
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    with opened(url) as database:
        now = datetime.now(UTC).replace(tzinfo=None)
        rows: list[dict[str, Any]] = [
            {"user_id": user, "analysis_id": 100 + user, "helpful_rating": 4, "would_recommend": True} for user in AGES
        ]
        rows += [rows[0], rows[1] | {"helpful_rating": 6}, rows[2] | {"helpful_rating": None, "would_recommend": None}]
        usual = {"recommendation_id": 1, "timeframe": "2_weeks", "created_at": now - timedelta(hours=2)}
        database.fill(
            records=[{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"], "rules_applied": ["r1"]}],
            profiles=[{"id": user, "user_id": user, "age": age} for user, age in AGES.items()],
            feedbacks=[usual | row | {"id": number} for number, row in enumerate(rows, 1)],
        )
        yield database


@pytest.fixture
def make_session(application: Database) -> "sessionmaker[Session]":
    """What an application calls SessionLocal."""
    return sessionmaker(application.engine)


@pytest.fixture
def db(make_session: "sessionmaker[Session]") -> Iterator[Session]:
    """A session of the application."""
    with closing(make_session()) as session:
        yield session


def feedback_after(application: Database, number: int, **changes: Any) -> None:
    """A user gives feedback now."""
    row = {"id": number, "user_id": 1, "analysis_id": number, "recommendation_id": 1, "helpful_rating": 5}
    a_moment_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=2)
    application.fill(feedbacks=[row | {"created_at": a_moment_ago} | changes])


def rows_of(filename: str) -> list[dict[str, str]]:
    with Path(filename).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_basic_usage(db: Session) -> None:
    """A processor, one call, figures and a file."""
    processor = FeedbackProcessor(db_session=db, output_dir=OUTPUT)
    stats = processor.process_and_export(days_back=7, min_feedback_fields=1)
    assert f"Exported {stats.exported_records} pairs to {stats.export_filename}".startswith(
        f"Exported 5 pairs to {OUTPUT}/feedback_training_"
    )
    rows = rows_of(stats.export_filename)
    assert [row["age_range"] for row in rows] == ["<18", "18-25", "25-35", "50+", ""]
    assert {row["conditions_detected"] for row in rows} == {"acne"}


def test_more_feedback_fields_can_be_asked_for(db: Session) -> None:
    """Rows with fewer are skipped."""
    stats = FeedbackProcessor(db, OUTPUT).process_and_export(days_back=30, min_feedback_fields=3)
    assert (stats.exported_records, stats.skipped_records, stats.export_filename) == (0, 8, "")


@pytest.mark.sample("sqlite---days 7")
@pytest.mark.parametrize(
    "arguments", [("--days", "7"), pytest.param(("--bulk",), marks=pytest.mark.slow)], ids=" ".join
)
@pytest.mark.usefixtures("application")
def test_command_line(arguments: tuple[str, ...]) -> None:
    """The module is a script."""
    command = [sys.executable, "-m", "feedback_etl.processor", *arguments, "--output", "exports"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert "exported   5 of 8 rows" in done.stderr
    (path,) = Path("exports").glob("feedback_training_*.csv")
    assert len(rows_of(str(path))) == 5


def test_fastapi(make_session: "sessionmaker[Session]") -> None:
    """An endpoint for admins, with a session for each request."""
    app = FastAPI()

    def get_db() -> Iterator[Session]:
        with closing(make_session()) as session:
            yield session

    @app.post("/admin/export-feedback")
    def export_feedback(db: Annotated[Session, Depends(get_db)], days_back: int = 7) -> dict[str, Any]:
        stats = FeedbackProcessor(db_session=db).process_and_export(days_back=days_back)
        return {"status": "success", "exported": stats.exported_records, "file": stats.export_filename}

    with TestClient(app) as client:
        answer = client.post("/admin/export-feedback", params={"days_back": 30})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["exported"]) == ("success", 5)
    assert len(rows_of(answer.json()["file"])) == 5


def test_apscheduler(make_session: "sessionmaker[Session]") -> None:
    """A job that opens a session of its own, in a thread of the scheduler."""

    def daily_export() -> int:
        with closing(make_session()) as session:
            return FeedbackProcessor(db_session=session).process_and_export(days_back=1).exported_records

    events: list[JobExecutionEvent] = []
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_listener(events.append, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
    scheduler.add_job(daily_export, "cron", hour=2, next_run_time=datetime.now(UTC))
    scheduler.start()
    try:
        wait_for(lambda: events)
    finally:
        scheduler.shutdown()
    assert (events[0].exception, events[0].retval) == (None, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("application")
def test_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task on a real worker, whose processes are forked after the module was imported."""
    Path("classic_tasks.py").write_text(CELERY_APP, encoding="utf-8")
    with running_redis() as url:
        monkeypatch.setenv("REDIS_URL", url)
        with (
            running_worker("classic_tasks"),
            Celery("producer", broker=url, backend=url, set_as_current=False) as producer,
        ):
            tasks = [producer.send_task("export_feedback", kwargs={"days_back": days}) for days in (7, -1)]
            results = [task.get(timeout=PATIENCE_SECONDS) for task in tasks]
            producer.backend.result_consumer.stop()
            producer.backend.client.connection_pool.disconnect()
            pools.reset()  # type: ignore[no-untyped-call]
    assert [result["exported"] for result in results] == [5, 5]
    assert [len(rows_of(result["filename"])) for result in results] == [5, 5]
    assert results[0]["filename"] != results[1]["filename"]


def test_event_hook(application: Database, make_session: "sessionmaker[Session]") -> None:
    """After every third feedback an export runs in a thread, while the event loop continues."""
    exported: list[int] = []

    def export() -> int:
        with closing(make_session()) as session:
            return FeedbackProcessor(db_session=session).process_and_export(days_back=1).exported_records

    async def on_feedback_submitted(number: int) -> None:
        if number % 3 == 0:
            exported.append(await asyncio.to_thread(export))

    async def main() -> None:
        for number in range(1, 4):
            feedback_after(application, 1_000 + number)
            await on_feedback_submitted(number)

    asyncio.run(main())
    assert exported == [8]


def test_workflow_of_nightly_and_full_exports(application: Database, make_session: "sessionmaker[Session]") -> None:
    """A day each night, everything once a week; both are read for training without further ado."""
    feedback_after(application, 2_000, created_at=datetime(2025, 1, 1))
    with closing(make_session()) as session:
        processor = FeedbackProcessor(db_session=session, output_dir=OUTPUT)
        nightly = processor.process_and_export(days_back=1)
        weekly = processor.process_and_export(days_back=-1)
    assert (nightly.exported_records, weekly.exported_records) == (5, 6)
    frames = [pl.read_csv(path) for path in sorted(Path(OUTPUT).glob("feedback_training_*.csv"))]
    together = pl.concat(frames, how="vertical_relaxed")
    assert together.unique(["analysis_hash", "recommendation_id", "feedback_timestamp"]).height == 6


def test_workflow_of_pairs_by_hand(db: Session) -> None:
    """Pairs that an application makes itself, deduplicated by their hash and written as a file."""
    processor = FeedbackProcessor(db_session=db, output_dir=OUTPUT)
    pairs = [
        FeedbackTrainingPair(
            analysis_hash=processor._hash_id(number),
            recommendation_id="rec_20251025_001",
            helpful_rating=5,
            product_satisfaction=4,
            routine_completion_pct=80,
            would_recommend=True,
            conditions_detected="acne,oily_skin",
            rules_applied="r001,r002",
            timeframe="2_weeks",
            age_range=processor._bucket_age(28),
            feedback_timestamp="2025-10-25T10:00:00",
            export_date="2025-10-25T12:00:00",
        )
        for number in (1, 2, 1)
    ]
    unique = {processor._get_pair_hash(pair): pair for pair in pairs}
    filename = processor._export_to_csv([*unique.values()])
    assert rows_of(filename) == [
        {name: str(value) for name, value in pair.to_dict().items()} for pair in unique.values()
    ]
    assert len(unique) == 2


def test_statistics(db: Session) -> None:
    """Each row that was read is in one of the figures, and shares can be computed of them."""
    stats = FeedbackProcessor(db_session=db).process_and_export(days_back=7)
    assert isinstance(stats, FeedbackProcessingStats)
    assert stats.total_feedback_records == 8
    assert (stats.exported_records, stats.anonymized_records) == (5, 5)
    assert (stats.deduplicated_records, stats.skipped_records, stats.errors) == (1, 1, 1)
    assert f"{stats.exported_records / stats.total_feedback_records:.1%}" == "62.5%"
    assert stats.execution_time_seconds > 0


def test_nothing_to_export(db: Session) -> None:
    """Figures of zero and no file, without an error."""
    db.execute(sa.text("DELETE FROM recommendation_feedbacks"))
    db.commit()
    stats = FeedbackProcessor(db_session=db).process_and_export(days_back=1)
    assert (stats.total_feedback_records, stats.export_filename) == (0, "")


def test_troubleshooting_all_rows_rejected(db: Session, caplog: pytest.LogCaptureFixture) -> None:
    """No file, errors counted, and the log says why."""
    db.execute(sa.text("UPDATE recommendation_feedbacks SET helpful_rating = 6"))
    db.commit()
    with caplog.at_level(logging.WARNING):
        stats = FeedbackProcessor(db_session=db).process_and_export(days_back=1)
    assert (stats.export_filename, stats.exported_records, stats.errors) == ("", 0, 8)
    assert "helpful_rating_out_of_range 8" in caplog.text


def test_error_handling(db: Session) -> None:
    """An exception that can be caught and logged; the session can be used and closed as before."""
    db.execute(sa.text("DROP TABLE recommendation_feedbacks"))
    db.commit()
    message = ""
    try:
        FeedbackProcessor(db_session=db).process_and_export(days_back=1)
    except Exception as error:
        message = f"{isinstance(error, FeedbackError)} {error}"
    finally:
        assert db.execute(sa.text("SELECT count(*) FROM profiles")).scalar() == 5
    assert message.startswith("True ")
    assert "recommendation_feedbacks" in message
    assert not list(Path().rglob("feedback_training_*.csv"))


def test_configuration(db: Session) -> None:
    """Another folder, other age ranges, another rule for duplicates: as the documentation says, in the methods."""

    class Configured(FeedbackProcessor):
        def _bucket_age(self, age: float | None) -> str | None:
            if age is None:
                return None
            if age < 18:
                return "child"
            if age < 30:
                return "young"
            if age < 60:
                return "adult"
            return "senior"

    stats = Configured(db_session=db, output_dir=Path("exports") / "by_generation").process_and_export(days_back=7)
    assert stats.export_filename.startswith("exports/by_generation/")
    assert [row["age_range"] for row in rows_of(stats.export_filename)] == ["child", "young", "adult", "senior", ""]
