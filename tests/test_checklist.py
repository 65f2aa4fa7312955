"""The checklist: a correct folder passes, and each fault is reported with its remedy."""

import hashlib
import json
import re
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import NOW, exported, people
from processes import feedback_etl
from pseudonym_keys import KEY, OTHER_KEY

from feedback_etl.compliance.check import check
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.record import RECORD, write_record
from feedback_etl.compliance.rows import GUESSED_IDS
from feedback_etl.data_files.file_formats import FileFormat, RowWriter
from feedback_etl.database.lookups import ApplicationSummary
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.adoption import adopt
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests, replace_manifest
from feedback_etl.settings.model import Settings, load_settings
from feedback_etl.storage.location import open_storage

KEYS = [Key(KEY)]
NAMES = [
    *("columns", "pseudonyms", "ages", "images", "contents", "keys", "duplicates", "modes", "retention"),
    *("audit log", "k", "limits"),
    *("raw ids", "erasure", "collisions", "index", "edits", "consent", "record"),
]
ITEM_COLUMNS = ["recommendation_id", "product_ratings"]
SIZE = "feedback_etl.compliance.rows.GUESSED_IDS"
QUERY = """
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, 'rec_1' AS recommendation_id, f.helpful_rating,
       f.product_satisfaction, f.routine_completion_pct, f.would_recommend, NULL AS conditions_analyzed,
       NULL AS rules_applied, f.timeframe, NULL AS age, f.created_at
FROM recommendation_feedbacks f
"""
RECORD_FIELDS = {
    "controller": "Example Ltd",
    "contact": "privacy@example.com",
    "purpose": "to learn which recommendations help",
    "legal_basis": "consent (Article 6(1)(a))",
    "recipients": "none",
    "transfers": "none",
    "data_protection_officer": "dpo@example.com",
}


def fill_with_consent(database: Database) -> Database:
    """Insert three users who have consented."""
    rows = people(3)
    for row in rows["feedbacks"]:
        row["user_id"] += 1_000_000
        row["analysis_id"] += 1_000_000
    database.fill(**rows, users=[{"id": 1_000_000 + user} for user in (1, 2, 3)])
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN DEFAULT true")
    return database


def prepare_folder(app: Database, folder: Path) -> Settings:
    """Create an export, settings and a record of processing that pass every item."""
    exported(app, folder, days_back=30)
    settings = load_settings(database_url=app.url, output_dir=folder, retention_days=90, k=3, **RECORD_FIELDS)
    write_record(settings)
    return settings


@pytest.fixture(autouse=True)
def few_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash fewer ids: a million take a second in every test."""
    monkeypatch.setattr(SIZE, 1_000)


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """Create an application with three users who have consented."""
    return fill_with_consent(sqlite_database)


@pytest.fixture
def settings(app: Database, tmp_path: Path) -> Settings:
    """Create a folder that passes every item."""
    return prepare_folder(app, tmp_path / "exports")


def find_failed(settings: Settings, keys: list[Key] = KEYS, now: datetime = NOW) -> dict[str, ChecklistItem]:
    """Return the failed items by name."""
    items = check(settings, keys=keys, now=now)
    assert sorted(item.name for item in items) == sorted(NAMES)
    assert all(bool(item.remedy) is (item.status == "failed") for item in items if item.status != "skipped")
    return {item.name: item for item in items if item.status == "failed"}


def find_skipped(settings: Settings, keys: list[Key] = KEYS) -> dict[str, ChecklistItem]:
    """Return the skipped items by name."""
    return {item.name: item for item in check(settings, keys=keys, now=NOW) if item.status == "skipped"}


def rewrite(settings: Settings, change: dict[str, Any]) -> None:
    """Replace rows of the newest export, and update its manifest."""
    manifest = list_manifests(settings.output_dir)[-1]
    file = manifest.files[0]
    path = settings.output_dir / file.path
    frame = pl.read_csv(path, infer_schema=False).with_columns(**change)
    with path.open("wb") as target:
        rows = RowWriter(target, FileFormat())
        rows.append(frame)
        rows.finish()
    file.rows, file.bytes, file.sha256 = frame.height, rows.written.bytes, rows.written.sha256
    replace_manifest(open_storage(settings.output_dir), manifest, Key(KEY))


def test_correct_folder_passes(database: Database, tmp_path: Path) -> None:
    """A new folder, and a database that records consent."""
    settings = prepare_folder(fill_with_consent(database), tmp_path / "exports")
    assert (find_failed(settings), find_skipped(settings)) == ({}, {})


def test_missing_folder_passes_nothing(tmp_path: Path) -> None:
    """An item that cannot be tested does not pass."""
    settings = load_settings(output_dir=tmp_path / "nothing")
    assert find_failed(settings).keys() == {"record"}
    assert sorted(find_skipped(settings)) == sorted({*NAMES} - {"record"})


def test_missing_database_is_reported(settings: Settings) -> None:
    """Items that need it are skipped; pseudonyms are compared with guessed ids alone."""
    skipped = find_skipped(settings.model_copy(update={"database_url": None}))
    assert skipped.keys() == {"pseudonyms", "raw ids", "erasure", "collisions", "index", "edits", "consent"}
    assert {item.remedy for item in skipped.values()} == {"set FEEDBACK_ETL_DATABASE_URL"}
    assert "Not tested: the ids of the application, no database" in skipped["pseudonyms"].detail


def test_index_behind_a_query_or_a_view_is_not_known(settings: Settings, app: Database, tmp_path: Path) -> None:
    """Its table may have none."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_recommendation_feedbacks_created_at")
    assert "index" in find_failed(settings)
    query = tmp_path / "feedback.sql"
    query.write_text(QUERY)
    item = find_skipped(settings.model_copy(update={"query": query}))["index"]
    assert item.detail.startswith("Not tested: the tables behind a query or a view are not known.")
    with app.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE recommendation_feedbacks RENAME TO stored")
        connection.exec_driver_sql("CREATE VIEW recommendation_feedbacks AS SELECT * FROM stored")
    assert find_skipped(settings)["index"].detail == item.detail


def test_edits_are_tested_where_a_series_does_not_follow_them(
    settings: Settings, app: Database, tmp_path: Path
) -> None:
    """Full exports contain the current rows; the times of a query are unknown, and the setting is a decision."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET updated_at = '2025-10-25 13:00:00'")
    assert "edits" not in find_failed(settings)
    exported(app, settings.output_dir, days_back=30, incremental=True)
    assert find_failed(settings)["edits"].detail.startswith("9 rows changed after creation (updated_at), and")
    query = tmp_path / "feedback.sql"
    query.write_text(QUERY)
    assert "edits" in find_skipped(settings.model_copy(update={"query": query}))
    assert "edits" not in find_failed(load_settings(**settings.model_dump(exclude_unset=True), cursor="created_at"))


def test_short_ids_are_not_tested(settings: Settings, app: Database) -> None:
    """They occur in texts by chance; the longer ones are tested all the same."""
    app.fill(feedbacks=people(9)["feedbacks"][-1:])
    mixed = find_skipped(settings)["raw ids"].detail
    assert (
        "one of 12 ids of users and analyses of 6 characters or more; a number in an item is not that of its row."
        in mixed
    )
    assert "row. Not tested: 2 ids of fewer than 6 characters" in mixed
    app.clear()
    app.fill(**people(2))
    detail = find_skipped(settings)["raw ids"].detail
    assert detail == "Not tested: 8 ids of fewer than 6 characters, found in texts by chance."


def test_duplicates_of_truncated_times_are_not_tested(app: Database, tmp_path: Path) -> None:
    """They cannot be distinguished from rows of the same hour."""
    folder = tmp_path / "exports"
    exported(app, folder, timestamp_precision="hour")
    settings = load_settings(database_url=app.url, output_dir=folder)
    detail = find_skipped(settings)["duplicates"].detail
    assert re.fullmatch(r"Not tested: feedback_training_\S+\.csv, whose times are truncated\.", detail)
    exported(app, folder, now=NOW + timedelta(days=1))
    assert find_skipped(settings)["duplicates"].detail.startswith(
        "No file has duplicates: 1 file with exact times. Not tested"
    )


@pytest.mark.parametrize("kind", ["pairs", "rejected"])
def test_missing_file_is_reported(settings: Settings, app: Database, kind: str) -> None:
    """Beside an export that is complete, too."""
    exported(app, settings.output_dir, now=NOW + timedelta(days=1), days_back=30)
    app.fill(feedbacks=people(9, each=4)["feedbacks"][-4:], users=[{"id": 9}])
    exported(app, settings.output_dir, now=NOW + timedelta(days=2), days_back=30)
    manifest = list_manifests(settings.output_dir)[-1]
    (file,) = manifest.all(kind)
    (settings.output_dir / file.path).unlink()
    item = find_failed(settings)["contents"]
    assert item.detail == f"{file.path} is missing."
    assert item.remedy.endswith(f"\nfeedback-etl prune --export {manifest.stem} {settings.output_dir}")


def test_missing_files_of_all_exports_are_reported(settings: Settings) -> None:
    """Items that read them are skipped; those of manifests are still tested."""
    next(settings.output_dir.glob("*.csv")).unlink()
    assert "contents" in find_failed(settings)
    assert find_skipped(settings).keys() == {
        *("columns", "pseudonyms", "ages", "images", "duplicates", "k", "raw ids", "erasure"),
    }


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a column more": ("columns", {"feedback_text": pl.lit("private")}, "has unknown columns feedback_text"),
    "a plain hash of an id": ("pseudonyms", {"analysis_hash": pl.lit("73475cb40a568e8d")}, "1 plain hashes"),
    "an e-mail address in a list": ("columns", {"rules_applied": pl.lit("r1,call a@example.com")}, "in rules_applied"),
    "no pseudonym": ("pseudonyms", {"analysis_hash": pl.lit("1002")}, "1 malformed pseudonym"),
    "no analysis": ("pseudonyms", {"analysis_hash": pl.lit(None, pl.String)}, "9 rows without a pseudonym"),
    "an age": ("ages", {"age_range": pl.lit("25")}, "has ages that are not ranges"),
    "a URL": ("images", {"timeframe": pl.lit("https://example.com/a")}, "in timeframe"),
    "the name of an image": ("images", {"recommendation_id": pl.lit("photos/a.JPG")}, "in recommendation_id"),
    "a user's id": ("raw ids", {"recommendation_id": pl.lit("rec1000002")}, "in recommendation_id"),
    "a user's id with zeros": ("raw ids", {"timeframe": pl.lit("u_0001000002.x")}, "in timeframe"),
    "the number of an analysis": ("raw ids", {"timeframe": pl.lit("case 1000101")}, "in timeframe"),
    "a user's id between others": ("raw ids", {"rules_applied": pl.lit("r1,user-1000003")}, "in rules_applied"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_forbidden_content_is_reported(settings: Settings, what: str) -> None:
    """The message names the file and never the value."""
    name, change, message = CHANGES[what]
    rewrite(settings, change)
    failed = find_failed(settings)
    assert message in failed[name].detail
    assert f"feedback-etl prune --export {list_manifests(settings.output_dir)[-1].stem}" in failed[name].remedy
    assert not any(
        word in failed[name].detail for word in ("private", "example.com", "1000002", "1000003", "1000101", "JPG")
    )


def test_plain_hashes_of_a_million_ids_are_recognised(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of the last id, which is not in the application."""
    monkeypatch.setattr(SIZE, GUESSED_IDS)
    rewrite(settings, {"analysis_hash": pl.lit(hashlib.sha256(b"999999").hexdigest()[:16])})
    assert "1 plain hashes" in find_failed(settings)["pseudonyms"].detail


def test_subject_hashes_are_checked_too(app: Database, tmp_path: Path) -> None:
    """Where the export contains them."""
    folder = tmp_path / "exports"
    exported(app, folder, include_subject_hash=True)
    changed = load_settings(database_url=app.url, output_dir=folder)
    rewrite(changed, {"subject_hash": pl.lit("73475cb40a568e8d")})
    assert "1 plain hashes" in find_failed(changed)["pseudonyms"].detail


def test_remedy_for_ids_in_recommendations_names_an_option_that_exists(settings: Settings) -> None:
    """The recommendation can be pseudonymised as well."""
    rewrite(settings, {"recommendation_id": pl.lit("rec1000002")})
    remedy = find_failed(settings)["raw ids"].remedy
    assert " --hash-recommendation-id" in remedy.splitlines()[0]
    assert "--hash-recommendation-id" in feedback_etl("export", "--help").stdout


def test_text_ids_of_analyses_are_found_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are not: there are as many of them as of dates and versions."""
    rewrite(settings, {"recommendation_id": pl.lit("rec-6f2c9d1e-77aa-4c0f-9d55-0123456789ab-i 20251025")})
    assert "raw ids" not in find_failed(settings)
    ids = ["6f2c9d1e-77aa-4c0f-9d55-0123456789ab", "20251025"]
    monkeypatch.setattr(ApplicationSummary, "analyses", ids)
    assert "in recommendation_id" in find_failed(settings)["raw ids"].detail
    monkeypatch.setattr(ApplicationSummary, "analyses", ids[1:])
    assert "raw ids" not in find_failed(settings)


@pytest.mark.parametrize(
    ("number", "problems"),
    [("1000001 + id / 100 % 3", []), ("user_id", ITEM_COLUMNS), ("analysis_id", ITEM_COLUMNS)],
    ids=["the next user's", "own user's", "own analysis's"],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_numbers_of_items_are_ids_only_in_their_own_row(
    app: Database, tmp_path: Path, form: Any, number: str, problems: list[str]
) -> None:
    """Others are equal by chance: an article can have any number. Rated items of default tables are not refused."""
    item = f"'P' || ({number}) || '-' || id"
    with app.engine.begin() as connection:
        for statement in (
            "INSERT INTO recommendation_records (id, recommendation_id, conditions_analyzed) "
            f"SELECT id, {item}, '[]' FROM recommendation_feedbacks",
            f"UPDATE recommendation_feedbacks SET recommendation_id = id, product_ratings = json_object({item}, 4)",
        ):
            connection.exec_driver_sql(statement)
    exported(app, tmp_path / "exports", days_back=30, items="product_ratings", format=form)
    failed = find_failed(load_settings(database_url=app.url, output_dir=tmp_path / "exports"))
    detail = failed["raw ids"].detail if "raw ids" in failed else ""
    assert [name for name in ITEM_COLUMNS if f"in {name}" in detail] == problems


@pytest.mark.parametrize("user", [1_000_001, 1_000_002, 1_000_003])
def test_number_of_any_user_of_a_shared_analysis_is_found(app: Database, tmp_path: Path, user: int) -> None:
    """The pseudonym of the row is that of all of its users."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_feedbacks SET analysis_id = 1000101")
        connection.exec_driver_sql(f"UPDATE recommendation_records SET recommendation_id = 'rec-{user}'")
    exported(app, tmp_path / "exports", days_back=30)
    failed = find_failed(load_settings(database_url=app.url, output_dir=tmp_path / "exports"))
    assert "in recommendation_id" in failed["raw ids"].detail


def test_numbers_of_items_that_cannot_be_compared_are_not_called_ok(app: Database, tmp_path: Path) -> None:
    """Whose rows they are is not known."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recommendation_records SET recommendation_id = 'rec1000002'")
    exported(app, tmp_path / "exports", key=OTHER_KEY)
    detail = find_skipped(load_settings(database_url=app.url, output_dir=tmp_path / "exports"))["raw ids"].detail
    assert "Not tested: numbers in recommendation_id of" in detail
    assert "its key is not available" in detail


def test_longer_number_that_contains_an_id_passes(settings: Settings) -> None:
    """Ids are whole words or numbers."""
    rewrite(settings, {"recommendation_id": pl.lit("rec_91000002")})
    assert "raw ids" not in find_failed(settings)


def test_duplicate_rows_are_reported(settings: Settings) -> None:
    """In exports with exact times, where rows can be compared."""
    first = {name: pl.col(name).first() for name in ("analysis_hash", "recommendation_id", "feedback_timestamp")}
    rewrite(settings, first)
    assert "8 duplicate rows" in find_failed(settings)["duplicates"].detail


@pytest.mark.parametrize("key", [{"key": None, "unkeyed": True}, {"key": DEMO_KEY}], ids=["none", "published"])
def test_missing_and_published_keys_are_reported(app: Database, tmp_path: Path, key: dict[str, Any]) -> None:
    """Unkeyed exports, and those of the demo key."""
    exported(app, tmp_path, **key)
    failed = find_failed(load_settings(database_url=app.url, output_dir=tmp_path), keys=[DEMO_KEY])
    assert {"pseudonyms", "keys"} <= failed.keys()


def test_adopted_export_of_the_published_key_is_reported(app: Database, tmp_path: Path) -> None:
    """Even if its manifest names another key."""
    report = exported(app, tmp_path / "demo", key=DEMO_KEY)
    copy = tmp_path / "ours" / "old.csv"
    copy.parent.mkdir(mode=0o700)
    copy.write_bytes(Path(report.export_filename).read_bytes())
    adopt(copy, key=KEYS[0])
    failed = find_failed(load_settings(database_url=app.url, output_dir=copy.parent))
    assert "9 pseudonyms of the published demo key" in failed["pseudonyms"].detail
    assert failed["erasure"].detail == "old cannot be searched: its pseudonyms are of an unknown scheme."


@pytest.mark.parametrize("name", [".", ".feedback_etl", ".feedback_etl/audit.jsonl", RECORD])
def test_files_readable_by_others_are_reported(settings: Settings, name: str) -> None:
    """A file or a folder; the printed command removes the permission."""
    path = settings.output_dir / name
    path.chmod(path.stat().st_mode | 0o040)
    item = find_failed(settings)["modes"]
    subprocess.run(item.remedy, shell=True, check=True)
    assert "modes" not in find_failed(settings)


def test_retention_is_set_kept_and_longer_than_windows(settings: Settings, app: Database) -> None:
    """Windows that begin earlier would contradict it."""
    assert "retention_days" in find_failed(settings.model_copy(update={"retention_days": None}))["retention"].remedy
    late = NOW + timedelta(days=91)
    prune = f"feedback-etl prune --keep-days 90 {settings.output_dir}"
    assert find_failed(settings, now=late)["retention"].remedy == prune
    assert "longer than 20 days" in find_failed(settings.model_copy(update={"retention_days": 20}))["retention"].detail
    exported(app, settings.output_dir, days_back=-1)
    assert "longer than 90 days" in find_failed(settings)["retention"].detail


def test_missing_manifests_of_all_exports_are_reported(settings: Settings) -> None:
    """The log names them, so the folder is not one without exports."""
    for path in settings.output_dir.glob("*.manifest.json"):
        path.unlink()
    detail = find_failed(settings)["audit log"].detail
    assert "manifest.json is missing, and the log records that it was published" in detail


def test_link_in_the_place_of_a_data_file_is_reported(settings: Settings, tmp_path: Path) -> None:
    """Its target can change at any time, so that nothing is verified."""
    path = next(settings.output_dir.glob("*.csv"))
    path.rename(tmp_path / "elsewhere.csv")
    path.symlink_to(tmp_path / "elsewhere.csv")
    assert "changed: it does not match" in find_failed(settings)["contents"].detail
    (problem,) = verify_folder(settings.output_dir, KEYS, data=True).problems
    assert "symbolic link" in problem


def test_changed_log_is_reported(settings: Settings) -> None:
    """As `audit verify` reports it."""
    log = settings.output_dir / ".feedback_etl" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"started"', b'"startet"'))
    remedy = f"feedback-etl audit verify {settings.output_dir}"
    assert find_failed(settings)["audit log"].remedy.endswith(remedy)


def test_unavailable_key_is_reported(settings: Settings) -> None:
    """No one can be erased without it."""
    failed = find_failed(settings, keys=[Key(OTHER_KEY)])
    assert "is not available" in failed["erasure"].detail
    assert "is not available" in failed["consent"].detail  # consent cannot be compared either


def test_unmanaged_files_are_reported(settings: Settings) -> None:
    """An erasure does not reach them."""
    (settings.output_dir / "copy.csv").write_text("analysis_hash\n")
    (settings.output_dir / "copy.csv").chmod(0o600)
    assert "Unmanaged file: copy.csv" in find_failed(settings)["erasure"].detail


def test_other_files_below_the_folder_are_reported(settings: Settings) -> None:
    """No erasure searches them; the remedy is to move or remove them."""
    copy = settings.output_dir / "archive/copy.csv.bak"
    copy.parent.mkdir(mode=0o700)
    copy.touch(mode=0o600)
    item = find_failed(settings)["erasure"]
    assert "File outside all exports: archive/copy.csv.bak" in item.detail
    assert item.remedy.endswith(f"rm {copy}")
    copy.unlink()
    assert "erasure" not in find_failed(settings)


def test_empty_database_is_reported(settings: Settings, app: Database) -> None:
    """People who left the application can still be erased by a sweep."""
    app.clear()
    item = find_failed(settings)["erasure"]
    assert "all have left" in item.detail
    assert "if the key and the database are the right ones, replace the export" in item.remedy


@pytest.mark.sample("sqlite")
def test_missing_index_and_consent_columns_are_reported(database: Database, tmp_path: Path) -> None:
    """With another legal basis, consent columns are not needed."""
    settings = prepare_folder(fill_with_consent(database), tmp_path / "exports")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users DROP COLUMN training_data_opt_in")
        table = " ON recommendation_feedbacks" if database.engine.dialect.name == "mysql" else ""
        connection.exec_driver_sql(f"DROP INDEX ix_recommendation_feedbacks_created_at{table}")
    failed = find_failed(settings)
    assert failed.keys() == {"index", "consent"}
    assert failed["index"].remedy.startswith("CREATE INDEX")
    other = settings.model_copy(update={"legal_basis": "legitimate interests"})
    write_record(other)
    assert find_failed(other).keys() == {"index"}


def test_incomplete_outdated_and_missing_records_are_reported(settings: Settings) -> None:
    """The record of processing has to be complete and current."""
    path = settings.output_dir / RECORD
    assert "**Retention**: 90 days" in path.read_text()
    changed = settings.model_copy(update={"purpose": "something else"})
    remedy = f"feedback-etl check --write-record {settings.output_dir}"
    assert find_failed(changed)["record"].remedy == remedy
    lacking = settings.model_copy(update={"contact": None})
    assert "lacks contact" in find_failed(lacking)["record"].detail
    path.unlink()
    assert "is missing" in find_failed(settings)["record"].detail


def test_k_of_every_export_and_of_linked_exports_is_reported(settings: Settings, app: Database) -> None:
    """k is compared with the required one, and measured after linking exports by analysis_hash."""
    item = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}["k"]
    assert re.match(
        r"k of feedback_training_\d{8}_\d{6} is 3 for age_range, conditions_detected, timeframe; ", item.detail
    )
    assert "This k is of single rows, and none is required of linked ones" in item.detail
    assert "the smallest group has 9 of the analyses" in item.detail
    strict = settings.model_copy(update={"k": 4})
    assert " --k 4 " in find_failed(strict)["k"].remedy.splitlines()[-2]
    exported(app, settings.output_dir, now=NOW + timedelta(days=1), days_back=30)
    rewrite(settings, {"timeframe": pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("x")).otherwise("timeframe")})
    linked = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}["k"].detail
    assert "over 2 files, the smallest group has 1 of the analyses, and 11.1% of them are unique" in linked
    assert find_failed(strict)["k"].detail.count("and 4 is required") == 2


def test_k_after_an_erasure_is_measured_again(settings: Settings, app: Database) -> None:
    """The manifest contains the k before rows were removed."""
    required = settings.model_copy(update={"k": 3})
    assert "k" not in find_failed(required)
    erase(settings.output_dir, user_ids=[1000001], database=app.url, keys=KEYS)
    assert re.search(r" is 2 for .* since people were erased, and 3 is required", find_failed(required)["k"].detail)
    items = {item.name: item for item in check(settings.model_copy(update={"k": 2}), keys=KEYS, now=NOW)}
    assert items["k"].passed
    assert re.search(r" is 2 for .* since people were erased; 2 is required\.", items["k"].detail)


def test_l_and_t_after_an_erasure_are_not_called_tested(settings: Settings, app: Database) -> None:
    """They were measured before rows were removed."""
    folder = settings.output_dir / "diverse"
    exported(app, folder, k=2, l=1, t=1.0, key=KEYS[0].text)
    required = settings.model_copy(update={"k": 2, "output_dir": folder})
    items = {item.name: item for item in check(required, keys=KEYS, now=NOW)}
    assert items["k"].passed
    erase(folder, user_ids=[1000001], database=app.url, keys=KEYS)
    item = {item.name: item for item in check(required, keys=KEYS, now=NOW)}["k"]
    assert item.status == "skipped"
    assert "from which rows were erased, are not measured again" in item.detail
    assert "--l 1 --t 1.0" in item.remedy


def test_k_of_other_quasi_identifiers_is_reported(settings: Settings) -> None:
    """The settings determine the quasi-identifiers."""
    required = settings.model_copy(update={"k": 3, "quasi_identifiers": ("age_range", "recommendation_id")})
    assert "but age_range, recommendation_id may be known" in find_failed(required)["k"].detail


def test_withdrawn_people_in_exports_are_reported(settings: Settings, app: Database) -> None:
    """The sweep of the remedy removes their rows."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET training_data_opt_in = false WHERE id = 1000002")
    item = find_failed(settings)["consent"]
    assert ("3 analyses of people who have withdrawn" in item.detail, item.remedy) == (
        True,
        f"feedback-etl erase --not-in-database {settings.output_dir}",
    )
    erase(settings.output_dir, not_in_database=True, database=app.url, keys=KEYS)
    assert "consent" not in find_failed(settings)


def test_people_who_have_left_the_database_are_not_called_consenting(settings: Settings, app: Database) -> None:
    """Nothing is known of their consent; the sweep of the remedy removes their rows."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET training_data_opt_in = false WHERE id = 1000002")
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 1000002")
    item = find_skipped(settings)["consent"]
    assert "none of 6 exported analyses in the database is of anyone who has withdrawn. Not tested: " in item.detail
    assert "consent to 3 analyses in feedback_training_" in item.detail
    assert item.remedy == f"feedback-etl erase --not-in-database {settings.output_dir}"
    erase(settings.output_dir, not_in_database=True, database=app.url, keys=KEYS)
    assert "consent" not in {**find_failed(settings), **find_skipped(settings)}


def test_images_without_consent_are_reported(app: Database, tmp_path: Path) -> None:
    """No export may contain URLs of images whose users have withdrawn."""
    app.fill(photos=[{"id": 1, "s3_key": "a.jpg"}], analyses=[{"id": 1_000_101, "photo_id": 1}])
    with app.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN image_opt_in BOOLEAN DEFAULT true")
    exported(app, tmp_path, include_image_urls=True)
    settings = load_settings(database_url=app.url, output_dir=tmp_path)
    assert "images" not in find_failed(settings)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET image_opt_in = false")
    assert "images of 1 analyses whose users do not agree" in find_failed(settings)["images"].detail
    assert "its key is not available" in find_failed(settings, keys=[])["images"].detail


def test_changed_file_is_reported(settings: Settings) -> None:
    """One byte is enough."""
    path = next(settings.output_dir.glob("*.csv"))
    path.write_bytes(path.read_bytes().replace(b"rec_1", b"rec_2", 1))
    assert "it does not match its manifest" in find_failed(settings)["contents"].detail


@pytest.mark.parametrize("content", [b"", b"recommendation_id\nrec_1\n", bytes(range(256))])
def test_unreadable_file_is_an_error(settings: Settings, content: bytes) -> None:
    """The message is one sentence with its name."""
    next(settings.output_dir.glob("*.csv")).write_bytes(content)
    with pytest.raises(ExportFileError, match="cannot be read"):
        check(settings, keys=KEYS, now=NOW)


@pytest.mark.sample("sqlite-Article 6(1)(a) GDPR", "sqlite-CONSENT", "sqlite-Einwilligung (Art. 6 Abs. 1 lit. a)")
@pytest.mark.parametrize("basis", ["Article 6(1)(a) GDPR", "Einwilligung (Art. 6 Abs. 1 lit. a)", "CONSENT"])
def test_consent_is_recognised_as_legal_basis(database: Database, tmp_path: Path, basis: str) -> None:
    """In several wordings."""
    database.fill(**people(1))
    settings = load_settings(database_url=database.url, output_dir=tmp_path, legal_basis=basis)
    assert not next(item for item in check(settings) if item.name == "consent").passed


def test_narrow_age_ranges_are_refused_or_reported(app: Database, tmp_path: Path) -> None:
    """A range of a year or two is as good as an age."""
    with pytest.raises(UsageError, match="ranges of fewer than 5 years nearly reveal the age: 18-20"):
        exported(app, tmp_path, age_edges=[18, 20, 30])
    exported(app, tmp_path, age_edges=[18, 20, 30], min_age_range=2)
    assert (
        "fewer than 5 years: 18-20"
        in find_failed(load_settings(database_url=app.url, output_dir=tmp_path))["ages"].detail
    )


@pytest.mark.parametrize("form", [{"compression": "gzip"}, {"compression": "zstd"}, {"format": "parquet"}], ids=str)
def test_every_file_format_is_inspected(app: Database, tmp_path: Path, form: dict[str, Any]) -> None:
    """Also compressed files."""
    exported(app, tmp_path, key=None, unkeyed=True, **form)
    assert (
        "9 plain hashes" in find_failed(load_settings(database_url=app.url, output_dir=tmp_path))["pseudonyms"].detail
    )


class TestCommand:
    """The command `feedback-etl check`."""

    def test_missing_folder_is_wrong_usage(self) -> None:
        """One sentence, as from the other commands."""
        result = feedback_etl("check", "--output", "nowhere")
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("error: There is no folder nowhere: name the folder of the exports")

    def test_table_contains_remedies(self, settings: Settings) -> None:
        """The exit code is 1 if an item failed."""
        env = {"FEEDBACK_ETL_KEY": KEY, "FEEDBACK_ETL_RETENTION_DAYS": "90", "FEEDBACK_ETL_K": "3"}
        result = feedback_etl("check", "--output", settings.output_dir, env=env)
        lines = result.stdout.splitlines()
        assert lines[0] == "      Item        Result"
        assert lines[1].startswith("ok    columns     1 file with columns of the contract only.")
        assert "FAIL  record      The record of processing lacks controller," in result.stdout
        assert "skip  index       Not tested: no database is configured." in lines
        assert max(len(line) for line in lines if str(settings.output_dir) not in line) <= 80
        assert result.returncode == 1
        assert lines[-1] == "10 ok, 2 failed, 7 skipped"
        assert "error: 2 items of 19 failed: " in result.stderr

    def test_json_and_the_record_are_written(self, settings: Settings, app: Database) -> None:
        """With everything in the settings file."""
        given = {"database_url": app.url, "output_dir": str(settings.output_dir), "retention_days": 90, "k": 3}
        given |= RECORD_FIELDS
        text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in given.items())
        Path("feedback-etl.toml").write_text(text)
        (settings.output_dir / RECORD).unlink()
        result = feedback_etl("check", "--write-record", "--json", env={"FEEDBACK_ETL_KEY": KEY})
        items = {item["name"]: item["passed"] for item in json.loads(result.stdout)}
        failed = [name for name, passed in items.items() if not passed]
        assert (sorted(items), failed, result.returncode) == (sorted(NAMES), ["retention"], 1)  # the export is of 2025
