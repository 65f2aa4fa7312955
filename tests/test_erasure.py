"""Erasure: an erased person is in no file, and is not exported again."""

import contextlib
import os
import re
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, people, row_files, rows_of, visible
from processes import ProcessDied, die_after
from pseudonym_keys import KEY, OTHER_KEY

import feedback_etl as fe
from feedback_etl.errors import UsageError
from feedback_etl.exports.preconditions import TransactionOptions
from feedback_etl.exports.transaction import ExportTransaction
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_lines
from feedback_etl.records.catalog import list_manifests
from feedback_etl.storage.posix import hash_file
from feedback_etl.transform.expressions import hash_id

WRITING_FUNCTIONS = [(os, "fsync"), (os, "replace"), (Path, "replace"), (Path, "unlink")]


def pseudonym(analysis: int, key: str | None = KEY) -> str:
    expression = hash_id(pl.lit(analysis), key=key, domain="analysis_id", unkeyed=key is None)
    return str(pl.select(expression).item())


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Create an application of three users with four analyses each; one row of each user is rejected."""
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


def forget(database: Database, folder: Path, *users: int, **options: Any) -> Any:
    usual: dict[str, Any] = {"keys": [Key(KEY)], "user_ids": users, "database": database.url}
    return erase(folder, **usual | options)


def everything_in(folder: Path) -> bytes:
    """Return the content of all files, hidden ones included; data files are decompressed."""
    texts = []
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".csv", ".gz", ".zst", ".parquet", ".rows"):
            texts.append(rows_of(path).write_csv().encode())
        elif path.is_file():
            texts.append(path.read_bytes())
    return b"".join(texts)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_file_contains_an_erased_person(application: Database, tmp_path: Path, form: dict[str, Any]) -> None:
    """In any file format; other rows are unchanged and in their order."""
    folder = tmp_path / "exports"
    path = Path(exported(application, folder, **form).export_filename)
    before = rows_of(path)
    done = forget(application, folder, 2)
    assert (done.rows, done.not_found, done.without_key, done.unmanaged) == (4, [], [], [])
    assert len(done.files) == 2
    gone = [pseudonym(number) for number in (201, 202, 203, 204)]
    assert not any(pseudonym.encode() in everything_in(folder) for pseudonym in gone)
    if form["format"] == "parquet":
        assert not any(pseudonym.encode() in path.read_bytes() for pseudonym in gone)
    assert rows_of(path).equals(before.filter(~pl.col("analysis_hash").is_in(gone)))
    assert path.stat().st_mode & 0o777 == 0o600
    (manifest,) = list_manifests(folder)
    assert manifest.erased_rows == 4
    assert all(hash_file(folder / file.path) == file.sha256 for file in manifest.files)
    assert [file.rows for file in manifest.files] == [2, 6]


def test_other_rows_keep_their_bytes(application: Database, tmp_path: Path) -> None:
    """Every record of the new CSV file is a record of the old one, as it was."""
    path = Path(exported(application, tmp_path).export_filename)
    header, *records = re.split(rb"(?<=export_date\n)|(?<=T12:00:00\n)", path.read_bytes())
    gone = tuple(pseudonym(number).encode() for number in (201, 202, 203, 204))
    kept = [record for record in records if not record.startswith(gone)]
    assert len(kept) == len(records) - 3
    forget(application, tmp_path, 2)
    assert path.read_bytes() == header + b"".join(kept)


def test_repeated_erasure_changes_nothing(application: Database, tmp_path: Path) -> None:
    """People who are erased already are not reported as not found."""
    exported(application, tmp_path)
    forget(application, tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("feedback_training*") if path.is_file()}
    again = forget(application, tmp_path, 2)
    assert (again.rows, again.files, again.not_found) == (0, [], [])
    assert {path: path.read_bytes() for path in before} == before
    tombstones = (tmp_path / ".feedback_etl/tombstones.jsonl").read_text().splitlines()
    assert len(tombstones) == len({*tombstones}) == 5 + 1  # the seal
    assert forget(application, tmp_path, 2, 999).not_found == ["999"]


def test_dry_run_changes_nothing(application: Database, tmp_path: Path) -> None:
    """Its result equals that of the erasure except the digests of the new files and the head of the log."""
    exported(application, tmp_path)
    before = everything_in(tmp_path)
    dry = forget(application, tmp_path, 2, dry_run=True)
    assert everything_in(tmp_path) == before
    done = forget(application, tmp_path, 2)
    assert done.digests
    assert replace(done, digests={}, audit_head="") == replace(dry, audit_head="")
    assert dry.rows == 4


def test_analyses_are_erased_without_a_database(application: Database, tmp_path: Path) -> None:
    """Their ids are text or numbers."""
    exported(application, tmp_path)
    done = erase(tmp_path, analysis_ids=[201, "301", 999], keys=[Key(KEY)])
    assert (done.rows, done.not_found) == (2, ["999"])


def test_erased_people_are_not_exported_again(application: Database, tmp_path: Path) -> None:
    """Although the database still contains them, and also with new analyses."""
    exported(application, tmp_path)
    forget(application, tmp_path, 2)
    application.fill(
        feedbacks=[{"id": 299, "user_id": 2, "analysis_id": 299, "recommendation_id": 1, "helpful_rating": 5,
                    "created_at": NOW.replace(hour=1)}]
    )  # fmt: skip
    report = exported(application, tmp_path)
    assert (report.total_feedback_records, report.exported_records, report.erased_records) == (8, 6, 5)
    assert report.excluded_records == 0
    hashes = rows_of(Path(report.export_filename))["analysis_hash"].to_list()
    assert not {*hashes} & {pseudonym(number) for number in (201, 202, 203, 204, 299)}


def test_people_missing_from_the_database_are_swept(application: Database, tmp_path: Path) -> None:
    """Without naming them."""
    exported(application, tmp_path)
    with application.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 3")
    done = forget(application, tmp_path, not_in_database=True)
    assert (done.rows, done.not_found) == (4, [])
    assert pseudonym(301).encode() not in everything_in(tmp_path)
    assert pseudonym(101).encode() in everything_in(tmp_path)


def test_empty_database_erases_no_one(application: Database, tmp_path: Path) -> None:
    """It is probably the wrong one."""
    folder = tmp_path / "exports"
    exported(application, folder)
    before = everything_in(folder)
    application.clear()
    with pytest.raises(UsageError, match="everyone would be erased"):
        forget(application, folder, not_in_database=True)
    assert everything_in(folder) == before


def test_exports_of_all_given_keys_are_erased(application: Database, tmp_path: Path) -> None:
    """Unkeyed exports too; exports of unavailable keys are reported."""
    exported(application, tmp_path, key=None, unkeyed=True)
    exported(application, tmp_path, key=OTHER_KEY, allow_new_key=True)
    exported(application, tmp_path, allow_new_key=True)
    done = forget(application, tmp_path, 2)
    assert done.rows == 8
    assert done.without_key == ["feedback_training_20251025_120000_1"]
    assert pseudonym(201, None).encode() not in everything_in(tmp_path)
    assert pseudonym(201, OTHER_KEY).encode() in everything_in(tmp_path)
    done = forget(application, tmp_path, 2, keys=[Key(KEY), Key(OTHER_KEY)])
    assert (done.rows, done.without_key) == (4, [])
    assert pseudonym(201, OTHER_KEY).encode() not in everything_in(tmp_path)


def test_unmanaged_files_are_reported(application: Database, tmp_path: Path) -> None:
    """They are not changed."""
    path = Path(exported(application, tmp_path).export_filename)
    copy = path.with_name("copy.csv")
    copy.write_bytes(path.read_bytes())
    done = forget(application, tmp_path, 2)
    assert done.unmanaged == [copy]
    assert pseudonym(201).encode() in copy.read_bytes()


def test_all_other_files_below_the_folder_are_listed(application: Database, tmp_path: Path) -> None:
    """By any name: copies, backups, archives, links, pipes. The package's own files are not listed."""
    folder = tmp_path / "exports"
    path = Path(exported(application, folder, incremental=True).export_filename)
    forget(application, folder, 1)
    others = {
        "archive/copy.csv",
        f"{path.name}.bak",
        "notes.txt",
        ".hidden.csv",
        ".feedback_etl/copy.csv",
        f"{path.stem}/old.csv",
        "rejected/list.txt",
        "linked",
        f".{path.name}.tmp.orig",
        ".feedback_etl/audit/00000001.json",
        ".feedback_etl/tombstones/00000001.json",
        "croissant.json",
        "processing_record.md",
    }
    for name in others - {"linked"}:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.csv.gz.old")
    (folder / "copy.csv").write_bytes(path.read_bytes())
    result = forget(application, folder, 2)
    assert result.unmanaged == [folder / "copy.csv"]
    assert {*result.not_inspected} == others | {"pipe.csv.gz.old"}
    assert result.rows == 4


def test_hard_link_elsewhere_is_reported(application: Database, tmp_path: Path) -> None:
    """It keeps the rows; the next erasure cannot see it any more."""
    folder = tmp_path / "exports"
    path = Path(exported(application, folder).export_filename)
    os.link(path, tmp_path / "kept.csv")
    assert forget(application, folder, 1).hard_links == [path.name]
    assert len((tmp_path / "kept.csv").read_bytes()) > path.stat().st_size
    assert forget(application, folder, 2).hard_links == []


def test_files_of_a_running_export_are_its_own(application: Database, tmp_path: Path) -> None:
    """It excludes erased people when it is published."""
    folder = tmp_path / "exports"
    with ExportTransaction(folder, NOW, TransactionOptions(key=Key(KEY))):
        assert list(folder.glob(".feedback_training_*"))
        assert forget(application, folder, 2).not_inspected == []


@pytest.mark.parametrize("feedback_id", ["'abc", "=1", "-5", "'=1", "abc", "+'x"])
def test_rejected_row_without_analysis_is_erased_by_its_feedback_id(
    sqlite_database: Database, tmp_path: Path, feedback_id: str
) -> None:
    """With any first character: formulas are escaped in the list of rejected rows."""
    rows = people(3)
    sqlite_database.fill(**rows)
    folder = tmp_path / "exports"
    query = (
        "SELECT CASE WHEN f.id = 201 THEN :id ELSE 'f' || f.id END AS feedback_id, f.user_id, "
        "CASE WHEN f.id NOT IN (201, 301) THEN f.analysis_id END AS analysis_id, r.recommendation_id, "
        "f.helpful_rating, f.product_satisfaction, f.routine_completion_pct, f.would_recommend, f.timeframe, "
        "f.created_at, r.conditions_analyzed, r.rules_applied, p.age FROM recommendation_feedbacks f "
        "LEFT JOIN recommendation_records r ON r.id = f.recommendation_id LEFT JOIN profiles p ON p.user_id = f.user_id"
    ).replace(":id", "'" + feedback_id.replace("'", "''") + "'")
    report = exported(sqlite_database, folder, query=query)
    assert report.errors == 2
    result = forget(sqlite_database, folder, 2, query=query)
    assert result.rows == 3
    (rejected,) = rows_of(Path(report.rejected_filename)).rows()
    assert rejected[0] == "f301"


def test_seen_rows_without_analysis_are_erased(sqlite_database: Database, tmp_path: Path) -> None:
    """Their digests do not reveal whose they are: those of others are read, and rejected, again."""
    data = people(3)
    for row in data["feedbacks"]:
        row["analysis_id"] = None if row["id"] in (201, 301) else row["analysis_id"]
    sqlite_database.fill(**data)
    folder = tmp_path / "exports"
    exported(sqlite_database, folder, incremental=True, lookback="1d")
    (seen,) = (folder / ".feedback_etl").glob("*.rows")
    assert rows_of(seen)["analysis_hash"].null_count() == 2
    forget(sqlite_database, folder, 2)
    assert rows_of(seen)["analysis_hash"].null_count() == 0
    assert rows_of(seen).height == 10
    sqlite_database.fill(
        feedbacks=[{"id": 199, "user_id": 1, "analysis_id": 199, "recommendation_id": 1, "helpful_rating": 5,
                    "created_at": NOW}]
    )  # fmt: skip
    later = exported(sqlite_database, folder, incremental=True, lookback="1d", now=NOW + timedelta(seconds=1))
    assert (later.errors, later.exported_records) == (1, 1)


def test_concurrent_export_does_not_contain_erased_people(application: Database, tmp_path: Path) -> None:
    """It reads the rows before the erasure, and is published after it."""
    exported(application, tmp_path)
    read, erased = threading.Event(), threading.Event()

    def wait(_rows: int, _total: int) -> None:
        read.set()
        erased.wait(60)

    reports = []
    thread = threading.Thread(target=lambda: reports.append(exported(application, tmp_path, on_progress=wait)))
    thread.start()
    read.wait(60)
    forget(application, tmp_path, 2)
    erased.set()
    thread.join()
    assert Path(reports[0].export_filename).name == "feedback_training_20251025_120000_1.csv"
    assert pseudonym(201).encode() not in everything_in(tmp_path)
    assert pseudonym(101).encode() in Path(reports[0].export_filename).read_bytes()
    manifest = list_manifests(tmp_path)[1]
    assert all(hash_file(tmp_path / file.path) == file.sha256 for file in manifest.files)
    assert [file.rows for file in manifest.files] == [2, 6]


@pytest.mark.slow
def test_killed_erasure_is_resumed(application: Database, tmp_path: Path) -> None:
    """At every step: the repeated erasure gives the files of an uninterrupted one."""
    reference = tmp_path / "reference"
    exported(application, reference)
    forget(application, reference, 2)
    expected = {path.name: path.read_bytes() for path in row_files(reference)}
    steps = 0
    while True:
        folder = tmp_path / f"killed at {steps}"
        exported(application, folder)
        with die_after(steps, WRITING_FUNCTIONS) as has_survived, contextlib.suppress(ProcessDied):
            forget(application, folder, 2)
        forget(application, folder, 2)
        assert {path.name: path.read_bytes() for path in row_files(folder)} == expected
        (manifest,) = list_manifests(folder)
        assert (manifest.erased_rows, [file.becoming for file in manifest.files]) == (4, [{}, {}])
        assert all(hash_file(folder / file.path) == file.sha256 for file in manifest.files)
        assert not list(folder.rglob(".*.tmp"))
        assert verify_lines(AuditLog(folder).lines(), [Key(KEY)], {}).problems == []
        if has_survived():
            break
        steps += 1
    assert steps > 8


@pytest.mark.parametrize("wrong", [{}, {"user_ids": [1]}, {"not_in_database": True}])
def test_invalid_options_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """No people, or no database to look them up."""
    with pytest.raises(UsageError):
        erase(tmp_path, keys=[], **wrong)
    assert visible(tmp_path) == []


def test_log_contains_no_ids(application: Database, tmp_path: Path) -> None:
    """It records the number of people and rows."""
    exported(application, tmp_path)
    forget(application, tmp_path, 2)
    record = AuditLog(tmp_path).records()[-1]
    assert (record["event"], record["people"], record["rows"]) == ("erased", 1, 4)
    log = AuditLog(tmp_path).path.read_text()
    assert not any(pseudonym(number) in log for number in (201, 202, 203, 204))
    assert fe.__version__
