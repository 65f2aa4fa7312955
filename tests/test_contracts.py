"""The published contracts equal the code, and other programs can use them."""

import csv
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from databases import Database, fill, make_engine
from processes import Here

from feedback_etl.database import tables
from feedback_etl.pipeline.export import export_feedback
from feedback_etl.report.contracts import EXAMPLES, build_contracts, write_contracts
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import IMAGE_URL, SUBJECT_HASH
from feedback_etl.transform.row_schema import build_row_schema

KINDS = ("mysql", "postgresql", "sqlite")
SCHEMAS = Path(__file__).parent.parent / "schemas"
WRITTEN_BY_HAND = {"custom_model.py", "reader.postgresql.sql"}
NOW = datetime(2025, 10, 25, 12)
ROW: dict[str, Any] = {
    "analysis_hash": "8f1c5a7d2e9b3c41",
    "recommendation_id": "rec_20251025_001",
    "helpful_rating": 5,
    "product_satisfaction": 4,
    "routine_completion_pct": 80,
    "would_recommend": True,
    "conditions_detected": "acne,oily_skin",
    "rules_applied": "r001,r002",
    "timeframe": "2_weeks",
    "age_range": "25-35",
    "feedback_timestamp": "2025-10-25T10:00:00",
    "export_date": "2025-10-25T12:00:00",
}
FEEDBACK: dict[str, Any] = {
    "user_id": 7,
    "analysis_id": 42,
    "recommendation_id": 1,
    "created_at": datetime(2025, 10, 25, 10),
}
RECORDS = [
    {"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne", 'say "hi"'], "rules_applied": ["r\u00e9"]}
]


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs command lines in this process."""
    return Here(capfd, monkeypatch)


def accepts(row: dict[str, Any]) -> bool:
    """Return whether a row is valid by the JSON Schema."""
    return bool(jsonschema.Draft202012Validator(build_row_schema()).is_valid(row))


def read_rows(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file with the types of the JSON Schema; an empty field is null."""
    properties = build_row_schema()["properties"]
    with Path(path).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: parse_field(text, properties[name].get("type", "string")) for name, text in row.items()}


def parse_field(text: str, kind: str | list[str]) -> Any:
    if text == "":
        return None
    if "integer" in kind:
        return int(text)
    return {"True": True, "False": False}[text] if "boolean" in kind else text


class TestFiles:
    """The files in `schemas/`."""

    def test_published_files_are_current(self) -> None:
        """After a change of the models, run `make schemas`."""
        generated = {path.name: path for path in SCHEMAS.iterdir() if path.name not in WRITTEN_BY_HAND}
        assert {name: path.read_text(encoding="utf-8") for name, path in generated.items()} == build_contracts()

    def test_there_is_one_file_per_contract(self) -> None:
        """One for rows, one for each kind of item rows, and one for each kind of database."""
        rows = ("training_pair.schema.json", "items.product_ratings.schema.json")
        assert set(build_contracts()) == {*rows, *(f"source.{kind}.sql" for kind in KINDS)}

    def test_command_writes_all_files(self, here: Here, tmp_path: Path) -> None:
        """`make schemas` runs it; the default folder is `schemas`, and it prints the paths."""
        for folder, arguments in (
            (tmp_path / "some" / "folder", ["-o", str(tmp_path / "some" / "folder")]),
            (Path("schemas"), []),
        ):
            ended = here("contracts", *arguments)
            assert (ended.code, ended.err) == (0, "")
            assert {*map(Path, ended.out.splitlines())} == {*folder.iterdir()}
            examples = {name: (SCHEMAS / name).read_text(encoding="utf-8") for name in EXAMPLES}
            written = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
            assert written == build_contracts() | examples
            assert {path.name for path in SCHEMAS.iterdir()} == {*written}
        assert "feedback-etl contracts -o schemas\n" in (SCHEMAS.parent / "Makefile").read_text(encoding="utf-8")

    def test_row_schema_depends_on_the_settings(self, here: Here) -> None:
        """With extra columns and other age ranges, it stays a valid schema and accepts such rows."""
        Path("feedback-etl.toml").write_text(
            "age_edges = [40]\n[columns.country]\nrole = 'quasi_identifier'\n[columns.points]\nrole = 'sensitive'\n"
            "type = 'integer'\n"
        )
        assert here("contracts").code == 0
        schema = json.loads(Path("schemas/training_pair.schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        row = ROW | {"age_range": "<40", "country": "CA", "points": 7}
        assert validator.is_valid(row)
        assert not validator.is_valid(ROW | {"country": "CA", "points": 7})
        assert not validator.is_valid(row | {"points": 7.5})
        assert not validator.is_valid({name: value for name, value in row.items() if name != "country"})

    def test_row_schema_has_the_optional_columns(self, here: Here) -> None:
        """Their options are those of `export`; without them such a row is invalid."""
        row = ROW | {"image_url": None, "subject_hash": "0123456789abcdef"}
        for options, is_valid in (["--include-image-urls", "--include-subject-hash"], True), ([], False):
            assert here("contracts", *options).code == 0
            schema = json.loads(Path("schemas/training_pair.schema.json").read_text(encoding="utf-8"))
            assert jsonschema.Draft202012Validator(schema).is_valid(row) == is_valid

    def test_write_error_is_reported(self, here: Here) -> None:
        """A file has the name of the folder."""
        Path("schemas").write_text("")
        ended = here("contracts")
        assert (ended.code, ended.out) == (5, "")
        assert ended.err.startswith("error: Nothing was written to schemas: ")

    def test_existing_files_are_replaced(self, tmp_path: Path) -> None:
        """Generated files are never edited by hand."""
        (tmp_path / "training_pair.schema.json").write_text("old and much longer than nothing")
        write_contracts(tmp_path)
        assert json.loads((tmp_path / "training_pair.schema.json").read_text()) == build_row_schema()


class TestRowSchema:
    """The JSON Schema of a row."""

    def test_it_is_a_valid_json_schema(self) -> None:
        """Of the draft that it names."""
        jsonschema.Draft202012Validator.check_schema(build_row_schema())
        assert build_row_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def test_optional_columns_are_described(self) -> None:
        """The two built-in ones by their meaning, others by their role."""
        extra = [SUBJECT_HASH, IMAGE_URL, ExtraColumn("country", "quasi_identifier")]
        properties = build_row_schema(CLASSIC_SCHEMA.with_extra_columns(extra))["properties"]
        first_words = [properties[column.name]["description"].split()[0] for column in extra]
        assert first_words == ["Pseudonym", "Key", "Quasi-identifier;"]

    def test_every_column_is_described_in_order(self) -> None:
        """Each with a sentence."""
        properties = build_row_schema()["properties"]
        assert tuple(properties) == CLASSIC_SCHEMA.training_columns == tuple(build_row_schema()["required"])
        assert all(property_schema["description"].endswith(".") for property_schema in properties.values())

    def test_documented_row_is_valid(self) -> None:
        """A row with null in all optional columns is valid too."""
        required = ("analysis_hash", "recommendation_id", "feedback_timestamp", "export_date")
        assert accepts(ROW)
        assert accepts(ROW | {name: None for name in CLASSIC_SCHEMA.training_columns if name not in required})

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("analysis_hash", [None, "", "8f1c5a7d2e9b3c4", "8F1C5A7D2E9B3C41", "8f1c5a7d2e9b3c410", 1]),
            ("recommendation_id", [None, "", "\0", "\x851", 7]),
            ("helpful_rating", [0, 6, 4.5, "5", True]),
            ("product_satisfaction", [0, 6, 4.5, "5"]),
            ("routine_completion_pct", [-1, 101, 0.5, "80"]),
            ("would_recommend", ["True", 1, 0]),
            ("conditions_detected", ["", ",", "a,", "a,,b", "a,\0", ["acne"]]),
            ("rules_applied", ["", ",", "a,", "a,,b", "a\x7f,b", ["r001"]]),
            ("timeframe", ["", "\x1b1", 2]),
            ("age_range", ["", "25", "18-24", 25]),
            ("feedback_timestamp", [None, "", "2025-10-25", "2025-10-25 10:00:00", "2025-10-25T10:00:00Z"]),
            ("export_date", [None, "", "2025-10-25T10:00:00.5", "2025-10-25T10:00:00+00:00", 1761386400]),
        ],
    )
    def test_invalid_values_are_refused(self, name: str, values: list[Any]) -> None:
        """Values that the training schema refuses, and other types and formats."""
        assert [value for value in values if accepts(ROW | {name: value})] == []

    @pytest.mark.parametrize("name", CLASSIC_SCHEMA.training_columns)
    def test_missing_and_unknown_columns_are_refused(self, name: str) -> None:
        """The schema lists all columns."""
        assert not accepts({key: value for key, value in ROW.items() if key != name})
        assert not accepts(ROW | {"feedback_text": "hello"})

    def test_rows_of_an_export_are_valid(self, database: Database, tmp_path: Path) -> None:
        """They are read from the file with the standard library."""
        database.fill(
            records=RECORDS,
            profiles=[{"id": 1, "user_id": 7, "age": 60}],
            feedbacks=[
                FEEDBACK | {"id": 1, "helpful_rating": 5, "would_recommend": False, "timeframe": "1_week"},
                FEEDBACK | {"id": 2, "analysis_id": 43, "routine_completion_pct": 0, "user_id": None},
            ],
        )
        report = export_feedback(database.url, now=NOW, output_dir=tmp_path / "out", unkeyed=True)
        first, second = read_rows(report.export_filename)
        assert accepts(first)
        assert accepts(second)
        assert first == {
            "analysis_hash": "73475cb40a568e8d",
            "recommendation_id": "rec_1",
            "helpful_rating": 5,
            "product_satisfaction": None,
            "routine_completion_pct": None,
            "would_recommend": False,
            "conditions_detected": 'acne,say "hi"',
            "rules_applied": "r\u00e9",
            "timeframe": "1_week",
            "age_range": "50+",
            "feedback_timestamp": "2025-10-25T10:00:00",
            "export_date": "2025-10-25T12:00:00",
        }
        assert (second["routine_completion_pct"], second["age_range"]) == (0, None)


@pytest.fixture(params=KINDS)
def published_database(request: pytest.FixtureRequest, sqlite_path: Path) -> Iterator[sa.Engine]:
    """Create a database from the published SQL of its kind alone."""
    server = {"postgresql": "postgres_database", "mysql": "mysql_database"}.get(request.param)
    engine = make_engine(request.getfixturevalue(server) if server else f"sqlite:///{sqlite_path}")
    sql = (SCHEMAS / f"source.{request.param}.sql").read_text(encoding="utf-8")
    with engine.begin() as connection:
        for statement in sql.split(";\n"):
            connection.exec_driver_sql(statement) if statement.strip() else None
    yield engine
    engine.dispose()


class TestSourceSql:
    """The application's tables as SQL."""

    def test_it_creates_the_tables_that_are_read(self, published_database: sa.Engine) -> None:
        """All their columns, and the index that windows need."""
        inspector = sa.inspect(published_database)
        expected = {table.name: [column.name for column in table.columns] for table in tables.metadata.sorted_tables}
        assert {
            name: [column["name"] for column in inspector.get_columns(name)] for name in inspector.get_table_names()
        } == expected
        assert ["created_at"] in [index["column_names"] for index in inspector.get_indexes("recommendation_feedbacks")]

    def test_feedback_in_these_tables_is_exported(self, published_database: sa.Engine, tmp_path: Path) -> None:
        """By the default query."""
        fill(published_database, records=RECORDS, feedbacks=[FEEDBACK | {"id": 1, "helpful_rating": 5}])
        report = export_feedback(published_database, now=NOW, output_dir=tmp_path / "out", unkeyed=True)
        assert (report.exported_records, report.total_feedback_records) == (1, 1)
