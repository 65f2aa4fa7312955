"""k over a series that follows changes: over all versions of its rows, and over the newest ones."""

from pathlib import Path
from typing import Any

import pytest
from databases import Database
from folders import NOW
from pseudonym_keys import KEY
from test_series_k import DAY, HOUR, add, check_k, export_night
from test_series_k import app as app  # a fixture
from test_series_k import folder as folder  # a fixture

import feedback_etl as fe
from feedback_etl.pipeline.request import ExportRequest
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport


def edit(app: Database, day: int, timeframe: str, *ids: int) -> None:
    """Change the timeframe of rows, by their ids, on a day."""
    with app.engine.begin() as connection:
        for number in ids:
            connection.exec_driver_sql(
                f"UPDATE recommendation_feedbacks SET timeframe = '{timeframe}', "
                f"updated_at = '{NOW + day * DAY - HOUR}' WHERE id = {number}"
            )


def follow(app: Database, folder: Path, day: int, **options: Any) -> ExportReport:
    """Export the new and the changed rows of a day."""
    return export_night(app, folder, day, cursor="updated_at", **options)


def newest(folder: Path) -> dict[str, int]:
    """Count the rows of each class that a reader of the newest versions finds; each is of another person."""
    rows = fe.scan_training(folder).collect()
    return dict(rows.group_by("timeframe").len().rows())


def test_k_of_newest_versions_is_checked_where_files_were_counted_alone(
    app: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions did: both files have k, but of the first class one person remains."""
    monkeypatch.setattr(ExportRequest, "counts_series", property(lambda _: False))
    add(app, 1, (1, "a"), (2, "a"), (3, "a"))
    assert follow(app, folder, 1).risk["k"] == 3
    add(app, 2, (7, "b"))
    edit(app, 2, "b", 1000, 1001)
    assert follow(app, folder, 2).risk["k"] == 3
    assert newest(folder) == {"a": 1, "b": 3}
    item = check_k(app, folder)
    assert item.status == "failed"
    assert " is 1 for age_range, conditions_detected, timeframe counted over all versions of its rows" in item.detail
    result = fe.privacy.erase(folder, keep_k=True, database=app.url, keys=[Key(KEY)])
    assert (result.suppressed, newest(folder)) == (6, {})
    assert check_k(app, folder).status == "ok"
