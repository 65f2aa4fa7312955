"""The export as a loop over objects of SQLAlchemy's ORM, as naive code does it: a query for each relation of a row."""

import csv
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, registry, relationship

from feedback_etl.database import tables

RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend")
COLUMNS = (
    *("analysis_hash", "recommendation_id", *RATINGS, "conditions_detected", "rules_applied"),
    *("timeframe", "age_range", "feedback_timestamp", "export_date"),
)


class Profile:
    """A row of profiles."""


class Recommendation:
    """A row of recommendation_records."""


class Feedback:
    """A row of recommendation_feedbacks."""


mapping = registry()
mapping.map_imperatively(Profile, tables.profiles)
mapping.map_imperatively(Recommendation, tables.recommendation_records)
mapping.map_imperatively(
    Feedback, tables.recommendation_feedbacks, properties={"recommendation": relationship(Recommendation)}
)


def age_range(age: int | None) -> str | None:
    """Return the range of an age."""
    if age is None:
        return None
    ranges = {18: "<18", 25: "18-25", 35: "25-35", 50: "35-50"}
    return next((name for edge, name in ranges.items() if age < edge), "50+")


def pair(session: Session, feedback: Any, key: bytes, now: datetime) -> list[Any]:
    """Return the training pair of a feedback."""
    profile: Any = session.scalars(
        sa.select(Profile).where(tables.profiles.c.user_id == feedback.user_id).order_by(tables.profiles.c.id).limit(1)
    ).first()
    text = f"analysis_id:{feedback.analysis_id}"
    return [
        hmac.new(key, text.encode(), "sha256").hexdigest()[:16],
        feedback.recommendation.recommendation_id,
        *(getattr(feedback, name) for name in RATINGS),
        ",".join(feedback.recommendation.conditions_analyzed or ()),
        ",".join(feedback.recommendation.rules_applied or ()),
        feedback.timeframe,
        age_range(profile.age if profile else None),
        feedback.created_at.isoformat(),
        now.replace(microsecond=0).isoformat(),
    ]


def export(session: Session, key: bytes, folder: Path, now: datetime, rows: int) -> None:
    """Write the pairs of the first rows, in the order of their times."""
    seen = set()
    time_order = (tables.recommendation_feedbacks.c.created_at, tables.recommendation_feedbacks.c.id)
    with (folder / "export.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        feedbacks: Iterable[Any] = session.scalars(sa.select(Feedback).order_by(*time_order).limit(rows))
        for feedback in feedbacks:
            if not feedback.recommendation or all(getattr(feedback, name) is None for name in RATINGS):
                continue
            values = pair(session, feedback, key, now)
            digest = hashlib.sha256(f"{values[0]}|{values[1]}|{values[10]}".encode()).hexdigest()
            if digest not in seen:
                seen.add(digest)
                writer.writerow(values)


if __name__ == "__main__":
    slice_rows = int(sys.argv[2])
    with Session(sa.create_engine(os.environ["FEEDBACK_ETL_DATABASE_URL"])) as opened:
        begin = time.perf_counter()
        present = datetime.now(UTC).replace(tzinfo=None)
        export(opened, os.environ["FEEDBACK_ETL_KEY"].encode(), Path(sys.argv[1]), present, slice_rows)
        print(json.dumps({"seconds": time.perf_counter() - begin}))
