"""URLs of images are exported only on request, only of users who agreed, and never with an id of the row."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported_from_url, people, rows_of, visible
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import SourceError, UsageError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.model import IMAGE_URL

QUERY = """
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, r.recommendation_id, helpful_rating, product_satisfaction,
       routine_completion_pct, would_recommend, conditions_analyzed, rules_applied, timeframe,
       CAST(NULL AS INTEGER) AS age, created_at,
       CASE f.id WHEN 101 THEN 'shots/1.jpg' WHEN 102 THEN 'shots/7.jpg' ELSE 'shots/8.jpg' END AS image_url,
       f.user_id < 2 AS image_opt_in
FROM recommendation_feedbacks f LEFT JOIN recommendation_records r ON r.id = f.recommendation_id
"""


@pytest.fixture
def app(database: Database) -> Database:
    """Three users with an image for each of their analyses; only the first two have answered."""
    rows = people(3)
    keys = ["shots/a.jpg", "users/1/b.jpg", "shots/c-103.png", "shots/d.jpg", "shots/e.jpg", None]
    ids = [row["analysis_id"] for row in rows["feedbacks"]]
    database.fill(
        **rows,
        users=[{"id": user} for user in (1, 2, 3)],
        photos=[{"id": number, "s3_key": key} for number, key in enumerate(keys, 1)],
        analyses=[{"id": id_, "photo_id": number} for number, id_ in enumerate(ids[: len(keys)], 1)],
    )
    return database


def agree(database: Database, table: str = "users", **answers: str) -> None:
    """Record whose images may be used."""
    column = {"users": "id", "profiles": "user_id"}[table]
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN image_opt_in BOOLEAN")
        for user, answer in answers.items():
            connection.exec_driver_sql(f"UPDATE {table} SET image_opt_in = {answer} WHERE {column} = {user[1:]}")


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_of_those_who_agreed(app: Database, tmp_path: Path, form: dict[str, str]) -> None:
    """A thirteenth column in every form; URLs that hold the user's or the analysis's id are left out and counted."""
    agree(app, u1="true", u2="false")
    report = exported_from_url(app, tmp_path, include_image_urls=True, **form)
    rows = rows_of(Path(report.export_filename))
    assert rows.columns == [*CLASSIC_SCHEMA.training_columns, "image_url"]
    assert (rows["image_url"].drop_nulls().to_list(), report.withheld_image_urls) == (["shots/a.jpg"], 2)
    manifest = list_manifests(tmp_path)[0]
    assert (manifest.columns, manifest.statistics["withheld_image_urls"]) == (rows.columns, 2)
    loaded = fe.load_training(app.url, days_back=-1, now=NOW, key=KEY, include_image_urls=True)
    assert loaded["image_url"].to_list() == rows["image_url"].to_list()


@pytest.mark.any_database
def test_images_are_not_read_without_the_option(app: Database, tmp_path: Path) -> None:
    """Without the option there is no such column, and no photo is read."""
    agree(app, u1="true", u2="true")
    report = exported_from_url(app, tmp_path)
    assert rows_of(Path(report.export_filename)).columns == list(CLASSIC_SCHEMA.training_columns)
    assert report.withheld_image_urls == 0


def test_missing_consent_column_is_reported(app: Database, tmp_path: Path) -> None:
    """Then no one has consented."""
    with pytest.raises(SourceError, match="Neither users nor profiles has the column image_opt_in"):
        exported_from_url(app, tmp_path / "exports", include_image_urls=True)
    assert visible(tmp_path) in ([], ["app.db"], ["application.db"])


def test_of_several_profiles_one_that_refuses_is_enough(app: Database, tmp_path: Path) -> None:
    """As for consent."""
    app.fill(profiles=[{"id": 1, "user_id": 1}, {"id": 2, "user_id": 2}, {"id": 3, "user_id": 2}], users=[])
    agree(app, "profiles", u1="true")
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE profiles SET image_opt_in = true WHERE id = 2")
    report = exported_from_url(app, tmp_path, include_image_urls=True)
    assert rows_of(Path(report.export_filename))["image_url"].drop_nulls().to_list() == ["shots/a.jpg"]


def test_of_an_own_query(app: Database, tmp_path: Path) -> None:
    """It yields the URL and the consent; without the option, neither is expected."""
    report = exported_from_url(app, tmp_path, include_image_urls=True, query=QUERY)
    urls = rows_of(Path(report.export_filename))["image_url"].drop_nulls().sort().to_list()
    assert urls == ["shots/7.jpg", "shots/8.jpg"]
    with pytest.raises(SourceError, match="yields the unexpected image_url, image_opt_in"):
        exported_from_url(app, tmp_path, query=QUERY)
    with pytest.raises(SourceError, match="lacks image_opt_in"):
        exported_from_url(app, tmp_path, include_image_urls=True, query=QUERY.replace("image_opt_in", "consent"))
    assert fe.privacy.erase(tmp_path, user_ids=[1], database=app.url, query=QUERY, keys=[Key(KEY)]).rows == 3


@pytest.mark.any_database
def test_the_contract_in_a_parquet_file_has_it(app: Database, tmp_path: Path) -> None:
    """As one more property of a row."""
    agree(app, u1="true")
    report = exported_from_url(app, tmp_path, include_image_urls=True, format="parquet")
    contract = json.loads(pl.read_parquet_metadata(report.export_filename)["feedback_etl.contract"])
    assert contract["properties"]["image_url"]["type"] == ["string", "null"]
    assert contract["required"][-1] == "image_url"


@pytest.mark.any_database
def test_a_url_that_spreadsheets_would_run_rejects_its_row(app: Database, tmp_path: Path) -> None:
    """As any other text, where formulas are to be rejected; else it is escaped."""
    agree(app, u1="true")
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE photos SET s3_key = '=x+y' WHERE id = 1")
    report = exported_from_url(app, tmp_path / "rejected", include_image_urls=True, formulas="reject")
    assert report.rejected_reasons == {"formula": 1}
    report = exported_from_url(app, tmp_path / "escaped", include_image_urls=True)
    assert (report.rejected_reasons, report.escaped_texts["image_url"]) == ({}, 1)


@pytest.mark.any_database
def test_it_may_be_a_quasi_identifier(app: Database, tmp_path: Path) -> None:
    """If it is exported; otherwise there is no such column."""
    agree(app, u1="true")
    with pytest.raises(UsageError, match="not image_url"):
        exported_from_url(app, tmp_path, quasi_identifiers=["image_url"])
    report = exported_from_url(app, tmp_path, include_image_urls=True, quasi_identifiers=["image_url"])
    assert report.risk["classes"] == 2


@pytest.mark.any_database
def test_series_with_images_is_another_series(app: Database, tmp_path: Path) -> None:
    """Its files have another column."""
    images: dict[str, Any] = {"incremental": True, "include_image_urls": True}
    agree(app, u1="true")
    assert exported_from_url(app, tmp_path, incremental=True).exported_records == 9
    assert exported_from_url(app, tmp_path, new_series=True, **images).exported_records == 9
    assert exported_from_url(app, tmp_path, **images).exported_records == 0


def test_the_gate_knows_the_column() -> None:
    """Only on request."""
    raw = pl.DataFrame({name: [None] for name in CLASSIC_SCHEMA.raw_columns} | {"image_url": ["shots/a.jpg"]})
    pairs = fe.anonymize(raw, unkeyed=True, now=NOW, extra_columns=[IMAGE_URL])
    assert pairs["image_url"].to_list() == ["shots/a.jpg"]
    with pytest.raises(ValidationError, match="image_url"):
        fe.validate(pairs)


@pytest.mark.parametrize(
    ("key", "user"),
    [
        ("p/000123456/a.jpg", 123456),
        ("p/%31%32%33456.jpg", 123456),
        ("p/0B9F7C1E0D3C4A528F5E6F1B9D6E7A11.png", "0b9f7c1e-0d3c-4a52-8f5e-6f1b9d6e7a11"),
        ("p/x0b9f7c1e_0d3c_4a52_8f5e_6f1b9d6e7a11", "0b9f7c1e-0d3c-4a52-8f5e-6f1b9d6e7a11"),
    ],
)
def test_ids_in_other_clothes(key: str, user: object) -> None:
    """Leading zeros, digits of a URL, UUIDs with other separators or none."""
    raw = pl.DataFrame({name: [None] for name in CLASSIC_SCHEMA.raw_columns} | {"image_url": [key], "user_id": [user]})
    assert fe.anonymize(raw, unkeyed=True, now=NOW, extra_columns=[IMAGE_URL])["image_url"].to_list() == [None]


@pytest.mark.any_database
@pytest.mark.parametrize("option", ["--include-image-urls", "--include-subject-hash"])
def test_images_and_pseudonyms_of_users_are_not_shared(app: Database, option: str) -> None:
    """Nor do pseudonyms of users."""
    done = feedback_etl(
        *("export", "--share", "--recipient", "acme", "--output", "shared", option, "--database-url", app.url),
        env={"FEEDBACK_ETL_KEY": KEY},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Shared data must not contain images or pseudonyms of users" in done.stderr
