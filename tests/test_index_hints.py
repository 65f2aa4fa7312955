"""A slow export suggests the missing index."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, make_engine
from pseudonym_keys import KEY
from reading import NOW, select
from sqlalchemy.schema import CreateTable

import feedback_etl as fe
from feedback_etl.cli.summary import print_summary
from feedback_etl.database import tables
from feedback_etl.database.lookups import summarize_application
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline import commit


@pytest.fixture(autouse=True)
def everything_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a suggestion would need an export of ten seconds."""
    monkeypatch.setattr(commit, "SLOW_SECONDS", 0)


@pytest.fixture
def unindexed(database: Database) -> Database:
    """Ten days of feedback, a row a day, without the index on created_at."""
    rows = [
        {"id": day, "analysis_id": day, "helpful_rating": 5, "created_at": NOW - timedelta(days=day, hours=-1)}
        for day in range(1, 11)
    ]
    database.fill(feedbacks=rows)
    (index,) = tables.recommendation_feedbacks.indexes
    index.drop(database.engine)
    return database


def run(database: Database, *statements: str) -> None:
    """Execute statements outside of a transaction."""
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def advice(database: Database, folder: Path, **options: Any) -> str:
    """Return the suggestion of an export of two days."""
    usual: dict[str, Any] = {"days_back": 2, "now": NOW, "key": KEY, "output_dir": folder, "min_feedback_fields": 4}
    return fe.export_feedback(database.url, **usual | options).advice


@pytest.mark.sample("postgresql", "sqlite")
def test_suggested_statement_creates_the_index(unindexed: Database, tmp_path: Path) -> None:
    """The statement can be run as printed; afterwards there is no suggestion."""
    hint = advice(unindexed, tmp_path / "exports")
    assert "an index helps: CREATE INDEX " in hint
    run(unindexed, hint.partition("helps: ")[2])
    assert advice(unindexed, tmp_path / "exports") == ""


@pytest.mark.any_database
def test_suggestion_is_one_line(unindexed: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The suggestion is printed once, at the end of the summary."""
    report = fe.export_feedback(
        unindexed.url, days_back=2, now=NOW, key=KEY, output_dir=tmp_path / "exports", min_feedback_fields=4
    )
    print_summary(report, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"advice     {report.advice}"
    assert sum("CREATE INDEX" in line for line in lines) == 1


def test_no_suggestion_where_an_index_would_not_help(unindexed: Database, tmp_path: Path) -> None:
    """A window with most of the table is read fastest by a full scan; custom queries are not analysed."""
    assert advice(unindexed, tmp_path / "exports", days_back=9) == ""
    assert advice(unindexed, tmp_path / "exports", days_back=-1) == ""
    assert advice(unindexed, tmp_path / "exports", query=select(unindexed.url)) == ""


def test_no_suggestion_for_a_fast_export(unindexed: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast export needs no index."""
    monkeypatch.setattr(commit, "SLOW_SECONDS", 3600)
    assert advice(unindexed, tmp_path / "exports") == ""


def test_any_index_that_begins_with_created_at_suffices(unindexed: Database, tmp_path: Path) -> None:
    """With any name and more columns; an index that begins with another column does not."""
    run(unindexed, "CREATE INDEX other ON recommendation_feedbacks (user_id, created_at)")
    assert advice(unindexed, tmp_path / "exports")
    run(unindexed, "CREATE INDEX fine ON recommendation_feedbacks (created_at, id)")
    assert advice(unindexed, tmp_path / "exports") == ""


def test_partial_index_does_not_suffice(sqlite_database: Database, tmp_path: Path) -> None:
    """It lacks the rows of other exports; `check` asks the same question."""
    sqlite_database.fill(feedbacks=[{"id": 1, "analysis_id": 1, "helpful_rating": 5, "created_at": NOW}])
    (index,) = tables.recommendation_feedbacks.indexes
    index.drop(sqlite_database.engine)
    run(sqlite_database, "CREATE INDEX few ON recommendation_feedbacks (created_at) WHERE helpful_rating > 4")
    summary = summarize_application(sqlite_database.url, ReadOptions())
    assert summary.missing_index is not None
    assert summary.missing_index.startswith("CREATE INDEX ")


def test_view_gets_no_suggestion(unindexed: Database, tmp_path: Path) -> None:
    """The suggestion must be possible."""
    run(
        unindexed,
        "ALTER TABLE recommendation_feedbacks RENAME TO feedbacks",
        "CREATE VIEW recommendation_feedbacks AS SELECT * FROM feedbacks",
    )
    assert advice(unindexed, tmp_path / "exports") == ""


def test_suggestion_contains_the_schema(postgres_database: str, tmp_path: Path) -> None:
    """A table outside the search path is qualified by its schema, quoted if necessary."""
    engine = make_engine(postgres_database)
    with engine.begin() as connection:
        connection.execute(sa.text('CREATE SCHEMA "Skin care"'))
        for table in ("recommendation_feedbacks", "recommendation_records", "profiles"):
            connection.execute(CreateTable(in_skin_care(table)))
        connection.execute(
            sa.text(
                'INSERT INTO "Skin care".recommendation_feedbacks (id, created_at) '
                "SELECT n, timestamp '2025-10-25' - n * interval '1 day' FROM generate_series(1, 9) AS n"
            )
        )
    report = fe.export_feedback(
        postgres_database,
        days_back=2,
        now=NOW,
        key=KEY,
        output_dir=tmp_path,
        db_schema="Skin care",
        min_feedback_fields=4,
    )
    assert report.advice.endswith(' CREATE INDEX CONCURRENTLY ON "Skin care".recommendation_feedbacks (created_at);')


def in_skin_care(name: str) -> sa.Table:
    """A table of the default schema, without foreign keys, in another schema."""
    columns = [sa.Column(column.name, column.type) for column in tables.metadata.tables[name].columns]
    return sa.Table(name, sa.MetaData(), *columns, schema="Skin care")
