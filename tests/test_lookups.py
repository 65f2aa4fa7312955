"""Analyses of users whose ids are compared by their bytes; for other collations see `test_id_equality`."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from databases import Database, new_mysql_database
from reading import execute, select

from feedback_etl.database.lookups import fetch_analyses, fetch_user_feedback
from feedback_etl.options.read import ReadOptions

USERS = ["ada", "Ada", "äda", "ada ", "a'da", "a\\da", '"ada"', "%", "a\nda", "😀"]


@pytest.fixture
def numbered(database: Database) -> Database:
    """Feedback of two users, and without a user; one row has no analysis."""
    rows = [(1, 7, 70), (2, 7, 71), (3, 7, None), (4, 8, 80), (5, None, 90), (6, 7, 70)]
    database.fill(feedbacks=[{"id": id_, "user_id": user, "analysis_id": analysis} for id_, user, analysis in rows])
    return database


def test_each_analysis_of_a_user_is_listed_once(numbered: Database) -> None:
    """Feedback without an analysis is listed by its id; a user without feedback is omitted."""
    found = fetch_user_feedback(numbered.url, ReadOptions(), ["7", "9", "7 "])
    assert {user: sorted(ids, key=str) for user, ids in found.items()} == {
        "7": [("70", None), ("71", None), (None, "3")]
    }


def test_all_analyses_are_listed(numbered: Database) -> None:
    """Analyses of feedback without a user are included."""
    assert sorted(fetch_analyses(numbered.url, ReadOptions())) == ["70", "71", "80", "90"]


@pytest.fixture(scope="module")
def texts(mysql_admin: sa.Engine) -> Iterator[str]:
    """A MySQL database whose user ids are texts, many equal by the server's collation, not by their own."""
    with new_mysql_database(mysql_admin) as url:
        execute(url, "CREATE TABLE t (id int, who varchar(99) COLLATE utf8mb4_nopad_bin)")
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            rows = [{"id": number, "who": user} for number, user in enumerate(USERS)]
            connection.execute(sa.text("INSERT INTO t VALUES (:id, :who)"), rows)
        engine.dispose()
        yield url


@pytest.mark.sample("\\U0001f600", "a'da", "ada", "ada ")
@pytest.mark.parametrize("user", USERS)
def test_binary_collation_distinguishes_every_byte(texts: str, user: str) -> None:
    """No quote or backslash of an id becomes SQL."""
    options = ReadOptions(query=select(texts, "FROM t", feedback_id="id", user_id="who", analysis_id="who"))
    assert fetch_user_feedback(texts, options, [user]) == {user: [(user, None)]}
    assert sorted(fetch_analyses(texts, options)) == sorted(USERS)
