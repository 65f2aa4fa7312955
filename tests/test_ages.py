"""The ages that PostgreSQL returns once per person are those that it would join to each row."""

import random
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from databases import Database, opened
from polars.testing import assert_frame_equal
from reading import NOW, execute, read, record_separate_reads

from feedback_etl.database import ages, batches

RECORDS = [{"id": 1, "recommendation_id": "rec_1", "conditions_analyzed": ["acne"], "rules_applied": ["r001"]}]


@pytest.fixture
def read_apart(monkeypatch: pytest.MonkeyPatch) -> list[ages.AgeQuery]:
    """Let a small window count as a large one; the list contains the queries whose ages were read separately."""
    return record_separate_reads(monkeypatch, ages.AgeTable, ages)


def fill(database: Database, *, people: list[tuple[int | None, int | None]], users: list[int | None]) -> None:
    """Insert profiles of (user id, age) in this order, and feedback of users."""
    profiles = [{"id": n, "user_id": user, "age": age} for n, (user, age) in enumerate(people, 1)]
    feedbacks = [
        {
            "id": n,
            "user_id": user,
            "analysis_id": n,
            "recommendation_id": 1,
            "helpful_rating": 5,
            "created_at": NOW - timedelta(hours=n),
        }
        for n, user in enumerate(users, 1)
    ]
    known = {user for user, _ in people if user is not None} | {user for user in users if user is not None}
    database.fill(
        records=RECORDS, profiles=profiles, feedbacks=feedbacks, users=[{"id": user} for user in sorted(known)]
    )


def read_both(
    url: str, read_apart: list[ages.AgeQuery], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> pl.DataFrame:
    """Return the rows with ages that were read apart, which equal those with joined ages."""
    apart = read(url, **options)
    assert len(read_apart) == 1
    with monkeypatch.context() as patch:
        patch.setattr(batches, "plan_ages", lambda *_: None)
        joined = read(url, **options)
    assert len(read_apart) == 1
    assert_frame_equal(apart, joined)
    return apart


def test_age_is_that_of_the_lowest_profile_or_null(
    postgres: Database, read_apart: list[ages.AgeQuery], monkeypatch: pytest.MonkeyPatch
) -> None:
    people: list[tuple[int | None, int | None]] = [(7, 30), (3, 20), (7, 99), (None, 50), (5, None), (5, 44), (-2, 61)]
    fill(postgres, people=people, users=[3, 5, 7, 4, None, -2, 2_000_000_000, -2_000_000_000])
    rows = read_both(postgres.url, read_apart, monkeypatch)
    assert dict(zip(rows["user_id"], rows["age"], strict=True)) == {
        3: 20,
        5: None,
        7: 30,
        4: None,
        None: None,
        -2: 61,
        2_000_000_000: None,
        -2_000_000_000: None,
    }


@pytest.mark.parametrize("options", [{}, {"bulk": True, "workers": 3}, {"batch_size": 7}])
def test_random_rows_have_equal_ages_in_both_ways(
    options: dict[str, Any],
    postgres: Database,
    read_apart: list[ages.AgeQuery],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(5)
    fill(
        postgres,
        people=[(draw.randint(1, 60), draw.choice([None, 17, 40])) for _ in range(80)],
        users=[draw.randint(-5, 70) for _ in range(200)],
    )
    monkeypatch.setattr("feedback_etl.database.ranges.PARALLEL_RANGE_ROWS", 50)
    assert read_both(postgres.url, read_apart, monkeypatch, **options).height == 200


def test_fractions_and_infinities_of_a_numeric_age_are_read(
    postgres_database: str, read_apart: list[ages.AgeQuery], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(postgres_database) as database:
        fill(database, people=[(1, 30), (2, 40), (3, 50)], users=[1, 2, 3])
        execute(
            postgres_database,
            "ALTER TABLE profiles ALTER COLUMN age TYPE numeric USING age + 0.5",
            "UPDATE profiles SET age = 'NaN' WHERE user_id = 2",
            "UPDATE profiles SET age = 1e400 WHERE user_id = 3",
        )
        rows = read_both(postgres_database, read_apart, monkeypatch)
    assert str(rows.sort("user_id")["age"].to_list()) == "[30.5, nan, inf]"


def test_database_joins_the_ages_where_a_table_of_them_would_not_pay(
    postgres: Database, read_apart: list[ages.AgeQuery], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(postgres, people=[(1, 30), (200_000, 40)], users=[1, 200_000])
    assert sorted(read(postgres.url)["age"]) == [30, 40]  # more ids than rows
    monkeypatch.setattr(ages, "estimate_rows", lambda *_: ages.MIN_ROWS - 1)
    execute(postgres.url, "UPDATE profiles SET age = 31 WHERE user_id = 1", "DELETE FROM profiles WHERE user_id > 1")
    assert read(postgres.url)["age"].to_list().count(31) == 1  # few rows
    execute(postgres.url, "DELETE FROM profiles")
    monkeypatch.setattr(ages, "estimate_rows", lambda *_: ages.MIN_ROWS)
    assert read(postgres.url)["age"].null_count() == 2  # no profile
    assert read_apart == []


def test_text_ids_are_joined_by_the_database(postgres_database: str, read_apart: list[ages.AgeQuery]) -> None:
    with opened(postgres_database) as database:
        fill(database, people=[(1, 30)], users=[1])
        execute(
            postgres_database,
            "ALTER TABLE profiles DROP CONSTRAINT profiles_user_id_fkey",
            "ALTER TABLE profiles ALTER COLUMN user_id TYPE text",
            "ALTER TABLE recommendation_feedbacks ALTER COLUMN user_id TYPE text",
        )
        assert read(postgres_database)["age"].to_list() == [30]
    assert read_apart == []
