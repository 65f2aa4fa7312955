"""An application that calls us: a small database with the settings and the key in the environment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database
from pseudonym_keys import KEY

from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests
from feedback_etl.records.manifest import Manifest

FOLDER = Path("ml/feedback_training")
"""Where exports go, in the working directory of the test."""


def give_feedback(database: Database, *ids: int, **changes: Any) -> None:
    """Good rows of an hour ago; user and analysis of each have the row's own id."""
    row = {"recommendation_id": 1, "helpful_rating": 5, **changes}
    an_hour_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
    rows = [{"id": id_, "user_id": id_, "analysis_id": id_, "created_at": an_hour_ago, **row} for id_ in ids]
    database.fill(feedbacks=rows)


def configure(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put what an export needs into the environment, and a record to give feedback on into the database."""
    database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", database.url)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)


def exports() -> list[Manifest]:
    """The exports that there are."""
    return list_manifests(FOLDER)


def exported_rows() -> int:
    """How many rows they hold."""
    return sum(manifest.rows for manifest in exports())


def events() -> list[str]:
    """Return the events of the audit log."""
    return [record["event"] for record in AuditLog(FOLDER).records()]


@contextmanager
def kept_waiting(database: Database) -> Iterator[Callable[[], bool]]:
    """Lock the feedback of a PostgreSQL database; yield a function that returns whether a reader waits."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.engine.connect() as other, database.engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE recommendation_feedbacks IN ACCESS EXCLUSIVE MODE"))
        other = other.execution_options(isolation_level="AUTOCOMMIT")
        yield lambda: bool(other.scalar(waiting))
