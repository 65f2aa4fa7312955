"""What a large export would take: counted, measured on one range, and nothing written."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from clusters import NOW, ROWS, Watched, environment, exported, fill_with_sample
from databases import Database
from processes import Here

import feedback_etl as fe
from feedback_etl.errors import UsageError
from feedback_etl.exports.manifest import manifests_in


@pytest.fixture
def url(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A PostgreSQL database of sample data."""
    fill_with_sample(postgres_database)
    for name, value in environment(postgres_database).items():
        monkeypatch.setenv(name, value)
    return postgres_database


def test_it_tells_what_the_export_then_is(url: str, tmp_path: Path) -> None:
    """As many ranges as parts, all rows, and about the size."""
    planned = fe.plan(url, days_back=-1, workers=5, now=NOW)
    assert list(tmp_path.iterdir()) == []
    report = exported(url, tmp_path / "exports", executor=Watched(), workers=5)
    (manifest,) = manifests_in(tmp_path / "exports")
    parts = manifest.all("pairs")
    assert planned.rows == report.total_feedback_records == ROWS
    assert planned.ranges in (len(parts), len(parts) + 1)  # one may hold no row that is exported
    assert planned.workers == 5
    size = sum(part.bytes for part in parts)
    assert 0.8 * size < planned.bytes < 1.2 * size
    assert 0 < planned.measured_rows < ROWS
    assert planned.measured_seconds > 0


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
    told = here("plan", "--days", "-1", "--workers", "4", "--format", "parquet")
    assert told.code == 0
    assert f"rows       {ROWS:,}" in told.err
    assert "estimated" in told.err
    figures = json.loads(here("plan", "--days", "-1", "--json").out)
    assert figures["rows"] == ROWS
    assert list(tmp_path.iterdir()) == []


def test_every_database_can_be_planned(database: Database) -> None:
    """Those that cannot be divided in one range; without rows there is nothing to measure."""
    nothing = fe.plan(database.url, days_back=-1, now=NOW, workers=3)
    assert (nothing.rows, nothing.ranges, nothing.measured_rows, nothing.seconds, nothing.bytes) == (0, 1, 0, 0, 0)
    record = {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"]}
    row = {"user_id": 1, "recommendation_id": 1, "helpful_rating": 5, "created_at": NOW.replace(hour=1)}
    database.fill(records=[record], feedbacks=[row | {"id": each, "analysis_id": each} for each in range(1, 8)])
    planned = fe.plan(database.url, days_back=-1, now=NOW, workers=3)
    assert (planned.rows, planned.ranges, planned.measured_rows) == (7, 1, 7)


def test_wrong_arguments_are_refused(url: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match="workers must be"):
        fe.plan(url, workers=0)
    with pytest.raises(UsageError, match="format must be"):
        fe.plan(url, format="xml")  # type: ignore[arg-type]


def test_the_database_is_left_alone(url: str) -> None:
    """It is only read: no row, table or setting differs."""
    counted = "SELECT count(*), (SELECT count(*) FROM pg_tables) FROM recommendation_feedbacks"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        before = connection.exec_driver_sql(counted).all()
        fe.plan(url, days_back=-1, workers=3, now=NOW)
        assert connection.exec_driver_sql(counted).all() == before
