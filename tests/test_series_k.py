"""k over an incremental series: rows of small equivalence classes are pending until k people of it share them."""

import csv
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, rows_of, visible
from pseudonym_keys import KEY
from reading import select
from series_model import pseudonym

import feedback_etl as fe
from feedback_etl.cli.summary import format_summary
from feedback_etl.compliance import check as compliance
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.errors import ExportFileError, UsageError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport
from feedback_etl.settings.model import load_settings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
K = 3
GENERALIZE: dict[str, Any] = {"on_small_class": "generalize", "max_pending": "10d"}


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create an application with one recommendation, whose users all consent."""
    with sqlite_database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN DEFAULT true")
    sqlite_database.fill(
        records=[{"id": 1, "recommendation_id": "rec_1"}], users=[{"id": number} for number in range(1, 41)]
    )
    return sqlite_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the exports."""
    return tmp_path / "exports"


def add(app: Database, day: int, *people: tuple[int, str | None]) -> None:
    """Insert a row of each user with a timeframe, on a day; the analysis is 100 times the day, plus the user."""
    rows = [
        {
            **{"id": day * 1000 + number, "user_id": user, "analysis_id": day * 100 + user, "recommendation_id": 1},
            **{"helpful_rating": 5, "timeframe": timeframe, "created_at": NOW + day * DAY - (number + 1) * HOUR / 100},
        }
        for number, (user, timeframe) in enumerate(people)
    ]
    app.fill(feedbacks=rows)


def export_night(app: Database, folder: Path | str, day: int, **options: Any) -> ExportReport:
    """Run the incremental export of a day."""
    report = exported(app, folder, **{"incremental": True, "days_back": 30, "k": K, "now": NOW + day * DAY, **options})
    outcomes = ("exported", "deduplicated", "skipped", "suppressed", "pending")
    counted = sum(getattr(report, f"{name}_records") for name in outcomes) + report.errors
    assert report.total_feedback_records == counted
    return report


def published(folder: Path) -> dict[str, str]:
    """Return the timeframe of each pseudonym in the data files, read without the package."""
    rows: dict[str, str] = {}
    for path in folder.rglob("feedback_training_*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                assert row["analysis_hash"] not in rows
                rows[row["analysis_hash"]] = row["timeframe"]
    return rows


def count_people(folder: Path) -> dict[str, int]:
    """Count the people of each class over all data files; a pseudonym's user is the analysis modulo 100."""
    users = {pseudonym(day * 100 + user): user for day in range(60) for user in range(1, 41)}
    people = defaultdict[str, set[int]](set)
    for row, timeframe in published(folder).items():
        people[timeframe].add(users[row])
    return {timeframe: len(some) for timeframe, some in people.items()}


def pending_files(folder: Path) -> list[Path]:
    """Return the files of pending rows."""
    return sorted((folder / ".feedback_etl").rglob("*.pending"))


def test_row_leaves_when_k_people_share_its_class(app: Database, folder: Path) -> None:
    """An export with pending rows alone succeeds; later they are released together, and a fourth person at once."""
    add(app, 1, (1, "a"), (2, "a"))
    first = export_night(app, folder, 1)
    assert (first.pending_records, first.exported_records, first.export_filename) == (2, 0, "")
    assert (first.risk["k"], first.risk["highest_risk"], first.risk["rows_in_classes_under_5"]) == (None, None, 0)
    assert published(folder) == {}
    add(app, 2, (3, "a"), (4, "b"))
    second = export_night(app, folder, 2)
    assert (second.total_feedback_records, second.exported_records, second.pending_records) == (4, 3, 1)
    assert second.risk["scope"] == "series"
    add(app, 3, (5, "a"), (1, "a"))
    third = export_night(app, folder, 3)
    assert (third.exported_records, third.pending_records, third.risk["k"]) == (2, 1, 5 - 1)
    assert count_people(folder) == {"a": 4}
    nothing = export_night(app, folder, 4)
    assert (nothing.exported_records, nothing.pending_records) == (0, 1)
    assert len(list_manifests(folder)) == 3


def test_one_person_with_many_rows_is_one_person(app: Database, folder: Path) -> None:
    """Rows of three nights of the same user wait."""
    for day in (1, 2, 3):
        add(app, day, (1, "a"))
        assert export_night(app, folder, day).pending_records == day


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_that_waited_are_as_others(app: Database, folder: Path, form: dict[str, Any]) -> None:
    """In every format; the time of the export is that of the one with which they leave."""
    add(app, 1, (1, "a"), (2, "=a"), (3, "=a"))
    export_night(app, folder, 1, **form)
    add(app, 2, (2, "a"), (3, "a"), (4, "=a"))
    report = export_night(app, folder, 2, **form)
    rows = rows_of(Path(report.export_filename))
    assert (rows.height, rows["export_date"].n_unique(), report.pending_records) == (6, 1, 0)
    assert fe.training.scan_training(folder).collect().height == 6
    assert fe.training.scan_training(folder, verify=True, key=KEY).collect()["timeframe"].n_unique() == 2


def test_pending_rows_are_private_and_have_no_ids(app: Database, folder: Path) -> None:
    """Only the last export has a file of them."""
    for day in (1, 2):
        add(app, day, (day, "a"))
        export_night(app, folder, day)
    (path,) = pending_files(folder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*folder.rglob("*.parquet"), *folder.rglob("*.csv")] == []  # what a glob of a user would find
    assert visible(folder) == [f"{manifest.stem}.manifest.json" for manifest in list_manifests(folder)]
    pending = pl.read_parquet(path)
    assert pending["analysis_hash"].to_list() == [pseudonym(101), pseudonym(202)]
    assert pending["digest of the person"].str.len_chars().to_list() == [16, 16]


def test_erased_people_do_not_wait_and_are_not_counted(app: Database, folder: Path) -> None:
    """An erasure reaches pending rows, and the members of classes that have left."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"))
    export_night(app, folder, 1)
    result = fe.privacy.erase(folder, user_ids=[1, 4], database=app.url, keys=[Key(KEY)])
    assert result.rows == 2
    assert pl.read_parquet(pending_files(folder)[0])["analysis_hash"].to_list() == [pseudonym(105)]
    add(app, 2, (6, "a"), (7, "b"))
    report = export_night(app, folder, 2)
    assert (report.exported_records, report.pending_records) == (1, 2)
    assert count_people(folder) == {"a": 3}


def test_rows_without_consent_or_database_do_not_leave(app: Database, folder: Path) -> None:
    """A pending row is not released if its user withdraws consent or the row is deleted."""
    add(app, 1, (1, "a"), (2, "a"), (3, "b"), (4, "b"))
    export_night(app, folder, 1)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET training_data_opt_in = false WHERE id = 1")
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 3")
    add(app, 2, (5, "a"), (6, "a"), (7, "b"))
    report = export_night(app, folder, 2)
    assert (report.excluded_records, report.exported_records, report.pending_records) == (2, 3, 2)
    assert count_people(folder) == {"a": 3}


def test_row_of_a_withdrawn_user_does_not_leave_with_the_analysis_of_another(app: Database, folder: Path) -> None:
    """Consent is that of the person whose row is pending, also where two people have one analysis."""
    add(app, 1, (1, "a"), (2, "b"))
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET analysis_id = 1")
    export_night(app, folder, 1)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET training_data_opt_in = false WHERE id = 1")
    add(app, 2, (5, "a"), (6, "a"), (7, "b"))
    report = export_night(app, folder, 2)
    assert (report.excluded_records, report.exported_records, report.pending_records) == (1, 0, 4)


@pytest.mark.parametrize("user", ["NULL", "''"])
def test_rows_without_a_user_stay_pending(app: Database, folder: Path, user: str) -> None:
    """A source without a user has empty texts on SQLite, which an export reads as null."""
    add(app, 1, (1, "a"), (2, "a"))
    columns = {name: name for name in ("analysis_id", "created_at")}
    columns |= {"feedback_id": "id", "user_id": f"CAST({user} AS text)"}
    query = select(app.url, "FROM recommendation_feedbacks", **columns)
    export_night(app, folder, 1, query=query)
    add(app, 2, (3, "a"))
    report = export_night(app, folder, 2, query=query)
    assert (report.excluded_records, report.exported_records, report.pending_records) == (0, 0, 3)


def test_prune_reaches_pending_rows_and_members(app: Database, folder: Path) -> None:
    """Rows that wait in a young export for longer than files are kept go, and pruned exports do not count."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"), (4, "b"))
    export_night(app, folder, 1)
    add(app, 20, (5, "b"))
    export_night(app, folder, 20)
    for dry_run in (True, False):
        pruned = fe.exports.prune(folder, keep_days=10, now=NOW + 21 * DAY, key=Key(KEY), dry_run=dry_run)
        assert (len(pruned.exports), pruned.pending_rows) == (1, 1)
    assert pl.read_parquet(pending_files(folder)[0])["analysis_hash"].to_list() == [pseudonym(2005)]
    add(app, 22, (6, "a"), (7, "b"))
    report = export_night(app, folder, 22)
    assert (report.exported_records, report.pending_records) == (0, 3)
    assert fe.exports.prune(folder, keep_days=0, now=NOW + 23 * DAY, key=Key(KEY)).pending_rows == 3
    assert pending_files(folder) == []
    add(app, 24, (1, "b"), (2, "b"), (3, "b"))
    assert export_night(app, folder, 24).exported_records == 3


def test_rows_that_wait_too_long_are_suppressed(app: Database, folder: Path) -> None:
    """Also in a night without new rows, so that they do not stay on the disk."""
    add(app, 1, (1, "a"))
    export_night(app, folder, 1)
    report = export_night(app, folder, 12, max_pending="10d")
    assert (report.total_feedback_records, report.suppressed_records, report.pending_records) == (1, 1, 0)
    assert pending_files(folder) == []
    assert export_night(app, folder, 13, max_pending="10d").total_feedback_records == 0


@pytest.mark.parametrize("options", [{"on_small_class": "fail"}, {"max_suppressed": 0.5}], ids=str)
def test_rows_that_wait_too_long_can_be_refused(app: Database, folder: Path, options: dict[str, Any]) -> None:
    """Nothing is published then, and they still wait."""
    add(app, 1, (1, "a"))
    assert export_night(app, folder, 1, **options).pending_records == 1
    with pytest.raises(ValidationError, match="--max-pending has passed for 1 row of fewer than 3 people"):
        export_night(app, folder, 12, max_pending="10d", **options)
    assert len(pending_files(folder)) == 1


def test_missing_pending_rows_are_an_error(app: Database, folder: Path) -> None:
    """They would be lost, since the series has read them."""
    add(app, 1, (1, "a"))
    export_night(app, folder, 1)
    pending_files(folder)[0].unlink()
    with pytest.raises(ExportFileError, match=r"\.pending is missing or was changed"):
        export_night(app, folder, 2)


def test_duration_must_be_one(folder: Path) -> None:
    """The message names the option."""
    with pytest.raises(UsageError, match="`max_pending` must be a duration"):
        fe.export_feedback("sqlite://", incremental=True, max_pending="soon", key=KEY, output_dir=folder)


def test_full_export_beside_a_series_repeats_no_pair(app: Database, folder: Path) -> None:
    """A pending row is older than the window of its export, and is in an older full export, too."""
    add(app, 1, (1, "a"))
    export_night(app, folder, 1)
    exported(app, folder, days_back=-1, now=NOW + DAY)
    for day in (3, 4):
        add(app, day, (day, "a"))
        export_night(app, folder, day)
    assert fe.training.scan_training(folder).collect().height == 3


def test_summary_says_that_rows_wait(app: Database, folder: Path) -> None:
    """Also where all of them do."""
    add(app, 1, (1, "a"))
    lines = [*format_summary(export_night(app, folder, 1), 1)]
    reason = "all new rows are pending until k people of the series share their equivalence class."
    assert f"Nothing exported: {reason}" in lines
    assert "pending    1 until k people of the series share their equivalence class" in lines
    add(app, 2, (2, "a"), (3, "a"))
    lines = [*format_summary(export_night(app, folder, 2), 1)]
    assert "           counted over all exports of the series: no file alone has this k" in lines


def test_reported_k_is_that_of_classes_without_new_rows_too(app: Database, folder: Path) -> None:
    """After an erasure, a class of earlier exports is smaller than those of the new rows."""
    add(app, 1, *((person, "a") for person in range(1, K + 1)))
    export_night(app, folder, 1)
    fe.privacy.erase(folder, user_ids=[1], database=app.url, keys=[Key(KEY)])
    add(app, 2, *((person, "b") for person in range(11, 11 + K)))
    report = export_night(app, folder, 2)
    assert (report.exported_records, report.risk["k"]) == (K, K - 1)
    assert min(count_people(folder).values()) == K - 1


def check_k(app: Database, folder: Path) -> ChecklistItem:
    """Return the item `k` of the checklist."""
    settings = load_settings(output_dir=folder, database_url=app.url)
    with pytest.MonkeyPatch.context() as patch:  # the other tests try a million ids
        patch.setattr(compliance, "_TESTS", [test for test in compliance._TESTS if test.name == "k"])
        (item,) = compliance.check(settings, keys=[Key(KEY)], now=NOW)
    return item


def test_k_of_a_series_is_checked_and_kept_over_its_exports(app: Database, folder: Path) -> None:
    """Three people are in three files: none of them alone has k; of two that remain, nothing does."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"), (4, "b"))
    add(app, 2, (5, "a"), (6, "b"))
    add(app, 3, (7, "b"))
    for day in (1, 2, 3):
        export_night(app, folder, day)
    assert check_k(app, folder).status == "ok"
    fe.privacy.erase(folder, user_ids=[1], database=app.url, keys=[Key(KEY)])
    assert check_k(app, folder).status == "ok"  # the second file has one person of the class, the first one two
    assert "k of the series of " in check_k(app, folder).detail
    fe.privacy.erase(folder, user_ids=[2], database=app.url, keys=[Key(KEY)])
    item = check_k(app, folder)
    assert (item.status, item.remedy) == ("failed", f"feedback-etl erase --keep-k {folder}")
    assert " is 2 for age_range, conditions_detected, timeframe since people were erased or exports pr" in item.detail
    result = fe.privacy.erase(folder, keep_k=True, database=app.url, keys=[Key(KEY)])
    assert (result.suppressed, count_people(folder)) == (2, {"b": 3})
    assert check_k(app, folder).status == "ok"
    add(app, 4, (8, "a"), (9, "b"))
    report = export_night(app, folder, 4)
    assert (report.exported_records, report.pending_records) == (1, 1)  # those who were suppressed do not count


def test_k_of_a_series_is_measured_again_after_an_export_was_pruned(app: Database, folder: Path) -> None:
    """The others are fewer than k then, and `erase --keep-k` removes them."""
    add(app, 1, (1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "b"), (6, "b"))
    first = export_night(app, folder, 1)
    add(app, 2, (7, "a"))
    export_night(app, folder, 2)
    fe.exports.prune(folder, exports=[Path(first.export_filename).name], key=Key(KEY))
    assert (check_k(app, folder).status, count_people(folder)) == ("failed", {"a": 1})
    fe.privacy.erase(folder, keep_k=True, database=app.url, keys=[Key(KEY)])
    assert (check_k(app, folder).status, count_people(folder)) == ("ok", {})


def test_new_series_reports_the_rows_that_wait_in_the_old_one(app: Database, folder: Path) -> None:
    """It reads those of its window again; the old ones leave when their series continues."""
    add(app, 1, (1, "a"), (2, "b"))
    export_night(app, folder, 1)
    report = export_night(app, folder, 2, quasi_identifiers=["age_range"], new_series=True)
    assert (report.exported_records, report.pending_records) == (0, 2)
    assert report.advice.endswith("; 2 rows of those are pending until their series continues, or prune removes them")
    assert [series.pending_records for series in fe.exports.list_series(folder)] == [2, 2]
    add(app, 3, (3, "a"), (4, "a"))
    assert export_night(app, folder, 3).exported_records == 3


@pytest.mark.parametrize("limit", [{"l": 2}, {"t": 0.5}], ids=str)
def test_series_refuses_limits_of_answers(app: Database, folder: Path, limit: dict[str, Any]) -> None:
    """They would be those of a part of the rows."""
    with pytest.raises(UsageError, match=r"^`l` and `t` are measured over all rows of one export"):
        export_night(app, folder, 1, **limit)


def test_rows_that_wait_too_long_are_generalised_with_others_that_wait(app: Database, folder: Path) -> None:
    """Two of the first day and one of the tenth leave without a timeframe; rows of large classes stay as they are."""
    add(app, 1, (1, "a"), (2, "b"), (3, "c"), (4, "c"), (5, "c"))
    assert export_night(app, folder, 1, **GENERALIZE).pending_records == 2
    add(app, 10, (6, "d"))
    assert export_night(app, folder, 10, **GENERALIZE).exported_records == 0
    report = export_night(app, folder, 11, **GENERALIZE)
    assert (report.exported_records, report.suppressed_records, report.pending_records) == (3, 0, 0)
    assert report.risk["generalization"]["columns"]["timeframe"] == {"generalized": 0, "emptied": 3}
    assert count_people(folder) == {"": 3, "c": 3}
    add(app, 12, (7, "e"))
    assert export_night(app, folder, 12, **GENERALIZE).pending_records == 1
    assert pending_files(folder)[0].exists()


def test_row_pending_too_long_joins_a_class_that_was_released_before(app: Database, folder: Path) -> None:
    """Alone it has no k; of the pending rows that could join as well, none has to."""
    add(app, 1, (1, None), (2, None), (3, None), (4, "a"))
    assert export_night(app, folder, 1, **GENERALIZE).pending_records == 1
    add(app, 5, (5, "b"))
    assert export_night(app, folder, 5, **GENERALIZE).pending_records == 2
    report = export_night(app, folder, 11, **GENERALIZE)
    assert (report.exported_records, report.suppressed_records, report.pending_records) == (1, 0, 1)
    assert report.risk["generalization"]["columns"]["timeframe"] == {"generalized": 0, "emptied": 1}
    assert (report.risk["k"], count_people(folder)) == (4, {"": 4})


def test_row_pending_too_long_joins_a_class_that_is_released_now(app: Database, folder: Path) -> None:
    """A class without released rows, so that all of its rows can be generalised; other classes are unchanged."""
    add(app, 1, (1, "a"))
    export_night(app, folder, 1, **GENERALIZE)
    add(app, 11, (2, "b"), (3, "b"), (4, "b"), *((person, "c") for person in range(5, 9)), (9, "d"))
    report = export_night(app, folder, 11, **GENERALIZE)
    assert (report.exported_records, report.suppressed_records, report.pending_records) == (8, 0, 1)
    assert report.risk["generalization"]["columns"]["timeframe"] == {"generalized": 0, "emptied": 4}
    assert count_people(folder) == {"": 4, "c": 4}


def test_released_class_is_not_generalised_for_a_row_pending_too_long(app: Database, folder: Path) -> None:
    """Its earlier rows stay as they are published, and without them its new one and this one would be fewer than k."""
    add(app, 1, (1, "a"), (2, "b"), (3, "b"), (4, "b"))
    export_night(app, folder, 1, **GENERALIZE)
    add(app, 11, (5, "b"))
    report = export_night(app, folder, 11, **GENERALIZE)
    assert (report.exported_records, report.suppressed_records, count_people(folder)) == (1, 1, {"b": 4})


def test_people_of_a_released_class_count_only_where_their_rows_are(app: Database, folder: Path) -> None:
    """A class that an erasure made small keeps its values, so its person does not help those without a timeframe."""
    add(app, 1, (1, "a"), (2, "b"), (3, "c"), (4, "c"), (5, "c"))
    export_night(app, folder, 1, **GENERALIZE)
    fe.privacy.erase(folder, user_ids=[3, 4], database=app.url, keys=[Key(KEY)])
    report = export_night(app, folder, 11, **GENERALIZE)
    assert (report.exported_records, report.suppressed_records, count_people(folder)) == (0, 2, {"c": 1})


def test_times_of_rows_pending_too_long_are_generalised(app: Database, folder: Path) -> None:
    """Rows of two months become those of a quarter, which begins with October; one of a third month joins them."""
    options = GENERALIZE | {"quasi_identifiers": ["timeframe", "feedback_timestamp"], "timestamp_precision": "month"}
    add(app, 1, (1, "a"))
    add(app, 10, (2, "a"), (3, "a"))
    assert export_night(app, folder, 15, **options).pending_records == 3
    add(app, 40, (4, "a"))
    for night, exported_rows, changed in ((26, 3, 2), (41, 0, None), (52, 1, 1)):
        report = export_night(app, folder, night, **options)
        assert (report.exported_records, report.suppressed_records) == (exported_rows, 0)
        if changed:
            columns = report.risk["generalization"]["columns"]
            assert columns["feedback_timestamp"] == {"generalized": changed, "emptied": 0}


def test_no_row_waits_if_none_may(app: Database, folder: Path) -> None:
    """With a duration of 0 small classes are generalised the same night."""
    add(app, 1, (1, "a"), (2, "b"), (3, "c"), (4, "c"), (5, "c"), (6, "d"))
    options: dict[str, Any] = {"on_small_class": "generalize", "max_pending": "0d"}
    report = export_night(app, folder, 1, **options)
    assert (report.exported_records, report.pending_records, count_people(folder)) == (6, 0, {"": 3, "c": 3})


def test_workers_spool_rows_with_their_people(app: Database, folder: Path) -> None:
    """An executor counts the classes of the series as well."""
    with ThreadPoolExecutor(2) as executor:
        for day, expected in ((1, (0, 2)), (2, (3, 1))):
            add(app, day, *[(day * 2, "a"), (day * 2 + 1, "a" if day == 1 else "b")])
            report = export_night(app, folder, day, executor=executor)
            assert (report.exported_records, report.pending_records) == expected
    assert pending_files(folder)[0].stat().st_mode & 0o777 == 0o600
