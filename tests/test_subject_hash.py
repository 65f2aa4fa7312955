"""`--include-subject-hash`: a pseudonym of the user, to split data by person; erased and counted like all."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported, exported_from_url, people, rows_of
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.data_files.row_filter import list_pseudonyms
from feedback_etl.errors import ExportFileError, UsageError
from feedback_etl.exports.adoption import adopt
from feedback_etl.privacy.erasure_selection import map_pseudonyms
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.settings.model import load_settings


@pytest.fixture
def app(database: Database) -> Database:
    """Three users with three rows each, and one row without a user."""
    rows = people(3)
    rows["feedbacks"].append(rows["feedbacks"][0] | {"id": 1, "user_id": None, "analysis_id": 999})
    database.fill(**rows)
    return database


def subject(user: object, key: str | None = KEY) -> str:
    """The pseudonym of a user."""
    ids = pl.Series("id", [str(user)])
    return str(pl.select(fe.hash_id(pl.lit(ids), key=key, domain="subject_hash", unkeyed=key is None)).item())


@pytest.mark.any_database
def test_a_pseudonym_of_its_own_domain(app: Database, tmp_path: Path) -> None:
    """It equals no pseudonym of an analysis with the same id; without a user there is none."""
    report = exported_from_url(app, tmp_path, include_subject_hash=True)
    rows = rows_of(Path(report.export_filename))
    assert rows.columns == [*CLASSIC_SCHEMA.training_columns, "subject_hash"]
    counts = dict(rows["subject_hash"].value_counts().iter_rows())
    assert counts == {subject(1): 3, subject(2): 3, subject(3): 3, None: 1}
    assert pl.select(fe.hash_id(pl.lit(1), key=KEY, domain="analysis_id")).item() != subject(1)
    loaded = fe.load_training(app.url, days_back=-1, now=NOW, key=KEY, include_subject_hash=True)
    assert loaded["subject_hash"].to_list() == rows["subject_hash"].to_list()


@pytest.mark.sample(
    "postgresql-{'format': 'csv'}",
    "sqlite-{'format': 'csv'}",
    "sqlite-{'format': 'parquet'}",
)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_person_is_erased_by_it(app: Database, tmp_path: Path, form: dict[str, Any]) -> None:
    """Also when the database has forgotten what was theirs."""
    exported_from_url(app, tmp_path, include_subject_hash=True, **form)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 2")
    dry = fe.privacy.erase(tmp_path, user_ids=[2], database=app.url, keys=KEY, dry_run=True)
    done = fe.privacy.erase(tmp_path, user_ids=[2], database=app.url, keys=KEY)
    assert (dry.rows, done.rows, done.not_found) == (3, 3, [])
    rows = rows_of(tmp_path / str(list_manifests(tmp_path)[0].files[0].path))
    assert (rows.height, subject(2) in rows["subject_hash"]) == (7, False)
    assert fe.privacy.erase(tmp_path, user_ids=[2], database=app.url, keys=KEY).rows == 0


@pytest.mark.parametrize("form", [{}, {"k": 2, "incremental": True}], ids=["full", "series"])
def test_erasure_uses_the_analyses_that_another_file_names(
    sqlite_database: Database, tmp_path: Path, form: dict[str, Any]
) -> None:
    """In files without the column, in lists of rejected rows and in the state of a series; no copy is adopted later."""
    rows = people(3, each=4)
    for row in rows["feedbacks"]:
        row["analysis_id"] -= row["id"] % 100 == 4  # a rejected row of an analysis with a pair
    database = sqlite_database
    database.fill(**rows)
    exported(database, tmp_path, include_subject_hash=True)
    other = exported(database, tmp_path, **form)
    copy = Path(other.export_filename).read_bytes()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 2")
    erased = fe.privacy.erase(tmp_path, user_ids=[2], database=database.url, keys=KEY)
    assert (erased.rows, erased.not_found) == (8, [])
    gone = {*map_pseudonyms(["201", "202", "203"], Key(KEY))}
    files = [file.path for manifest in list_manifests(tmp_path) for file in manifest.files]
    kinds = {file.kind for manifest in list_manifests(tmp_path) for file in manifest.files}
    assert kinds == {"pairs", "rejected"} | ({"rows", "members"} if form else set())
    assert [path for path in files if list_pseudonyms(tmp_path / path, path) & gone] == []
    (tmp_path / "old.csv").write_bytes(copy)
    with pytest.raises(ExportFileError, match="contains 3 pseudonyms of people who were erased"):
        adopt(tmp_path / "old.csv", key=Key(KEY))


@pytest.mark.any_database
def test_erasing_without_the_column_finds_no_one_else(app: Database, tmp_path: Path) -> None:
    """Missing ids are reported, as before."""
    exported_from_url(app, tmp_path)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM recommendation_feedbacks WHERE user_id = 2")
    assert fe.privacy.erase(tmp_path, user_ids=[2], database=app.url, keys=KEY).not_found == ["2"]


@pytest.mark.sample("sqlite")
def test_risk_counts_people_by_it(app: Database, tmp_path: Path) -> None:
    """The command line takes it for the person, and the checklist for what links rows."""
    report = exported_from_url(app, tmp_path, include_subject_hash=True)
    found = json.loads(feedback_etl("risk", "--json", report.export_filename).stdout)
    assert (found["rows"], found["k"]) == (10, 4)
    settings = load_settings(database_url=app.url, output_dir=tmp_path, k=4)
    detail = {item.name: item for item in check(settings, keys=[Key(KEY)], now=NOW)}["k"].detail
    assert "linked by subject_hash over 1 file, the smallest group has 4 of the people" in detail


def test_its_name_is_taken(app: Database, tmp_path: Path) -> None:
    """No column of a query may pretend to be it."""
    with pytest.raises(UsageError, match="cannot be called subject_hash"):
        exported_from_url(app, tmp_path, extra_columns=[ExtraColumn("subject_hash", "identifier")], query="SELECT 1")
