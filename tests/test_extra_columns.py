"""Columns that a query yields beside the canonical ones, once they are declared."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from databases import Database
from folders import FORMS, NOW, exported_from_url, people, rows_of
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from polars.testing import assert_frame_equal
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import SourceError, UsageError, ValidationError
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.transform.expressions import age_ranges
from feedback_etl.transform.row_schema import build_row_schema

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_schema"
CITY = ExtraColumn("city", "quasi_identifier")
COLUMNS = [
    CITY,
    ExtraColumn("visits", "sensitive", "integer"),
    ExtraColumn("weight", "sensitive", "number"),
    ExtraColumn("is_member", "insensitive", "boolean"),
    ExtraColumn("joined_at", "insensitive", "time"),
    ExtraColumn("device", "identifier"),
]
QUERY = """
SELECT f.id AS feedback_id, f.user_id, f.analysis_id, 'rec_1' AS recommendation_id, f.helpful_rating,
       f.product_satisfaction, f.routine_completion_pct, f.would_recommend, '[]' AS conditions_analyzed,
       '[]' AS rules_applied, f.timeframe, CAST(NULL AS INTEGER) AS age, f.created_at,
       CASE f.user_id WHEN 1 THEN 'Bern' WHEN 2 THEN '' ELSE 'Wien' END AS city, 10 * f.user_id AS visits,
       f.user_id / 2.0 AS weight, f.user_id > 1 AS is_member, f.created_at AS joined_at,
       CASE f.user_id WHEN 1 THEN 'd-1' WHEN 2 THEN 'd-2' ELSE 'd-3' END AS device
FROM recommendation_feedbacks f
"""


@pytest.fixture
def app(database: Database) -> Database:
    """Three users with three rows each."""
    database.fill(**people(3))
    return database


def own(app: Database, folder: Path, **options: Any) -> fe.ExportReport:
    """An export with all of them."""
    return exported_from_url(app, folder, **{"query": QUERY, "extra_columns": COLUMNS} | options)


@pytest.mark.any_database
def test_they_follow_the_twelve(app: Database, tmp_path: Path) -> None:
    """In their order, of their types; identifiers are pseudonymised under their own name."""
    rows = rows_of(Path(own(app, tmp_path).export_filename))
    assert rows.columns == [*CLASSIC_SCHEMA.training_columns, *(column.name for column in COLUMNS)]
    assert list_manifests(tmp_path)[0].columns == rows.columns
    frame = fe.load_training(app.url, days_back=-1, now=NOW, key=KEY, query=QUERY, extra_columns=COLUMNS)
    assert frame.schema["joined_at"] == pl.Datetime("us", "UTC")
    device = pl.select(fe.hash_id(pl.lit("d-1"), key=KEY, domain="device")).item()
    of_first = frame.filter(pl.col("visits") == 10).row(0, named=True)
    assert {name: of_first[name] for name in ("city", "visits", "weight", "is_member", "device")} == {
        **{"city": "Bern", "visits": 10, "weight": 0.5, "is_member": False, "device": device},
    }
    assert of_first["joined_at"] == of_first["feedback_timestamp"]
    assert set(frame["city"].to_list()) == {"Bern", None, "Wien"}


@pytest.mark.any_database
def test_quasi_identifiers_count_for_k(app: Database, tmp_path: Path) -> None:
    """Beside the usual ones."""
    report = own(app, tmp_path)
    assert (report.risk["k"], report.risk["classes"]) == (1, 3)
    assert report.risk["quasi_identifiers"][-1] == "city"
    with pytest.raises(ValidationError, match="fewer than 2 people"):
        own(app, tmp_path, k=2)
    assert own(app, tmp_path, k=2, extra_columns=[CITY._replace(role="insensitive"), *COLUMNS[1:]]).risk["k"] == 3


def test_zero_is_zero_whatever_its_sign(app: Database, tmp_path: Path) -> None:
    """Otherwise it would be another class, which is not counted."""
    query = QUERY.replace("f.user_id / 2.0", "CASE f.user_id WHEN 1 THEN -0.0 ELSE 0.0 END")
    columns = [CITY._replace(role="insensitive"), *COLUMNS[1:]]
    columns[2] = columns[2]._replace(role="quasi_identifier")
    rows = rows_of(Path(own(app, tmp_path, query=query, extra_columns=columns).export_filename))
    assert set(rows["weight"]) == {"0.0"}


@pytest.mark.any_database
def test_times_are_cut_down_too(app: Database) -> None:
    """With those of the feedback."""
    loaded = fe.load_training(
        app.url, days_back=-1, now=NOW, key=KEY, query=QUERY, extra_columns=COLUMNS, timestamp_precision="day"
    )
    assert loaded["joined_at"].dt.hour().sum() == 0


def test_what_is_not_declared_is_refused(app: Database, tmp_path: Path) -> None:
    """And what is declared has to be there, in a query."""
    with pytest.raises(SourceError, match="yields the unexpected device"):
        own(app, tmp_path, extra_columns=COLUMNS[:-1])
    with pytest.raises(SourceError, match="lacks plan"):
        own(app, tmp_path, extra_columns=[*COLUMNS, ExtraColumn("plan")])
    with pytest.raises(UsageError, match="The default tables have no column city"):
        exported_from_url(app, tmp_path, extra_columns=[CITY])


@pytest.mark.any_database
@pytest.mark.parametrize("name", ["age", "analysis_hash", "consent", "Über", "a b", ""])
def test_names_that_cannot_be(app: Database, tmp_path: Path, name: str) -> None:
    """Accepted names and refused ones."""
    with pytest.raises(UsageError, match="extra column"):
        own(app, tmp_path, extra_columns=[ExtraColumn(name)])


def test_values_that_do_not_fit_reject_their_rows(app: Database, tmp_path: Path) -> None:
    """With a reason that names the column and no value."""
    query = QUERY.replace("'Bern'", "'=1+1'").replace("f.user_id > 1 AS", "f.user_id - 1 AS")
    report = own(app, tmp_path, query=query, formulas="reject", max_rejected=1.0)
    assert report.rejected_reasons == {"formula": 3, "is_member_not_boolean": 3}


def test_a_type_that_cannot_be_meant(app: Database, tmp_path: Path) -> None:
    """The message names the column."""
    with pytest.raises(SourceError, match=r"city is .*, expected"):
        own(app, tmp_path, extra_columns=[CITY._replace(type="integer"), *COLUMNS[1:]])


@pytest.mark.any_database
def test_the_contract_has_them(app: Database, tmp_path: Path) -> None:
    """The JSON Schema of a row, in a Parquet file too."""
    report = own(app, tmp_path, format="parquet", age_edges=[30])
    contract = json.loads(pl.read_parquet_metadata(report.export_filename)["feedback_etl.contract"])
    assert contract == build_row_schema(CLASSIC_SCHEMA.with_options(COLUMNS, [30]))
    kinds = {name: contract["properties"][name]["type"][0] for name in ("city", "visits", "weight", "is_member")}
    assert kinds == {"city": "string", "visits": "integer", "weight": "number", "is_member": "boolean"}
    assert contract["properties"]["age_range"]["enum"] == ["<30", "30+", None]
    Draft202012Validator.check_schema(contract)


@pytest.mark.sample("mysql-{'format': 'csv'}", "postgresql-{'format': 'csv'}", "sqlite-{'format': 'parquet'}")
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_they_are_read_with_their_types(app: Database, tmp_path: Path, form: dict[str, Any]) -> None:
    """As `load_training` gives them, age ranges too; other ranges do not fit together unless one says so."""
    own(app, tmp_path, age_edges=[30], **form)
    loaded = fe.load_training(
        app.url, days_back=-1, now=NOW, key=KEY, query=QUERY, extra_columns=COLUMNS, age_edges=[30]
    )
    assert_frame_equal(fe.scan_training(tmp_path).collect(), loaded)
    own(app, tmp_path, **form)
    with pytest.raises(UsageError, match="2 age ranges"):
        fe.scan_training(tmp_path)
    assert fe.scan_training(tmp_path, mixed=True).collect().schema["age_range"] == pl.String


@pytest.mark.any_database
def test_people_are_erased_whatever_columns_there_are(app: Database, tmp_path: Path) -> None:
    """An erasure does not need to know them."""
    own(app, tmp_path)
    assert fe.privacy.erase(tmp_path, user_ids=[1], database=app.url, query=QUERY, keys=KEY).rows == 3


@pytest.mark.any_database
class TestAgeEdges:
    """Where age ranges begin is a setting."""

    @given(st.lists(st.integers(1, 130), min_size=1, max_size=6, unique=True).map(sorted), st.floats(0, 130))
    def test_each_age_is_in_one_range(self, edges: list[int], age: float) -> None:
        """Half-open, whatever the edges are."""
        found = pl.select(fe.bucket_age(pl.lit(age), edges=edges)).item()
        lows, highs = [0, *edges], [*edges, 131]
        number = next(n for n, (low, high) in enumerate(zip(lows, highs, strict=True)) if low <= age < high)
        assert found == age_ranges(edges).categories[number]

    @pytest.mark.parametrize("edges", [[], [0], [131], [18, 18], [25, 18], [18.5], [True]])
    def test_edges_that_cannot_be(self, sqlite_database: Database, tmp_path: Path, edges: list[Any]) -> None:
        """They rise, and are whole."""
        with pytest.raises(UsageError, match="age_edges must be ascending whole numbers from 1 to 130"):
            exported_from_url(sqlite_database, tmp_path, age_edges=edges)

    def test_they_are_kept_in_the_manifest(self, app: Database, tmp_path: Path) -> None:
        """A series with other ranges is another series."""
        exported_from_url(app, tmp_path, incremental=True, age_edges=[30])
        assert list_manifests(tmp_path)[0].settings["age_edges"] == [30]
        assert exported_from_url(app, tmp_path, incremental=True, new_series=True).exported_records == 9


def test_the_example_of_another_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its query and its settings file, from the command line, and as `risk` sees it."""
    for file in EXAMPLE.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("shop.db") as connection:
        connection.executescript(Path("shop.sql").read_text())
    connection.close()
    done = feedback_etl("export", "--days", "-1", "--json", env={"FEEDBACK_ETL_KEY": KEY})
    assert (done.returncode, done.stderr.splitlines()[1]) == (0, "excluded   1 without consent"), done.stderr
    report = json.loads(done.stdout)
    rows = pl.read_csv(report["export_filename"])
    assert rows.select("country", "channel", "age_range", "timeframe", "would_recommend").rows() == [
        ("DE", "mail", "30-45", "2_weeks", True),
        ("FR", "app", "45-60", "4_weeks", False),
    ]
    assert rows["feedback_timestamp"][0] == datetime(2025, 10, 20, 9, 30, tzinfo=UTC).replace(tzinfo=None).isoformat()
    found = json.loads(feedback_etl("risk", "--json", report["export_filename"]).stdout)
    assert (found["rows"], found["classes"]) == (2, 2)
    assert feedback_etl("preview", "--days", "-1").stdout.splitlines()[0].endswith(",country,channel")
