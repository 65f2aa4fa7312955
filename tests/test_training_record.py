"""Models are recorded with the exports they were trained on, and an erasure lists those it concerns."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy
from databases import Database
from folders import NOW, exported, people
from pseudonym_keys import KEY
from typer.testing import CliRunner

from feedback_etl.cli.app import app
from feedback_etl.errors import ExportFileError, KeyMissingError, UsageError
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.erasure_receipt import write_receipt
from feedback_etl.privacy.keys import Key
from feedback_etl.records.audit import AuditLog
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.storage.posix import hash_file
from feedback_etl.training import open_dataset, record_training


@pytest.fixture
def application(sqlite_database: Database) -> Database:
    """Create an application of three users with four analyses each."""
    sqlite_database.fill(**people(3, each=4))
    return sqlite_database


def test_record_is_signed_and_contains_the_fingerprint(application: Database, tmp_path: Path) -> None:
    """The folder verifies with it."""
    exported(application, tmp_path)
    dataset = open_dataset(tmp_path)
    assert record_training(tmp_path, model="ranker:7", dataset=dataset, key=KEY) == dataset.fingerprint
    record = AuditLog(tmp_path).records()[-1]
    assert (record["event"], record["model"], record["fingerprint"]) == ("trained", "ranker:7", dataset.fingerprint)
    assert record["trained_on"] == [dataset.exports[0].manifest.stem]
    result = verify_folder(open_dataset(tmp_path).exports[0].storage, [Key(KEY)])
    assert (result.problems, result.is_protected) == ([], True)


def test_mlflow_line_of_the_documentation_stores_the_fingerprint(application: Database, tmp_path: Path) -> None:
    """A stand-in for MLflow, which is large, takes the tag."""
    exported(application, tmp_path)
    dataset, mlflow = open_dataset(tmp_path), Mock(spec=["set_tag"])
    (line,) = re.findall(r"`(mlflow\..*?)`", (Path(__file__).parents[1] / "docs/training.md").read_text())
    exec(line, {"mlflow": mlflow, "dataset": dataset})
    mlflow.set_tag.assert_called_once_with("feedback_etl.fingerprint", dataset.fingerprint)


def test_erasure_lists_models_of_the_exports_it_changes(application: Database, tmp_path: Path) -> None:
    """Each once; not those of other exports or of exports without rows of the person; also in a dry run."""
    first = exported(application, tmp_path)
    alone = open_dataset(first.export_filename)
    with application.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM recommendation_feedbacks WHERE user_id = 2"))
    exported(application, tmp_path, now=NOW + timedelta(hours=1))
    both, empty = open_dataset(tmp_path), open_dataset(tmp_path)
    (stem,) = (export.manifest.stem for export in alone.exports)
    empty = empty._replace(exports=tuple(export for export in empty.exports if export.manifest.stem != stem))
    for model, dataset in {"a": alone, "b": both, "c": empty}.items():
        record_training(tmp_path, model=model, dataset=dataset, key=KEY)
    record_training(tmp_path, model="a", dataset=both, key=KEY)
    options: dict[str, Any] = {"keys": [KEY], "analysis_ids": [201, 202, 203, 204]}
    assert erase(tmp_path, dry_run=True, **options).models == ["a", "b"]
    before = both.fingerprint
    assert erase(tmp_path, **options).models == ["a", "b"]
    assert open_dataset(tmp_path).fingerprint != before
    assert erase(tmp_path, **options).models == []


def test_receipt_has_counts_digests_and_audit_head(application: Database, tmp_path: Path) -> None:
    """No id, no pseudonym; only its owner can read it."""
    folder, receipt = tmp_path / "exports", tmp_path / "receipt.json"
    exported(application, folder)
    record_training(folder, model="ranker:7", dataset=open_dataset(folder), key=KEY)
    (tmp_path / "ids").write_text("2\n")
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    arguments = ["erase", "--user-ids-file", str(tmp_path / "ids"), "--output", str(folder)]
    arguments += ["--key-file", str(tmp_path / "key"), "--database-url", application.url, "--receipt", str(receipt)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "still in the models: ranker:7" in done.output
    content = json.loads(receipt.read_text())
    assert receipt.stat().st_mode & 0o777 == 0o600
    assert content.pop("at").endswith("Z")
    files = content.pop("files")
    assert files == {name: hash_file(folder / name) for name in files}
    assert len(files) == 2
    assert content == {
        "rows": 4,
        "suppressed": 0,
        "ids_not_found": 0,
        "not_searched": {},
        "models": ["ranker:7"],
        "recipients": [],
        "audit_head": AuditLog(folder).head(),
    }
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, UsageError)
    assert "name another file" in str(again.exception)
    assert json.loads(receipt.read_text())["rows"] == 4


def test_receipt_says_what_was_not_searched(application: Database, tmp_path: Path) -> None:
    """A copy beside the exports may contain the person."""
    exported(application, tmp_path / "exports")
    (tmp_path / "exports" / "copy.csv").write_text("a\n")
    result = erase(tmp_path / "exports", user_ids=[2, 99], keys=[KEY], database=application.url)
    write_receipt(result, tmp_path / "receipt.json")
    content = json.loads((tmp_path / "receipt.json").read_text())
    assert content["ids_not_found"] == 1
    assert sum(content["not_searched"].values()) == 1


def test_dry_run_has_no_receipt_and_a_missing_folder_is_an_error(application: Database, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["erase", "--not-in-database", "--dry-run", "--receipt", "x"])
    assert isinstance(done.exception, UsageError | SystemExit)
    exported(application, tmp_path / "exports")
    result = erase(tmp_path / "exports", user_ids=[2], keys=[KEY], database=application.url)
    with pytest.raises(ExportFileError, match="Rows were erased"):
        write_receipt(result, tmp_path / "missing" / "receipt.json")


@pytest.mark.parametrize("model", ["", " ", "a" * 201, "a\nb", None, 7])
def test_models_without_a_name_are_refused(application: Database, tmp_path: Path, model: Any) -> None:
    exported(application, tmp_path)
    with pytest.raises(UsageError, match="`model` must be the name of a model"):
        record_training(tmp_path, model=model, dataset=open_dataset(tmp_path), key=KEY)


def test_other_folders_and_missing_keys_are_refused(application: Database, tmp_path: Path) -> None:
    exported(application, tmp_path / "one")
    exported(application, tmp_path / "two")
    dataset = open_dataset(tmp_path / "one")
    with pytest.raises(UsageError, match="contains no export of"):
        record_training(tmp_path / "two", model="a", dataset=dataset, key=KEY)
    with pytest.raises(KeyMissingError, match="is signed"):
        record_training(tmp_path / "one", model="a", dataset=dataset)
