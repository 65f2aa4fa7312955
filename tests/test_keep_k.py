"""After an erasure, exports are held to the k they were made with."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, people, rows_of
from processes import Here
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.errors import UsageError
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.catalog import list_manifests
from feedback_etl.settings.model import Settings, load_settings

KEYS = [Key(KEY)]


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create five people of one timeframe and six of another, with two rows each."""
    rows = people(11, each=2)
    for row in rows["feedbacks"]:
        row["timeframe"] = "2_weeks" if row["user_id"] <= 5 else "4_weeks"
    sqlite_database.fill(**rows)
    return sqlite_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the path of a folder for exports."""
    return tmp_path / "exports"


def check_k(app: Database | None, folder: Path, **settings: Any) -> ChecklistItem:
    """Return the item `k` of the checklist."""
    items = check(load(app, folder, **settings), keys=KEYS, now=NOW)
    return next(item for item in items if item.name == "k")


def load(app: Database | None, folder: Path, **settings: Any) -> Settings:
    return load_settings(output_dir=folder, **({"database_url": app.url} if app else {}), **settings)


def test_export_is_held_to_the_k_it_was_made_with(app: Database, folder: Path) -> None:
    """Though the settings require none: k fell to 4 after an erasure."""
    exported(app, folder, k=5)
    assert check_k(app, folder).status == "ok"
    erase(folder, user_ids=[1], database=app.url, keys=KEYS)
    item = check_k(app, folder)
    assert item.status == "failed"
    assert " is 4 for age_range, conditions_detected, timeframe since people were erased, and 5 is" in item.detail
    assert item.remedy == f"feedback-etl erase --keep-k {folder}"


def test_erasure_that_leaves_k_passes(app: Database, folder: Path) -> None:
    """Six people are one more than required, and rows are not people."""
    exported(app, folder, k=5)
    erase(folder, user_ids=[6], database=app.url, keys=KEYS)
    assert check_k(app, folder).status == "ok"
    erase(folder, analysis_ids=[701], keys=KEYS)
    assert check_k(app, folder).status == "ok"


def test_people_cannot_be_counted_without_the_database(app: Database, folder: Path) -> None:
    """Analyses are not people; with the pseudonym of the user the file is enough."""
    exported(app, folder, k=5)
    erase(folder, user_ids=[1], database=app.url, keys=KEYS)
    item = check_k(None, folder)
    assert item.status == "skipped"
    assert item.detail.endswith("from which rows were erased, cannot be counted without the database and the key.")
    exported(app, folder / "with", k=5, include_subject_hash=True)
    erase(folder / "with", user_ids=[1], database=app.url, keys=KEYS)
    assert check_k(None, folder / "with").status == "failed"


def test_required_k_is_the_greater_one(app: Database, folder: Path) -> None:
    """That of the settings needs another export."""
    exported(app, folder, k=3)
    item = check_k(app, folder, k=6)
    assert (item.status, " --k 6 " in item.remedy) == ("failed", True)
    assert check_k(app, folder, k=2).status == "ok"
    erase(folder, user_ids=[1, 2, 3], database=app.url, keys=KEYS)
    assert "and 3 is required" in check_k(app, folder, k=2).detail


def test_export_without_required_k_is_not_called_ok(app: Database, folder: Path) -> None:
    """Its k is printed."""
    exported(app, folder)
    item = check_k(app, folder)
    assert (item.status, item.remedy) == ("skipped", "set k in the settings")
    assert " is 5 for age_range, conditions_detected, timeframe, and none is required" in item.detail


def test_k_of_an_earlier_export_is_not_required_of_a_later_one(app: Database, folder: Path) -> None:
    """The detail names the export of which it is required."""
    earlier = Path(exported(app, folder, k=3).export_filename)
    exported(app, folder, now=NOW + timedelta(seconds=1))
    item = check_k(app, folder)
    assert item.status == "skipped"
    assert item.detail.startswith(f"k of {earlier.stem} is 5 for ")
    assert item.detail.count("3 is required") == 1


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_keep_k_removes_small_classes_with_the_erasure(app: Database, folder: Path, form: dict[str, Any]) -> None:
    """In one rewrite, and counted; the other class keeps its rows."""
    report = exported(app, folder, k=5, **form)
    result = erase(folder, user_ids=[1], keep_k=True, database=app.url, keys=KEYS)
    assert (result.rows, result.suppressed) == (10, 8)
    assert set(rows_of(Path(report.export_filename))["timeframe"]) == {"4_weeks"}
    record = AuditLog(folder).records()[-1]
    assert (record["event"], record["rows"], record["suppressed"]) == ("erased", 10, 8)
    (manifest,) = list_manifests(folder)
    assert (manifest.rows, manifest.erased_rows) == (12, 10)
    assert check_k(app, folder).status == "ok"
    later = exported(app, folder, now=NOW + timedelta(days=1), **form)
    assert rows_of(Path(later.export_filename)).height == 20  # suppressed people are not kept out


def test_keep_k_alone_completes_earlier_erasures(app: Database, folder: Path) -> None:
    """Exports from which no one was erased, and those without a k, stay as they are."""
    exported(app, folder, k=5)
    exported(app, folder, now=NOW + timedelta(days=1))
    erase(folder, user_ids=[1], database=app.url, keys=KEYS)
    exported(app, folder, now=NOW + timedelta(days=2), k=4)
    dry = erase(folder, keep_k=True, database=app.url, keys=KEYS, dry_run=True)
    assert check_k(app, folder, k=None).status == "failed"
    done = erase(folder, keep_k=True, database=app.url, keys=KEYS)
    assert (dry.suppressed, done.suppressed, done.rows) == (8, 8, 8)
    assert [manifest.rows for manifest in list_manifests(folder)] == [12, 20, 20]
    assert erase(folder, keep_k=True, database=app.url, keys=KEYS).rows == 0


def test_keep_k_removes_classes_that_it_makes_small(app: Database, folder: Path) -> None:
    """An analysis is removed with all of its rows, which can be in several classes."""
    rows = people(11, each=2)["feedbacks"]
    spread = [row | {"id": row["id"] + 5000, "timeframe": "8_weeks"} for row in rows if row["user_id"] <= 5]
    app.fill(feedbacks=spread)
    exported(app, folder, k=5)
    erase(folder, user_ids=[1], keep_k=True, database=app.url, keys=KEYS)
    assert fe.scan_training(folder).collect()["timeframe"].unique().to_list() == ["4_weeks"]


def test_people_who_have_left_are_not_counted_as_many(app: Database, folder: Path) -> None:
    """Their analyses could all be one person's."""
    exported(app, folder, k=5)
    erase(folder, user_ids=[6], database=app.url, keys=KEYS)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id IN (7, 8)")
    assert check_k(app, folder).status == "failed"


def test_row_that_has_left_is_not_counted_beside_known_people(app: Database, folder: Path) -> None:
    """It can be a row of one of them: user 2 has another analysis in the class."""
    exported(app, folder, k=5)
    with app.engine.begin() as connection:
        statement = "DELETE FROM recommendation_feedbacks WHERE id = (SELECT min(id) {0} WHERE user_id = 2)"
        connection.exec_driver_sql(statement.format("FROM recommendation_feedbacks"))
    erase(folder, user_ids=[1], database=app.url, keys=KEYS)
    item = check_k(app, folder)
    assert item.status == "failed"
    assert " is 4 for " in item.detail
    erase(folder, keep_k=True, database=app.url, keys=KEYS)
    assert fe.scan_training(folder).collect()["timeframe"].unique().to_list() == ["4_weeks"]


def test_analysis_of_several_users_adds_no_one(app: Database, folder: Path) -> None:
    """Whose row it was is unknown, whichever user comes first."""
    rows = [row for row in people(11, each=2)["feedbacks"] if row["user_id"] in {2, 3}]
    exported(app, folder, k=5)
    erase(folder, user_ids=[1], database=app.url, keys=KEYS)
    others = [{"id": 1 + n, "user_id": 99 * n} for n in range(2)]
    app.fill(feedbacks=[row | other for row, other in zip(rows[::3], others, strict=False)])
    assert " is 4 for " in check_k(app, folder).detail


def test_rows_without_a_user_are_one_person_after_an_erasure(app: Database, folder: Path) -> None:
    """As they were when they were exported."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET user_id = NULL WHERE user_id = 2")
    exported(app, folder, k=5)
    erase(folder, user_ids=[6], database=app.url, keys=KEYS)
    assert check_k(app, folder).status == "ok"


def test_export_without_rows_left_has_no_small_class(app: Database, folder: Path) -> None:
    """Its k cannot be raised."""
    exported(app, folder, k=5)
    erase(folder, user_ids=range(1, 12), database=app.url, keys=KEYS)
    assert check_k(app, folder).status == "ok"


def test_keep_k_needs_the_database(folder: Path, app: Database) -> None:
    """It counts people."""
    exported(app, folder, k=5)
    with pytest.raises(UsageError, match="pass `database`"):
        erase(folder, keep_k=True, keys=KEYS)


def test_command_prints_what_was_suppressed(
    app: Database, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, not people."""
    exported(app, folder, k=5)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", app.url)
    Path("ids.txt").write_text("1\n")
    done = Here(capfd, monkeypatch)("erase", "--user-ids-file", "ids.txt", "--keep-k", "--json", "--output", folder)
    assert (done.code, json.loads(done.out)["suppressed"]) == (0, 8)
    assert "8 rows of these removed to keep k (--keep-k)" in done.err
    assert pl.read_csv(next(folder.glob("*.csv"))).height == 12
