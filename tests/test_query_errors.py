"""Errors of a custom query point into the user's text; NULL without a type is accepted in any column."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from pseudonym_keys import KEY
from reading import NOW, read, select
from test_database_refusals import refusal

import feedback_etl as fe
from feedback_etl.database.custom_query import QueryText, extract_select, read_query_file
from feedback_etl.errors import UsageError
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.settings.model import load_settings


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "duckdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each dialect; the rows come with the query."""
    match request.param:
        case "postgresql":
            return str(request.getfixturevalue("postgres_url"))
        case "mysql":
            return str(request.getfixturevalue("mysql_url"))
        case "sqlite":
            (tmp_path / "empty.db").touch()
            return f"sqlite:///{tmp_path}/empty.db"
    engine = sa.create_engine(f"duckdb:///{tmp_path}/empty.duckdb", poolclass=sa.NullPool)
    with engine.connect():
        pass
    return str(engine.url)


NULLABLE = (
    *("feedback_id", "user_id", "analysis_id", "recommendation_id", "helpful_rating", "would_recommend"),
    *("conditions_analyzed", "timeframe", "age", "created_at"),
)


def test_null_without_a_type_is_read_in_any_column(url: str) -> None:
    """No CAST is needed: all columns at once, and the time alone, by which windows are selected."""
    row = read(url, query=select(url, **dict.fromkeys(NULLABLE, "NULL")))
    assert row.select(NULLABLE).row(0) == (None,) * len(NULLABLE)
    query = f"{select(url)} UNION ALL {select(url, created_at='NULL', feedback_id='2')}"
    assert read(url, query=query)["feedback_id"].to_list() == [1, 2]
    assert read(url, query=select(url, created_at="NULL"), since="2025-10-01").height == 0


def test_null_is_accepted_for_consent_and_extra_columns(url: str) -> None:
    """NULL is not consent; an extra column keeps its declared type."""
    assert read(url, query=select(url, consent="NULL")).height == 0
    extra = [ExtraColumn("visits", type="integer"), ExtraColumn("since", type="time")]
    query = select(url, visits="NULL", since="NULL")
    rows = fe.load_training(url, query=query, extra_columns=extra, days_back=-1, now=NOW, key=KEY)
    assert rows.select("visits", "since").rows() == [(None, None)]
    assert list(map(str, rows.select("visits", "since").dtypes)) == [
        "Int64",
        "Datetime(time_unit='us', time_zone='UTC')",
    ]


def test_text_in_a_column_of_numbers_is_still_refused(url: str) -> None:
    """Only a column without any value is one of nulls."""
    text = f"""SELECT * FROM ({select(url, age="NULL")} UNION ALL {select(url, age="'x'")}) AS q"""
    assert "age is " in str(refusal(url, query=text))


def in_file(text: str) -> QueryText:
    """The text as it is read from a file called query.sql."""
    Path("query.sql").write_text(text, encoding="utf-8")
    return read_query_file(Path("query.sql"))


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ("\n\n-- a comment of two lines\n/* nope */ SELECT 'nope' AS one,\n  ", "nope AS two,"),
        ("SELECT 1 AS user_id,\n 2 AS b ", "AZ user_id,"),
        ("\nSELECT 'é',\n  'it''s', ", "nosuch(2) AS c,"),
        ("  SELECT 1 AS a\nFROM\n  ", "no_such_table AS t WHERE 1 = 1 OR '"),
    ],
    ids=["column", "syntax", "function", "table"],
)
def test_error_points_into_the_file(url: str, before: str, wrong: str) -> None:
    """File, line and column of the error, with any lines and comments before it."""
    rest = "'" if wrong.endswith("'") else select(url).removeprefix("SELECT")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    message = str(refusal(url, query=in_file(f"{before}{wrong}{rest}")))
    assert message.startswith("The database refuses the query: ")
    assert message.endswith(f" (query.sql, line {line}, column {column}).")


def test_error_in_a_view_is_not_located_in_the_query(tmp_path: Path) -> None:
    """DuckDB shows a line of the view, which the query does not have."""
    engine = sa.create_engine(f"duckdb:///{tmp_path}/views.duckdb", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t AS SELECT 1 AS a, 2 AS b")
        connection.exec_driver_sql("CREATE VIEW v AS SELECT a,\n\n\n\n\n b\n FROM t")
        connection.exec_driver_sql("ALTER TABLE t RENAME COLUMN b TO c")
    assert "query.sql" in str(refusal(str(engine.url), query=in_file("SELECT * FROM v")))


def test_error_at_the_end_of_a_query_does_not_show_our_own_text(url: str) -> None:
    """The statement around the query is not the user's."""
    message = str(refusal(url, query=in_file(f"{select(url)}\nWHERE  ")))
    assert message.endswith("(query.sql, line 2, column 6).")
    assert "LIMIT" not in message


def test_error_of_a_text_without_a_file_has_line_and_column(url: str) -> None:
    """As of the keyword `query`."""
    assert str(refusal(url, query="SELECT\n nope")).endswith("(line 2, column 2).")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("SELECT (1", "line 1, column 8"),
        ("SELECT 1\n;\n -- and\n SELECT 2", "line 4, column 2"),
        ("\nSELECT 1)", "line 2, column 9"),
        ("SELECT 'a\n", "line 1, column 8"),
        ("SELECT 1,\n (2; 3)", "line 2, column 2"),
    ],
)
def test_text_that_is_not_one_select_is_located(text: str, position: str) -> None:
    """The second statement, and the bracket or quote that is not closed."""
    for dialect in ("sqlite", "postgresql", "mysql", "duckdb"):
        with pytest.raises(UsageError, match=rf"must be one SELECT.* \(query\.sql, {position}\)\.$"):
            extract_select(dialect, in_file(text))


def test_lock_is_located() -> None:
    """Not a word in a comment."""
    with pytest.raises(UsageError, match=r"must not lock rows .* \(query\.sql, line 2, column 2\)\.$"):
        extract_select("mysql", in_file("SELECT 1 -- for update\n FOR UPDATE"))


def test_unexpected_column_says_how_to_declare_it(url: str) -> None:
    """As a table of the settings; a name that no table can have is not suggested."""
    message = str(refusal(url, query=select(url, country="'x'", device="1")))
    assert "yields the unexpected country, device." in message
    assert message.endswith("type in feedback-etl.toml: [columns.country], [columns.device].")
    assert "declare" not in str(refusal(url, query=select(url, image_url="'x'")))


def test_query_of_the_settings_keeps_the_name_of_its_file() -> None:
    """Through `Settings`, for every command."""
    in_file("SELECT nope")
    settings = load_settings(query="query.sql")
    query = settings.to_options().read.query
    assert isinstance(query, QueryText)
    assert query.file == "query.sql"
    assert getattr(settings.to_database_keywords()["query"], "file", "") == "query.sql"


def test_query_of_a_declared_source_is_located(url: str) -> None:
    """It is a file too."""
    in_file("SELECT 1 AS no,\n  nope")
    declaration = '[source]\nquery = "query.sql"\nfeedback_id = "no"\ncreated_at = "no"'
    Path("feedback-etl.toml").write_text(declaration, encoding="utf-8")
    source = load_settings().to_options().read.source
    assert str(refusal(url, source=source)).endswith(" (query.sql, line 2, column 3).")
