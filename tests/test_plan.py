"""What a large export would take: counted, measured on one range, and nothing written."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from clusters import NOW, ROWS, SMALL_TASK, Watched, exported, fill_with_sample
from databases import Database, create_schema
from processes import Here

import feedback_etl as fe
from feedback_etl.errors import UsageError
from feedback_etl.records.catalog import list_manifests


@pytest.fixture
def url(own_sample_url: str) -> str:
    """A PostgreSQL database of sample data."""
    return own_sample_url


def test_estimate_matches_the_export(url: str, tmp_path: Path) -> None:
    """As many ranges as parts, all rows, and about the size."""
    planned = fe.plan(url, days_back=-1, workers=5, now=NOW)
    assert list(tmp_path.iterdir()) == []
    report = exported(url, tmp_path / "exports", executor=Watched(), workers=5)
    (manifest,) = list_manifests(tmp_path / "exports")
    parts = manifest.all("pairs")
    assert planned.rows == report.total_feedback_records == ROWS
    assert planned.ranges in (len(parts), len(parts) + 1)  # one may hold no row that is exported
    assert planned.workers == 5
    size = sum(part.bytes for part in parts)
    assert 0.8 * size < planned.bytes < 1.2 * size
    assert 0 < planned.measured_rows < ROWS
    assert planned.measured_seconds > 0


@pytest.mark.sample("7")
@pytest.mark.parametrize("workers", [None, 1, 7, 32])
def test_it_plans_the_tasks_that_are_sent(url: str, tmp_path: Path, workers: int | None) -> None:
    """As many ranges as tasks are sent ahead, unless they were too small; the same for the export as for its plan."""
    planned = fe.plan(url, days_back=-1, workers=workers, now=NOW)
    watched = Watched()
    exported(url, tmp_path, executor=watched, workers=workers)
    assert len(watched.tasks) == planned.ranges
    dated = min(workers or 64, ROWS // SMALL_TASK)
    assert planned.ranges in ({1} if dated == 1 else {dated, dated + 1})  # the last for rows without a time


def test_few_rows_are_one_task(postgres_database: str) -> None:
    """A task has fewer than 20,000 rows only if there are no more."""
    fill_with_sample(postgres_database, 1_000)
    assert fe.plan(postgres_database, days_back=-1, workers=32, now=NOW).ranges == 1


def test_what_is_measured_is_where_the_rows_are(postgres_database: str) -> None:
    """Not at a time when there were hardly any, and not the range of rows without a time."""
    engine = sa.create_engine(postgres_database, poolclass=sa.NullPool)
    create_schema(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(
            "INSERT INTO recommendation_feedbacks (id, user_id, analysis_id, recommendation_id, helpful_rating, "
            "created_at) SELECT i, mod(i, 7), i, 1, 5, CASE WHEN i = 1 THEN timestamp '2025-09-01' WHEN i = 2 THEN "
            "timestamp '2025-10-20' ELSE timestamp '2025-10-01' END FROM generate_series(1, 60000) i"
        )
    planned = fe.plan(postgres_database, days_back=-1, workers=4, now=NOW)
    assert planned.rows == 60_000
    assert planned.measured_rows >= 59_000
    assert planned.seconds > 0


def test_more_workers_take_less_time_as_long_as_there_are_ranges(url: str) -> None:
    """Estimated from the same kind of range; with more workers than ranges some have nothing to do."""
    planned = fe.plan(url, days_back=-1, workers=7, now=NOW)
    one_by_one = planned.measured_seconds * planned.rows / planned.measured_rows
    waves = -(-planned.ranges // planned.workers)
    assert planned.seconds == pytest.approx(one_by_one * waves / planned.ranges)
    few = fe.plan(url, since="2025-10-24", until="2025-10-25", workers=64, now=NOW)
    assert few.workers <= few.ranges
    assert few.seconds <= few.measured_seconds * few.rows / few.measured_rows


def test_the_command_line_writes_nothing(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a key; the figures go to stderr, or as JSON to stdout."""
    here = Here(capfd, monkeypatch)
    finished = here("plan", "--days", "-1", "--workers", "4", "--format", "parquet")
    assert finished.code == 0
    assert f"rows       {ROWS:,}" in finished.err
    assert "size       about " in finished.err
    assert "duration   about " in finished.err
    figures = json.loads(here("plan", "--days", "-1", "--json").out)
    assert figures["rows"] == ROWS
    assert list(tmp_path.iterdir()) == []


def test_every_database_can_be_planned(database: Database) -> None:
    """Those that cannot be divided in one range; without rows there is nothing to measure."""
    nothing = fe.plan(database.url, days_back=-1, now=NOW, workers=3)
    assert (nothing.rows, nothing.ranges, nothing.measured_rows, nothing.seconds, nothing.bytes) == (0, 1, 0, 0, 0)
    record = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}
    row = {"user_id": 1, "recommendation_id": 1, "helpful_rating": 5, "created_at": NOW.replace(hour=1)}
    database.fill(records=[record], feedbacks=[row | {"id": number, "analysis_id": number} for number in range(1, 8)])
    planned = fe.plan(database.url, days_back=-1, now=NOW, workers=3)
    assert (planned.rows, planned.ranges, planned.measured_rows) == (7, 1, 7)


def test_wrong_arguments_are_refused(url: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match="`workers` must be"):
        fe.plan(url, workers=0)
    with pytest.raises(UsageError, match="`format` must be"):
        fe.plan(url, format="xml")  # type: ignore[arg-type]


def test_the_database_is_left_alone(url: str) -> None:
    """It is only read: no row, table or setting differs."""
    counted = "SELECT count(*), (SELECT count(*) FROM pg_tables) FROM recommendation_feedbacks"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        before = connection.exec_driver_sql(counted).all()
        fe.plan(url, days_back=-1, workers=3, now=NOW)
        assert connection.exec_driver_sql(counted).all() == before
