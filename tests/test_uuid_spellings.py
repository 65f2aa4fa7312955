"""People are erased by a UUID in whichever way it is written, and however the database writes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from databases import Database
from folders import NOW, exported, rows_of
from pseudonym_keys import KEY
from reading import select

import feedback_etl as fe
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.spellings import list_spellings, spell
from feedback_etl.records.audit import AuditLog

USER, OTHER_USER = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
ANALYSIS, OTHER_ANALYSIS = UUID("aaaaaaaa-9dad-11d1-80b4-00c04fd430c8"), UUID("bbbbbbbb-9dad-11d1-80b4-00c04fd430c8")

Spelling = Callable[[UUID], str]
SPELLINGS: dict[str, Spelling] = {
    "small": str,
    "capitals": lambda value: str(value).upper(),
    "no hyphens": lambda value: value.hex,
    "no hyphens, capitals": lambda value: value.hex.upper(),
    "braces": lambda value: f"{{{value}}}",
    "braces, capitals": lambda value: f"{{{value}}}".upper(),
    "urn": lambda value: value.urn,
    "urn, capitals": lambda value: f"urn:uuid:{str(value).upper()}",
}
by_spelling = pytest.mark.parametrize("given", SPELLINGS.values(), ids=SPELLINGS)
stored_so = pytest.mark.parametrize("stored", list(SPELLINGS.values())[:4], ids=list(SPELLINGS)[:4])


def fill(database: Database, stored: Spelling) -> None:
    """Store the feedback of two users; on SQLite a column of any type accepts text."""
    database.fill(
        records=[{"id": 1, "recommendation_id": "rec_1"}],
        feedbacks=[
            {
                "id": number,
                "user_id": stored(user),
                "analysis_id": stored(analysis),
                "recommendation_id": 1,
                "helpful_rating": 5,
                "created_at": f"2025-10-25 0{number}:00:00",
            }
            for number, (user, analysis) in enumerate([(USER, ANALYSIS), (OTHER_USER, OTHER_ANALYSIS)], start=1)
        ],
    )


def forget(folder: Path, **options: Any) -> Any:
    return erase(folder, **{"keys": [KEY], **options})


@pytest.mark.sample("braces", "no hyphens", "urn, capitals")
@by_spelling
def test_user_is_found_by_any_uuid_spelling(sqlite_database: Database, tmp_path: Path, given: Spelling) -> None:
    """The other user stays, and the person does not come back."""
    fill(sqlite_database, str)
    path = Path(exported(sqlite_database, tmp_path).export_filename)
    with sqlite_database.engine.connect() as connection:
        done = forget(tmp_path, user_ids=[given(USER)], database=connection)
    assert (done.rows, done.not_found, rows_of(path).height) == (1, [], 1)
    again = exported(sqlite_database, tmp_path)
    assert (again.exported_records, again.erased_records) == (1, 1)


@pytest.mark.sample(
    "capitals-braces", "no hyphens, capitals-capitals", "no hyphens-urn, capitals", "small-no hyphens", "small-small"
)
@by_spelling
@stored_so
def test_analysis_is_found_by_any_uuid_spelling(
    sqlite_database: Database, tmp_path: Path, given: Spelling, stored: Spelling
) -> None:
    """In the files and in later exports, however the database writes it."""
    fill(sqlite_database, stored)
    exported(sqlite_database, tmp_path)
    done = forget(tmp_path, analysis_ids=[given(ANALYSIS)])
    assert (done.rows, done.not_found) == (1, [])
    assert exported(sqlite_database, tmp_path).erased_records == 1


@stored_so
def test_erased_user_with_new_rows_stays_excluded(sqlite_database: Database, tmp_path: Path, stored: Spelling) -> None:
    """Nothing of them is in the database when they are erased; their pseudonym in the files finds them."""
    fill(sqlite_database, stored)
    path = Path(exported(sqlite_database, tmp_path, include_subject_hash=True).export_filename)
    sqlite_database.clear()
    with sqlite_database.engine.connect() as connection:
        done = forget(tmp_path, user_ids=[USER], database=connection)
    assert (done.rows, done.not_found, rows_of(path).height) == (1, [], 1)
    fill(sqlite_database, stored)
    again = exported(sqlite_database, tmp_path, include_subject_hash=True)
    assert (again.exported_records, again.erased_records) == (1, 1)


@pytest.mark.sample(
    "braces-mysql_url-upper('{}')", "capitals-mysql_url-cast('{}' AS uuid)", "no hyphens-postgres_url-uuid '{}'"
)
@pytest.mark.parametrize(
    ("server", "literal"),
    [("postgres_url", "uuid '{}'"), ("mysql_url", "cast('{}' AS uuid)"), ("mysql_url", "upper('{}')")],
)
@pytest.mark.parametrize("name", ["capitals", "braces", "no hyphens"])
def test_server_column_is_searched_for_uuid_spellings(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, literal: str, name: str
) -> None:
    """PostgreSQL's and MariaDB's own type, and text in capitals."""
    url = request.getfixturevalue(server)
    query = select(url, user_id=literal.format(USER), analysis_id=literal.format(ANALYSIS))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        options: dict[str, Any] = {"query": query, "days_back": -1, "now": NOW, "key": KEY, "output_dir": tmp_path}
        assert fe.export_feedback(connection, **options).exported_records == 1
        done = forget(tmp_path, user_ids=[SPELLINGS[name](USER)], database=connection, query=query)
        assert (done.rows, done.not_found) == (1, [])
        assert fe.export_feedback(connection, **options).erased_records == 1


def test_id_is_reported_as_given(sqlite_database: Database, tmp_path: Path) -> None:
    """In the first of the spellings that were given; the audit log counts people, not spellings."""
    fill(sqlite_database, str)
    exported(sqlite_database, tmp_path)
    unknown = "{CCCCCCCC-9DAD-11D1-80B4-00C04FD430C8}"
    with sqlite_database.engine.connect() as connection:
        done = forget(tmp_path, user_ids=[USER.hex, USER, unknown, UUID(unknown)], database=connection)
    assert (done.rows, done.not_found) == (1, [unknown])
    erased = [record for record in AuditLog(tmp_path).records() if record["event"] == "erased"]
    assert [record["people"] for record in erased] == [2]


@pytest.mark.parametrize(
    "text",
    [
        "42",
        "jane",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c",
        "6ba7b810-9dad11d180b400c04fd430c8",
        "{6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "6ba7b810_9dad_11d1_80b4_00c04fd430c8",
        " 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    ],
)
def test_other_ids_have_one_spelling(text: str) -> None:
    """JANE may be another person than jane."""
    assert list_spellings(text) == [text]


def test_each_spelling_yields_all_spellings() -> None:
    """Whichever is given, the others are found; other ids are as they were."""
    for spelling in SPELLINGS.values():
        given = spelling(USER)
        assert spell([given]) == {other(USER): given for other in SPELLINGS.values()}
    assert spell(["2", "01", "2"]) == {"2": "2", "01": "01"}
