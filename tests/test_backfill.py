"""Backfill: rows of earlier windows that no export of a series contains."""

from pathlib import Path
from typing import Any

import pytest
from clusters import Watched
from databases import Database
from folders import FORMS, NOW
from pseudonym_keys import KEY
from test_cursor import edit, follow, ratings
from test_incremental import DAY, HOUR, MINUTE, add, export_next, row
from test_incremental import app as app  # a fixture
from test_incremental import folder as folder  # a fixture
from test_incremental_in_parts import read_pairs

import feedback_etl as fe
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.series_status import list_series
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.overrides import Overrides


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_late_rows_are_exported_once(app: Database, folder: Path, form: dict[str, Any]) -> None:
    """No other row is, neither one that was exported nor one that is left to the next export."""
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - 4 * DAY, helpful_rating=9), row(3, NOW - MINUTE))
    export_next(app, folder, NOW, **form)
    late = [row(4, NOW - 3 * DAY), row(5, NOW - 5 * DAY, analysis_id=1), row(6, NOW - 4 * DAY, helpful_rating=9)]
    add(app, *late, row(7, NOW), row(8, NOW - 40 * DAY))
    assert export_next(app, folder, NOW + MINUTE, **form).late_records == 3
    report = export_next(app, folder, NOW + MINUTE, backfill=True, **form)
    assert (report.exported_records, report.errors, report.late_records, report.mode) == (1, 1, 0, "backfill")
    assert report.window == (NOW - 30 * DAY, NOW - HOUR)
    assert ratings(folder) == {1: 5, 3: 5, 4: 5, 7: 5}
    again = export_next(app, folder, NOW + MINUTE, backfill=True, **form)
    assert (again.total_feedback_records, again.export_filename) == (0, "")
    add(app, row(9, NOW + MINUTE))
    following = export_next(app, folder, NOW + HOUR, **form)
    assert (following.exported_records, following.late_records) == (1, 0)
    assert ratings(folder) == {1: 5, 3: 5, 4: 5, 7: 5, 9: 5}


@pytest.mark.any_database
def test_late_row_beside_a_deleted_one_is_exported(app: Database, folder: Path) -> None:
    """The count of the window is the same."""
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    export_next(app, folder, NOW)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE id = 1")
    add(app, row(3, NOW - 3 * DAY))
    assert export_next(app, folder, NOW + MINUTE).late_records == 0
    assert export_next(app, folder, NOW + MINUTE, backfill=True).exported_records == 1


@pytest.mark.any_database
def test_rows_that_became_valid_are_exported(app: Database, folder: Path) -> None:
    """A rejected row that was corrected, and one that had too few ratings."""
    few = dict.fromkeys(("helpful_rating", "product_satisfaction", "routine_completion_pct", "would_recommend"))
    add(app, row(1, NOW - 5 * DAY, helpful_rating=9), row(2, NOW - 4 * DAY, **few), row(3, NOW - MINUTE))
    export_next(app, folder, NOW)
    for number in (1, 2):
        edit(app, number, None, helpful_rating=4)
    assert export_next(app, folder, NOW + MINUTE, backfill=True).exported_records == 2
    assert ratings(folder) == {1: 4, 2: 4, 3: 5}


def test_series_with_a_cursor_is_made_whole(app: Database, folder: Path) -> None:
    """Changes stay with the next export, and versions that were exported are not repeated."""
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    follow(app, folder, NOW)
    edit(app, 1, NOW + MINUTE, helpful_rating=1)
    add(app, row(3, NOW - 3 * DAY))
    assert follow(app, folder, NOW + HOUR, backfill=True).exported_records == 1
    assert ratings(folder) == {1: 5, 2: 5, 3: 5}
    assert follow(app, folder, NOW + HOUR).changed_records == 1
    assert follow(app, folder, NOW + HOUR, backfill=True).exported_records == 0
    assert ratings(folder) == {1: 1, 2: 5, 3: 5}


@pytest.mark.any_database
def test_erased_people_stay_erased(app: Database, folder: Path) -> None:
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    export_next(app, folder, NOW)
    fe.privacy.erase(folder, user_ids=[1], database=app.url, keys=[Key(KEY)])
    add(app, row(3, NOW - 3 * DAY, user_id=1))
    assert export_next(app, folder, NOW + MINUTE, backfill=True).exported_records == 0


@pytest.mark.any_database
def test_rows_of_pruned_exports_are_not_exported_again(app: Database, folder: Path) -> None:
    """Retention has removed them; which rows arrived late is not known there."""
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    export_next(app, folder, NOW)
    add(app, row(3, NOW + 9 * DAY), row(4, NOW + 12 * DAY))
    export_next(app, folder, NOW + 20 * DAY)
    fe.exports.prune(folder, exports=[list_manifests(folder)[0].stem], key=Key(KEY))
    add(app, row(5, NOW - 3 * DAY), row(6, NOW + 5 * DAY))
    assert export_next(app, folder, NOW + 20 * DAY, backfill=True).exported_records == 1
    assert ratings(folder) == {3: 5, 4: 5, 6: 5}


@pytest.mark.any_database
@pytest.mark.parametrize("cursor", ["created_at", "updated_at"])
def test_rows_of_a_pruned_backfill_are_not_exported_again(app: Database, folder: Path, cursor: str) -> None:
    """Nothing before its watermark is, since it contained rows of all earlier windows."""
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    export_next(app, folder, NOW, cursor=cursor)
    add(app, row(3, NOW - 3 * DAY))
    assert export_next(app, folder, NOW + MINUTE, cursor=cursor, backfill=True).exported_records == 1
    fe.exports.prune(folder, exports=[list_manifests(folder)[-1].stem], key=Key(KEY))
    assert export_next(app, folder, NOW + 2 * MINUTE, cursor=cursor, backfill=True).exported_records == 0


@pytest.mark.any_database
def test_missing_file_is_an_error(app: Database, folder: Path) -> None:
    """Its rows would be exported again."""
    add(app, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    report = export_next(app, folder, NOW)
    Path(report.export_filename).unlink()
    with pytest.raises(ExportFileError, match=r"is missing or was changed: a backfill .* prune --export feedback_t"):
        export_next(app, folder, NOW + MINUTE, backfill=True)


@pytest.mark.parametrize("options", [{"k": 2}, {"timestamp_precision": "day"}], ids=str)
def test_exports_that_identify_no_row_are_refused(
    sqlite_database: Database, folder: Path, options: dict[str, Any]
) -> None:
    sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
    with pytest.raises(UsageError, match=f"^`backfill` excludes {next(iter(options))}: "):
        export_next(sqlite_database, folder, NOW, backfill=True, **options)
    with pytest.raises(UsageError, match=r"^`backfill` needs a series with earlier windows"):
        export_next(sqlite_database, folder, NOW, backfill=True)
    with pytest.raises(UsageError, match=r"^`backfill` has no effect without `incremental`\.$"):
        export_next(sqlite_database, folder, NOW, backfill=True, incremental=False)


def test_code_that_a_backfill_cannot_use_is_refused(sqlite_database: Database, folder: Path) -> None:
    """Workers, and pseudonyms that are not those of the key."""
    overrides = Overrides(hash_id=lambda value: f"id {value}")
    with pytest.raises(UsageError, match=r"^`backfill` excludes an overridden _hash_id: .* another folder instead\.$"):
        export_next(sqlite_database, folder, NOW, backfill=True, overrides=overrides)
    with Watched() as executor, pytest.raises(UsageError, match=r"^`backfill` excludes executor: .* executor out\.$"):
        export_next(sqlite_database, folder, NOW, backfill=True, executor=executor)


def test_store_and_status(sqlite_database: Database, bucket_url: str) -> None:
    """A backfill ends the report of late rows, and state and files stay as in a folder."""
    sqlite_database.fill(records=[{"id": 1, "recommendation_id": "rec_1"}])
    add(sqlite_database, row(1, NOW - 5 * DAY), row(2, NOW - MINUTE))
    export_next(sqlite_database, bucket_url, NOW)  # type: ignore[arg-type]
    add(sqlite_database, row(3, NOW - 3 * DAY))
    export_next(sqlite_database, bucket_url, NOW + MINUTE)  # type: ignore[arg-type]
    assert [series.late_records for series in list_series(bucket_url)] == [1]
    report = export_next(sqlite_database, bucket_url, NOW + MINUTE, backfill=True)  # type: ignore[arg-type]
    assert report.exported_records == 1
    assert [series.late_records for series in list_series(bucket_url)] == [0]
    assert export_next(sqlite_database, bucket_url, NOW + HOUR).exported_records == 0  # type: ignore[arg-type]
    assert read_pairs(open_storage(bucket_url)).height == 3
