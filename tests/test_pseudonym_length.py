"""Pseudonyms of 32 characters, for tables in which two ids could get the same one of 16."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, people, rows_of
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance import application as checks
from feedback_etl.compliance.application import check_collisions
from feedback_etl.compliance.check import check
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import hash_by_key
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.database.lookups import ApplicationSummary
from feedback_etl.errors import UsageError
from feedback_etl.exports.adoption import adopt
from feedback_etl.privacy.keys import Key
from feedback_etl.processor import FeedbackProcessor
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.catalog import list_manifests
from feedback_etl.settings.model import load_settings
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.expressions import hash_id

LONG: dict[str, Any] = {"pseudonym_length": 32}
FOLDER = Path("exports")


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Create an application of four users with three valid rows each."""
    sqlite_database.fill(**people(4))
    return sqlite_database


def pseudonyms(path: str | Path) -> set[str]:
    return {*rows_of(Path(path))["analysis_hash"]}


@pytest.mark.parametrize("form", FORMS)
def test_long_pseudonyms_begin_with_short_ones(application: Database, tmp_path: Path, form: dict[str, Any]) -> None:
    """32 characters of the same digest, in every format; the manifest says so."""
    short = pseudonyms(exported(application, tmp_path / "short", **form).export_filename)
    report = exported(application, tmp_path / "long", **form, **LONG)
    long = pseudonyms(report.export_filename)
    assert {len(pseudonym) for pseudonym in long} == {32}
    assert {pseudonym[:16] for pseudonym in long} == short
    (manifest,) = list_manifests(tmp_path / "long")
    assert (manifest.key_id, manifest.scheme) == (f"{Key(KEY).id}-32", "hmac-sha256, 32 hex")
    assert report.key_id == manifest.key_id


def test_setting_sets_the_length(application: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """For exports and for methods of a processor."""
    monkeypatch.setenv("FEEDBACK_ETL_PSEUDONYM_LENGTH", "32")
    processor = FeedbackProcessor(application.url, FOLDER, key=KEY)
    report = processor.process_and_export(days_back=-1)
    assert processor._hash_id(101) in pseudonyms(report.export_filename)
    assert len(processor._hash_id(101)) == 32


def test_command_line_sets_the_length(application: Database) -> None:
    """Another length, or a long one without a key, is wrong usage; the message names the option."""
    env = {"FEEDBACK_ETL_DATABASE_URL": application.url, "FEEDBACK_ETL_KEY": KEY}
    command = ["export", "--days", "-1", "--max-rejected", "0.5", "--output", str(FOLDER), "--pseudonym-length"]
    wrong = feedback_etl(*command, "20", env=env)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: The settings are invalid: --pseudonym-length should be a multiple of 16.\n",
    )
    unkeyed = feedback_etl(*command, "32", "--unkeyed", env=env)
    expected = "error: Unkeyed pseudonyms have 16 characters: leave --pseudonym-length out.\n"
    assert (unkeyed.returncode, unkeyed.stderr) == (2, expected)
    assert not FOLDER.exists()
    assert feedback_etl(*command, "32", env=env).returncode == 0
    assert list_manifests(FOLDER)[0].key_id == f"{Key(KEY).id}-32"


def test_key_object_has_a_length(application: Database) -> None:
    """Steps that are called one by one take it from the key."""
    key = Key(KEY, pseudonym_length=32)
    one = pl.select(hash_id(pl.lit(101), key=key, domain="analysis_id")).item()
    assert one in pseudonyms(exported(application, FOLDER, key=key).export_filename)
    with pytest.raises(UsageError, match="`pseudonym_length` must be one of 16, 32"):
        Key(KEY, pseudonym_length=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pseudonym_length": 20}, "must be one of 16, 32"),
        ({"pseudonym_length": 8}, "must be one of 16, 32"),
        ({"pseudonym_length": 32, "key": None, "unkeyed": True}, "Unkeyed pseudonyms have 16 characters"),
    ],
)
def test_other_lengths_are_refused(application: Database, options: dict[str, Any], message: str) -> None:
    """Nothing is written."""
    with pytest.raises(UsageError, match=message):
        exported(application, FOLDER, **options)
    assert not FOLDER.exists()


@pytest.mark.parametrize(("first", "second"), [({}, LONG), (LONG, {})])
def test_folder_of_the_other_length_is_refused(
    application: Database, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """As a second key is, and with the same option; readers do not mix them either."""
    exported(application, FOLDER, **first)
    with pytest.raises(UsageError, match="--allow-new-key"):
        exported(application, FOLDER, **second)
    exported(application, FOLDER, **second, allow_new_key=True)
    with pytest.raises(UsageError, match="2 keys"):
        fe.scan_training(FOLDER)


def test_people_are_erased_from_both_lengths(application: Database) -> None:
    """And stay away from later exports of either length."""
    exported(application, FOLDER)
    exported(application, FOLDER, **LONG, allow_new_key=True)
    result = fe.privacy.erase(FOLDER, user_ids=[2], database=application.url, keys=[KEY])
    assert (result.rows, result.files, result.without_key) == (6, result.files, [])
    assert len(result.files) == 2
    for options in ({}, LONG):
        report = exported(application, FOLDER, **options, allow_new_key=True)
        assert (report.exported_records, report.erased_records) == (9, 3)
    assert verify_folder(FOLDER, [Key(KEY)]).problems == []


def test_series_check_and_report_work(application: Database) -> None:
    """An incremental export finds nothing new; the checklist finds the people."""
    exported(application, FOLDER, incremental=True, **LONG)
    assert exported(application, FOLDER, incremental=True, **LONG).total_feedback_records == 0
    settings = load_settings(database_url=application.url, output_dir=FOLDER)
    items = {item.name: item for item in check(settings, keys=[Key(KEY)], now=NOW)}
    for name in ("pseudonyms", "keys", "audit log", "erasure", "contents"):
        assert items[name].passed, items[name]
    fe.write_report("report.html", FOLDER, keys=KEY)
    assert fe.scan_training(FOLDER).collect().height == 12


def test_two_ids_with_one_pseudonym_are_reported(application: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has all ids: with one character instead of 16, some of twelve have the same; 32 would not."""
    settings = load_settings(database_url=application.url, output_dir=FOLDER)
    exported(application, FOLDER)

    def find() -> ChecklistItem:
        found = ApplicationSummary([], [str(user * 100 + n) for user in range(4) for n in range(3)], [], [], (), None)
        return check_collisions(
            CheckContext(
                storage=open_storage(FOLDER),
                remedies=Remedies(settings),
                exports=list_manifests(FOLDER),
                database=found,
                keys=[Key(KEY)],
            )
        )

    assert (find().status, find().detail) == ("ok", "12 analyses of the application have different pseudonyms.")
    monkeypatch.setattr(
        checks, "hash_by_key", lambda *args: {key: all_.str.slice(0, 1) for key, all_ in hash_by_key(*args).items()}
    )
    assert find().status == "failed"
    assert "analyses have the pseudonym of another one" in find().detail
    assert find().remedy.startswith("set pseudonym_length = 32\n")


def test_adopted_file_has_the_length_of_the_key(application: Database) -> None:
    """Erasure finds people in it."""
    file = exported(application, Path("other"), **LONG).export_filename
    FOLDER.mkdir(mode=0o700)
    (FOLDER / "old.csv").write_bytes(Path(file).read_bytes())
    adopt(
        FOLDER / "old.csv",
        key=Key(KEY, pseudonym_length=32),
        analyses=[u * 100 + n for u in range(5) for n in range(4)],
    )
    assert json.loads((FOLDER / "old.manifest.json").read_text())["scheme"] == "hmac-sha256, 32 hex"
    assert fe.privacy.erase(FOLDER, analysis_ids=[101], keys=[KEY]).rows == 1
