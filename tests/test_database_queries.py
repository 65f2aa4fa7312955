"""Custom queries (`--query`): accepted text, and consent."""

from datetime import datetime
from pathlib import Path

import pytest
from reading import NOW, by, by_both_routes, read, read_query, select

from feedback_etl.database.custom_query import read_query_file
from feedback_etl.database.window import Window
from feedback_etl.errors import UsageError

EVERYTHING = Window(None, NOW)


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database of each kind; the rows come with the query."""
    if request.param != "sqlite":
        return str(request.getfixturevalue({"postgresql": "postgres_url", "mysql": "mysql_url"}[request.param]))
    request.getfixturevalue("sqlite_path").touch()
    return f"sqlite:///{request.getfixturevalue('sqlite_path')}"


TEXTS = [
    (":y", "':y'"),
    ("%(x)s", "'%(x)s'"),
    ("100%", "'100%'"),
    ("%%", "'%%'"),
    ("a%sb", "'a%sb'"),
    ("C:\\temp", "'C:\\temp'"),
    ("\\", "'\\'"),
    ("it's", "'it''s'"),
    ("?", "'?'"),
    ("{x} $1 $$", "'{x} $1 $$'"),
    ("the_own_query_goes_here", "'the_own_query_goes_here'"),
    ("); --", "'); --'"),
    ("é日😀", "'é日😀'"),
    ("a\nb\tc", "'a\nb\tc'"),
]


def escaped(url: str, sql: str) -> str:
    """MySQL alone takes a backslash for the beginning of an escape."""
    return sql.replace("\\", "\\\\") if url.startswith("mysql") else sql


@by_both_routes
def test_query_text_is_not_interpreted(url: str, route: str) -> None:
    """No colon, percent sign, backslash or question mark is treated as a parameter."""
    union = " UNION ALL ".join(
        select(url, feedback_id=str(number), timeframe=escaped(url, sql)) for number, (_, sql) in enumerate(TEXTS)
    )
    assert read(by(route, url), query=union)["timeframe"].to_list() == [text for text, _ in TEXTS]


@by_both_routes
@pytest.mark.parametrize(
    "form",
    [
        "{};",
        "{} ;\n\n",
        "{} -- a comment; it's the end",
        "{}; -- done (really",
        "-- first: it's a comment\n{}",
        "/* a\n; ) ' comment */ {}",
        "{} /* at the end */",
        "({})",
        "WITH q AS ({}) SELECT * FROM q",
        "WITH a AS (SELECT 1), q AS ({}) SELECT q.* FROM q, a ORDER BY feedback_id",
        "SELECT * FROM ({}) AS q WHERE timeframe LIKE '2\\_%' ESCAPE '\\' LIMIT 10",
        "{} UNION ALL {} LIMIT 1",
        "SELECT q.* FROM ({}) AS feedback JOIN ({}) AS q ON feedback.feedback_id = q.feedback_id",
        "\ufeff{}",
    ],
)
def test_any_select_is_accepted(url: str, route: str, form: str, tmp_path: Path) -> None:
    """With common table expressions, comments, brackets, an order or a limit, as in a file."""
    path = tmp_path / "query.sql"
    form = escaped(url, form)
    path.write_text(form.replace("{}", select(url)), encoding="utf-8")
    if form.startswith("("):  # SQLite knows no brackets around a whole SELECT
        path.write_text(form.replace("{}", select(url)) if not url.startswith("sqlite") else select(url))
    assert read(by(route, url), query=read_query_file(path))["feedback_id"].to_list() == [1]


def test_column_order_does_not_matter(url: str) -> None:
    """They are known by their names."""
    columns = select(url).removeprefix("SELECT ").strip().split(", ")
    shuffled = read(url, query=f"SELECT {', '.join(reversed(columns))}")
    assert shuffled.equals(read(url, query=select(url)))


def test_postgresql_syntax_works(postgres_url: str) -> None:
    """Casts, operators, dollar quotes and escapes."""
    query = select(
        postgres_url,
        helpful_rating="'5'::int",
        timeframe="$$2_weeks$$",
        recommendation_id="E'rec\\'1'",
        conditions_analyzed="('{\"a\": [\"x\"]}'::jsonb->'a')",
        rules_applied="ARRAY['r1', 'r2']",
    )
    row = read(postgres_url, query=query).row(0, named=True)
    assert (row["helpful_rating"], row["timeframe"], row["recommendation_id"]) == (5, "2_weeks", "rec'1")
    assert (row["conditions_analyzed"], row["rules_applied"]) == ('["x"]', '["r1","r2"]')


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.sql", r"There is no query file .*missing\.sql\."),
        ("folder", r"There is no query file .*folder\."),
        ("binary.sql", r"The query file .*binary\.sql cannot be read as UTF-8 text\."),
        ("a" * 300, "The query file .*a cannot be read"),
    ],
)
def test_unreadable_query_file_is_reported(tmp_path: Path, name: str, message: str) -> None:
    """Missing, a folder, not UTF-8, or of an impossible name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=message):
        read_query_file(tmp_path / name)


def consents(url: str, *values: str) -> str:
    """A query of one row for each consent, written in SQL; feedback_id counts from 0."""
    rows = ", ".join(f"({number}, {value})" for number, value in enumerate(values))
    return f"WITH v (id, c) AS (VALUES {rows}) {select(url, 'FROM v', feedback_id='id', consent='c')}"


@pytest.mark.sample(
    "mysql-values0-connectorx",
    "mysql-values1-connectorx",
    "mysql-values2-connectorx",
    "mysql-values3-connectorx",
    "postgresql-values0-sqlalchemy",
    "postgresql-values1-sqlalchemy",
    "postgresql-values2-sqlalchemy",
    "postgresql-values3-sqlalchemy",
    "sqlite-values0-connectorx",
    "sqlite-values0-sqlalchemy",
    "sqlite-values1-connectorx",
    "sqlite-values1-sqlalchemy",
    "sqlite-values2-connectorx",
    "sqlite-values2-sqlalchemy",
    "sqlite-values3-connectorx",
    "sqlite-values3-sqlalchemy",
)
@by_both_routes
@pytest.mark.parametrize(
    "values", [("1", "0", "NULL", "1", "2", "-1"), ("NULL", "0", "1"), ("0",), ("CAST(NULL AS int)",)]
)
def test_only_true_is_consent(url: str, route: str, values: tuple[str, ...]) -> None:
    """Rows whose consent is false, null or another number are excluded and counted."""
    frame, excluded = read_query(by(route, url), consents(url, *values), EVERYTHING)
    assert frame["feedback_id"].to_list() == [number for number, value in enumerate(values) if value == "1"]
    assert excluded == len(values) - frame.height
    assert "consent" not in frame.columns


@by_both_routes
def test_boolean_consent_on_postgresql(postgres_url: str, route: str) -> None:
    """Null is not consent."""
    query = consents(postgres_url, "true", "false", "NULL::boolean", "true")
    frame, excluded = read_query(by(route, postgres_url), query, EVERYTHING)
    assert (frame["feedback_id"].to_list(), excluded) == ([0, 3], 2)


@pytest.mark.parametrize("value", ["'true'", "'yes'", "0.5", "x'01'"])
def test_non_boolean_consent_on_sqlite_is_no_consent(sqlite_path: Path, value: str) -> None:
    """The row is excluded."""
    sqlite_path.touch()
    url = f"sqlite:///{sqlite_path}"
    frame, excluded = read_query(url, consents(url, value, "1"), EVERYTHING)
    assert (frame["feedback_id"].to_list(), excluded) == ([1], 1)


def test_only_rows_in_the_window_count_as_excluded(url: str) -> None:
    """Where times are text, too."""
    window = Window(datetime(2025, 10, 25, 10, 0, 0, 1), NOW)
    query = consents(url, "0", "1", "NULL")  # all at 10:00:00
    assert read_query(url, query, window)[1] == 0
    assert read_query(url, query, window._replace(start=datetime(2025, 10, 25, 10)))[1] == 2
    assert read_query(url, query, Window(None, datetime(2025, 10, 25, 10)))[1] == 0
