"""`check` tests what is there: everything passes when it is so, and each fault is found, with what mends it."""

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
from folders import KEY, NOW, exported, people
from processes import feedback_etl

from feedback_etl.compliance.check import check
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.record import RECORD, write_record
from feedback_etl.compliance.rows import GUESSED_IDS
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.adoption import adopt
from feedback_etl.exports.catalog import list_manifests, replace_manifest
from feedback_etl.exports.file_formats import FileFormat, RowWriter
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.settings import Settings, load_settings
from feedback_etl.storage.location import open_storage

KEYS = [Key(KEY)]
NAMES = [
    *("columns", "pseudonyms", "ages", "images", "contents", "keys", "duplicates", "modes", "retention"),
    *("audit log", "k"),
    *("raw ids", "erasure", "index", "consent", "record"),
]
SIZE = "feedback_etl.compliance.rows.GUESSED_IDS"
TOLD = {
    "controller": "Example Ltd",
    "contact": "privacy@example.com",
    "purpose": "to learn which recommendations help",
    "legal_basis": "consent (Article 6(1)(a))",
    "recipients": "none",
}


def filled(database: Database) -> Database:
    """Three users who agreed."""
    rows = people(3)
    for row in rows["feedbacks"]:
        row["user_id"] += 1_000_000
    database.fill(**rows, users=[{"id": 1_000_000 + user} for user in (1, 2, 3)])
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_in BOOLEAN DEFAULT true")
    return database


def prepared(app: Database, folder: Path) -> Settings:
    """Everything is as it should be."""
    exported(app, folder, days_back=30)
    found = load_settings(database_url=app.url, output_dir=folder, retention_days=90, **TOLD)
    write_record(found)
    return found


@pytest.fixture(autouse=True)
def few_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million ids take a second to hash, in every test."""
    monkeypatch.setattr(SIZE, 1_000)


@pytest.fixture
def app(sqlite_database: Database) -> Database:
    """The application."""
    return filled(sqlite_database)


@pytest.fixture
def settings(app: Database, tmp_path: Path) -> Settings:
    """With an export."""
    return prepared(app, tmp_path / "exports")


def faults(settings: Settings, keys: list[Key] = KEYS, now: datetime = NOW) -> dict[str, ChecklistItem]:
    """What failed."""
    items = check(settings, keys=keys, now=now)
    assert sorted(item.name for item in items) == sorted(NAMES)
    assert all(bool(item.remedy) is not item.passed for item in items)
    return {item.name: item for item in items if not item.passed}


def rewrite(settings: Settings, change: dict[str, Any]) -> None:
    """Give the newest export other rows, and a manifest that fits them."""
    manifest = list_manifests(settings.output_dir)[-1]
    file = manifest.files[0]
    path = settings.output_dir / file.path
    frame = pl.read_csv(path, infer_schema=False).with_columns(**change)
    with path.open("wb") as target:
        rows = RowWriter(target, FileFormat())
        rows.append(frame)
        rows.finish()
    file.rows, file.bytes, file.sha256 = frame.height, rows.written.bytes, rows.written.sha256
    replace_manifest(open_storage(settings.output_dir), manifest)


def test_everything_is_as_it_should_be(database: Database, tmp_path: Path) -> None:
    """On a folder that was just made, with a database that knows who agreed."""
    assert faults(prepared(filled(database), tmp_path / "exports")) == {}


def test_nothing_is_there(tmp_path: Path) -> None:
    """What could not be tested has not passed."""
    assert sorted(faults(load_settings(output_dir=tmp_path / "nothing"))) == sorted(NAMES)


CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a column more": ("columns", {"feedback_text": pl.lit("private")}, "has unknown columns feedback_text"),
    "a plain hash of an id": ("pseudonyms", {"analysis_hash": pl.lit("73475cb40a568e8d")}, "1 plain hashes"),
    "no pseudonym": ("pseudonyms", {"analysis_hash": pl.lit("1002")}, "1 values that are no pseudonyms"),
    "no analysis": ("pseudonyms", {"analysis_hash": pl.lit(None, pl.String)}, "9 rows without a pseudonym"),
    "an age": ("ages", {"age_range": pl.lit("25")}, "has ages that are no ranges"),
    "a URL": ("images", {"timeframe": pl.lit("https://example.com/a")}, "in timeframe"),
    "the name of an image": ("images", {"recommendation_id": pl.lit("photos/a.JPG")}, "in recommendation_id"),
    "a user's id": ("raw ids", {"recommendation_id": pl.lit("rec1000002")}, "in recommendation_id"),
    "a user's id with zeros": ("raw ids", {"timeframe": pl.lit("u_0001000002.x")}, "in timeframe"),
    "a user's id between others": ("raw ids", {"rules_applied": pl.lit("r1,user-1000003")}, "in rules_applied"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_files_must_not_hold(settings: Settings, what: str) -> None:
    """Found whoever put it there; the message tells the file and never the value."""
    name, change, told = CHANGES[what]
    rewrite(settings, change)
    found = faults(settings)
    assert told in found[name].detail
    assert found[name].remedy.startswith(f"rm {settings.output_dir}")
    assert not any(word in found[name].detail for word in ("private", "example.com", "1000002", "1000003", "JPG"))


def test_a_million_ids_are_guessed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of them, which the application does not have."""
    monkeypatch.setattr(SIZE, GUESSED_IDS)
    rewrite(settings, {"analysis_hash": pl.lit(hashlib.sha256(b"999999").hexdigest()[:16])})
    assert "1 plain hashes" in faults(settings)["pseudonyms"].detail


def test_other_identifiers_are_pseudonyms_too(app: Database, tmp_path: Path) -> None:
    """That of the user, where it was asked for."""
    folder = tmp_path / "exports"
    exported(app, folder, include_subject_hash=True)
    changed = load_settings(database_url=app.url, output_dir=folder)
    rewrite(changed, {"subject_hash": pl.lit("73475cb40a568e8d")})
    assert "1 plain hashes" in faults(changed)["pseudonyms"].detail


def test_remedy_for_ids_in_recommendations_names_an_option_that_exists(settings: Settings) -> None:
    """The recommendation can be pseudonymised as well."""
    rewrite(settings, {"recommendation_id": pl.lit("rec1000002")})
    remedy = faults(settings)["raw ids"].remedy
    assert remedy.endswith("feedback-etl export --hash-recommendation-id")
    assert "--hash-recommendation-id" in feedback_etl("export", "--help").stdout


def test_a_number_that_holds_an_id_is_none(settings: Settings) -> None:
    """Ids are words or numbers of their own."""
    rewrite(settings, {"recommendation_id": pl.lit("rec_91000002")})
    assert "raw ids" not in faults(settings)


def test_rows_that_are_there_twice(settings: Settings) -> None:
    """In exports with exact times."""
    first = {name: pl.col(name).first() for name in ("analysis_hash", "recommendation_id", "feedback_timestamp")}
    rewrite(settings, first)
    assert "8 duplicate rows" in faults(settings)["duplicates"].detail


@pytest.mark.parametrize("key", [{"key": None, "unkeyed": True}, {"key": DEMO_KEY}], ids=["none", "published"])
def test_keys_that_protect_nobody(app: Database, tmp_path: Path, key: dict[str, Any]) -> None:
    """None, or that of the demo."""
    exported(app, tmp_path, **key)
    found = faults(load_settings(database_url=app.url, output_dir=tmp_path), keys=[Key(DEMO_KEY)])
    assert {"pseudonyms", "keys"} <= found.keys()


def test_an_adopted_export_of_the_published_key(app: Database, tmp_path: Path) -> None:
    """Whatever key its manifest says."""
    report = exported(app, tmp_path / "demo", key=DEMO_KEY)
    copy = tmp_path / "ours" / "old.csv"
    copy.parent.mkdir(mode=0o700)
    copy.write_bytes(Path(report.export_filename).read_bytes())
    adopt(copy, key=KEYS[0])
    found = faults(load_settings(database_url=app.url, output_dir=copy.parent))
    assert "9 pseudonyms of the published demo key" in found["pseudonyms"].detail
    assert "its key is another one" in found["erasure"].detail


@pytest.mark.parametrize("name", [".", ".feedback_etl", ".feedback_etl/audit.jsonl", RECORD])
def test_what_others_can_read(settings: Settings, name: str) -> None:
    """A file or a folder; the command closes it."""
    path = settings.output_dir / name
    path.chmod(path.stat().st_mode | 0o040)
    item = faults(settings)["modes"]
    subprocess.run(item.remedy, shell=True, check=True)
    assert "modes" not in faults(settings)


def test_retention(settings: Settings, app: Database) -> None:
    """Set, obeyed, and not defeated by windows that reach further back."""
    assert "retention_days" in faults(settings.model_copy(update={"retention_days": None}))["retention"].remedy
    late = NOW + timedelta(days=91)
    assert faults(settings, now=late)["retention"].remedy == "feedback-etl prune --keep-days 90"
    assert "more than 20 days" in faults(settings.model_copy(update={"retention_days": 20}))["retention"].detail
    exported(app, settings.output_dir, days_back=-1)
    assert "more than 90 days" in faults(settings)["retention"].detail


def test_the_log_was_changed(settings: Settings) -> None:
    """As `audit verify` finds."""
    log = settings.output_dir / ".feedback_etl" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"started"', b'"startet"'))
    assert faults(settings)["audit log"].remedy == "feedback-etl audit verify"


def test_the_key_is_gone(settings: Settings) -> None:
    """Then nobody can be erased."""
    found = faults(settings, keys=[Key("z" * 32)])
    assert "is not available" in found["erasure"].detail
    assert "is not available" in found["consent"].detail  # whether somebody has withdrawn cannot be told


def test_foreign_files_are_out_of_reach(settings: Settings) -> None:
    """Of an erasure."""
    (settings.output_dir / "copy.csv").write_text("analysis_hash\n")
    (settings.output_dir / "copy.csv").chmod(0o600)
    assert "Unmanaged files: copy.csv" in faults(settings)["erasure"].detail


def test_nobody_is_in_the_database_any_more(settings: Settings, app: Database) -> None:
    """Whoever left the application can still be swept out."""
    app.clear()
    item = faults(settings)["erasure"]
    assert "all have left" in item.detail
    assert item.remedy.endswith("feedback-etl erase --not-in-database")


@pytest.mark.sample("sqlite")
def test_the_application(database: Database, tmp_path: Path) -> None:
    """No index, and nothing that records consent: or another legal basis."""
    settings = prepared(filled(database), tmp_path / "exports")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users DROP COLUMN training_data_opt_in")
        table = " ON recommendation_feedbacks" if database.engine.dialect.name == "mysql" else ""
        connection.exec_driver_sql(f"DROP INDEX ix_recommendation_feedbacks_created_at{table}")
    found = faults(settings)
    assert found.keys() == {"index", "consent"}
    assert found["index"].remedy.startswith("CREATE INDEX")
    other = settings.model_copy(update={"legal_basis": "legitimate interests"})
    write_record(other)
    assert faults(other).keys() == {"index"}


def test_the_record(settings: Settings) -> None:
    """Complete, and current."""
    path = settings.output_dir / RECORD
    assert "**Retention**: 90 days" in path.read_text()
    changed = settings.model_copy(update={"purpose": "something else"})
    assert faults(changed)["record"].remedy == "feedback-etl check --write-record"
    lacking = settings.model_copy(update={"contact": None})
    assert "lacks contact" in faults(lacking)["record"].detail
    path.unlink()
    assert "is missing" in faults(settings)["record"].detail


def test_k(settings: Settings, app: Database) -> None:
    """Of every export, against what is asked for, and what linking by analysis_hash makes of it."""
    found = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}["k"]
    assert re.match(
        r"k of feedback_training_\d{8}_\d{6} is 3 for age_range, conditions_detected, timeframe; ", found.detail
    )
    assert "equivalence classes have 9 analyses or more" in found.detail
    strict = settings.model_copy(update={"k": 4})
    assert faults(strict)["k"].remedy.endswith(".csv && feedback-etl export --k 4")
    exported(app, settings.output_dir, now=NOW + timedelta(days=1), days_back=30)
    rewrite(settings, {"timeframe": pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("x")).otherwise("timeframe")})
    linked = {item.name: item for item in check(settings, keys=KEYS, now=NOW)}["k"].detail
    assert "over 2 files, equivalence classes have 1 analyses or more, and 11.1% of the analyses are unique" in linked
    assert faults(strict)["k"].detail.count("and 4 is required") == 2


def test_k_after_an_erasure_is_not_known(settings: Settings, app: Database) -> None:
    """People are counted while rows are exported."""
    asked = settings.model_copy(update={"k": 3})
    assert "k" not in faults(asked)
    erase(settings.output_dir, user_ids=[1000001], database=app.url, keys=KEYS)
    assert "before people were erased, and 3 is required" in faults(asked)["k"].detail


def test_k_of_other_quasi_identifiers(settings: Settings) -> None:
    """Those of the settings count."""
    asked = settings.model_copy(update={"k": 3, "quasi_identifiers": ("age_range", "recommendation_id")})
    assert "but age_range, recommendation_id may be known" in faults(asked)["k"].detail


def test_who_has_withdrawn_is_in_no_export(settings: Settings, app: Database) -> None:
    """The sweep takes them out."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET training_data_opt_in = false WHERE id = 1000002")
    item = faults(settings)["consent"]
    assert ("3 analyses of people who have withdrawn" in item.detail, item.remedy) == (
        True,
        "feedback-etl erase --not-in-database",
    )
    erase(settings.output_dir, not_in_database=True, database=app.url, keys=KEYS)
    assert "consent" not in faults(settings)


def test_images_of_people_who_do_not_agree_any_more(app: Database, tmp_path: Path) -> None:
    """Their URLs are in no export."""
    app.fill(photos=[{"id": 1, "s3_key": "a.jpg"}], analyses=[{"id": 101, "photo_id": 1}])
    with app.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN image_opt_in BOOLEAN DEFAULT true")
    exported(app, tmp_path, include_image_urls=True)
    settings = load_settings(database_url=app.url, output_dir=tmp_path)
    assert "images" not in faults(settings)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET image_opt_in = false")
    assert "images of 1 analyses whose users do not agree" in faults(settings)["images"].detail
    assert "its key is not available" in faults(settings, keys=[])["images"].detail


def test_a_file_that_was_changed(settings: Settings) -> None:
    """By a byte."""
    path = next(settings.output_dir.glob("*.csv"))
    path.write_bytes(path.read_bytes().replace(b"rec_1", b"rec_2", 1))
    assert "does not match its manifest" in faults(settings)["contents"].detail


@pytest.mark.parametrize("content", [b"", b"recommendation_id\nrec_1\n", bytes(range(256))])
def test_a_file_that_is_none(settings: Settings, content: bytes) -> None:
    """One sentence with its name."""
    next(settings.output_dir.glob("*.csv")).write_bytes(content)
    with pytest.raises(ExportFileError, match="cannot be read"):
        check(settings, keys=KEYS, now=NOW)


@pytest.mark.sample("sqlite-Article 6(1)(a) GDPR", "sqlite-CONSENT", "sqlite-Einwilligung (Art. 6 Abs. 1 lit. a)")
@pytest.mark.parametrize("basis", ["Article 6(1)(a) GDPR", "Einwilligung (Art. 6 Abs. 1 lit. a)", "CONSENT"])
def test_a_legal_basis_that_is_consent(database: Database, tmp_path: Path, basis: str) -> None:
    """In other words too."""
    database.fill(**people(1))
    settings = load_settings(database_url=database.url, output_dir=tmp_path, legal_basis=basis)
    assert not next(item for item in check(settings) if item.name == "consent").passed


def test_ranges_that_are_ages(app: Database, tmp_path: Path) -> None:
    """A range of a year or two is one."""
    exported(app, tmp_path, age_edges=[18, 20, 30])
    assert (
        "fewer than 5 years: 18-20" in faults(load_settings(database_url=app.url, output_dir=tmp_path))["ages"].detail
    )


@pytest.mark.parametrize("form", [{"compression": "gzip"}, {"compression": "zstd"}, {"format": "parquet"}], ids=str)
def test_every_form_is_looked_into(app: Database, tmp_path: Path, form: dict[str, Any]) -> None:
    """Compressed or not."""
    exported(app, tmp_path, key=None, unkeyed=True, **form)
    assert "9 plain hashes" in faults(load_settings(database_url=app.url, output_dir=tmp_path))["pseudonyms"].detail


class TestCommand:
    """`feedback-etl check`."""

    def test_a_table_with_what_mends(self, settings: Settings) -> None:
        """Exit code 1 if something failed."""
        env = {"FEEDBACK_ETL_KEY": KEY, "FEEDBACK_ETL_RETENTION_DAYS": "90"}
        done = feedback_etl("check", "--output", settings.output_dir, env=env)
        lines = done.stdout.splitlines()
        assert lines[0].startswith("ok    columns     1 file with columns of the contract only.")
        assert "FAIL  record      The record of processing lacks controller, contact, purpose," in done.stdout
        assert done.returncode == 1
        assert "error: 6 items of 16 failed: " in done.stderr

    def test_as_json_and_the_record(self, settings: Settings, app: Database) -> None:
        """With everything in the settings file; one line for a machine."""
        given = {"database_url": app.url, "output_dir": str(settings.output_dir), "retention_days": 90, **TOLD}
        text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in given.items())
        Path("feedback-etl.toml").write_text(text)
        (settings.output_dir / RECORD).unlink()
        done = feedback_etl("check", "--write-record", "--json", env={"FEEDBACK_ETL_KEY": KEY})
        items = {item["name"]: item["passed"] for item in json.loads(done.stdout)}
        old = [name for name, passed in items.items() if not passed]
        assert (sorted(items), old, done.returncode) == (sorted(NAMES), ["retention"], 1)  # the export is of 2025
