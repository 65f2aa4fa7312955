"""The recommendations that PostgreSQL returns once are those that it would join to each row."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database, new_postgres_reader, opened
from polars.testing import assert_frame_equal
from reading import NOW, execute, read, record_separate_reads

from feedback_etl.database import ages, batches, records
from feedback_etl.errors import SourceError


@pytest.fixture
def read_apart(monkeypatch: pytest.MonkeyPatch) -> list[records.RecordQuery]:
    """Let a small window count as a large one; the list contains the queries of separately read recommendations."""
    return record_separate_reads(monkeypatch, records.RecordTable, ages, records)


def fill(database: Database, ids: list[int], used: list[int | None]) -> None:
    """Insert recommendations with these ids, and feedback of them."""
    lists: list[Any] = [["acne", "dry, skin"], [], None, [""], '{"a": 1}']
    texts = [
        {
            "id": id_,
            "recommendation_id": None if n == 1 else f"rec_{id_}",
            "conditions_analyzed": lists[n % len(lists)],
            "rules_applied": lists[(n + 1) % len(lists)],
        }
        for n, id_ in enumerate(ids)
    ]
    feedbacks = [
        {
            "id": n,
            "user_id": 1,
            "analysis_id": n,
            "recommendation_id": id_,
            "helpful_rating": 5,
            "created_at": NOW - timedelta(hours=n),
        }
        for n, id_ in enumerate(used, 1)
    ]
    database.fill(records=texts, profiles=[{"id": 1, "user_id": 1, "age": 30}], feedbacks=feedbacks, users=[{"id": 1}])


@pytest.mark.parametrize("options", [{}, {"bulk": True, "workers": 3}, {"batch_size": 2}])
def test_recommendations_read_apart_equal_joined_ones(
    options: dict[str, Any],
    postgres: Database,
    read_apart: list[records.RecordQuery],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(postgres, ids=[7, 3, -2, 12, 40], used=[3, 7, 7, None, 12, -2, 40, 3] * 4)
    monkeypatch.setattr("feedback_etl.database.ranges.PARALLEL_RANGE_ROWS", 8)
    apart = read(postgres.url, **options)
    assert [(query.first, query.last) for query in read_apart] == [(-2, 40)]
    monkeypatch.setattr(batches, "plan_records", lambda *_: None)
    assert_frame_equal(apart, read(postgres.url, **options))
    assert len(read_apart) == 1
    assert apart["recommendation_id"].null_count() == 12  # no recommendation, or one without its own id


@contextmanager
def limited_reader(postgres: Database, admin: sa.Engine, limit: int) -> Iterator[str]:
    """The URL of a role that may have this many connections, to two recommendations with feedback."""
    fill(postgres, ids=[1, 2], used=[1, 2])
    with new_postgres_reader(admin) as role:
        execute(postgres.url, f"ALTER ROLE {role} CONNECTION LIMIT {limit}")
        yield sa.make_url(postgres.url).set(username=role, password="secret").render_as_string(hide_password=False)


def test_two_connections_are_enough(
    postgres: Database, postgres_admin: sa.Engine, read_apart: list[records.RecordQuery]
) -> None:
    with limited_reader(postgres, postgres_admin, limit=2) as url:
        assert read(url).height == 2
    assert len(read_apart) == 1


@pytest.mark.slow
def test_a_missing_connection_is_named_as_the_cause(postgres: Database, postgres_admin: sa.Engine) -> None:
    """ConnectorX waits 30 s for one."""
    with (
        limited_reader(postgres, postgres_admin, limit=1) as url,
        pytest.raises(SourceError, match=r"the server has no connection left .* two at once"),
    ):
        read(url)


def test_row_whose_recommendation_does_not_exist_has_nulls(
    postgres_database: str, read_apart: list[records.RecordQuery]
) -> None:
    with opened(postgres_database) as database:
        fill(database, ids=[1, 3], used=[1, 3])
        execute(
            postgres_database,
            "ALTER TABLE recommendation_feedbacks DROP CONSTRAINT recommendation_feedbacks_recommendation_id_fkey",
            "UPDATE recommendation_feedbacks SET recommendation_id = 2 WHERE recommendation_id = 3",
            "INSERT INTO recommendation_feedbacks (id, user_id, analysis_id, recommendation_id, created_at) "
            "SELECT id + 10, user_id, analysis_id, recommendation_id + 2000000000, created_at "
            "FROM recommendation_feedbacks WHERE id = 1",
        )
        rows = read(postgres_database)
    assert len(read_apart) == 1
    assert rows.sort("feedback_id")["recommendation_id"].to_list() == ["rec_1", None, None]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE recommendation_records DROP CONSTRAINT recommendation_records_pkey CASCADE",
        "UPDATE recommendation_feedbacks SET recommendation_id = NULL",
        "ALTER TABLE recommendation_feedbacks ALTER COLUMN recommendation_id TYPE numeric",
        "INSERT INTO recommendation_records (id) VALUES (200000)",
    ],
)
def test_database_joins_recommendations_that_are_not_unique_not_used_or_too_many(
    change: str, postgres_database: str, read_apart: list[records.RecordQuery]
) -> None:
    with opened(postgres_database) as database:
        fill(database, ids=[1, 2], used=[1, 2, None])
        before = read(postgres_database)
        assert len(read_apart) == 1
        execute(
            postgres_database,
            "ALTER TABLE recommendation_feedbacks DROP CONSTRAINT recommendation_feedbacks_recommendation_id_fkey",
            change,
        )
        rows = read(postgres_database)
    assert len(read_apart) == 1
    assert rows.height == before.height
    if not change.startswith("UPDATE"):
        assert_frame_equal(rows, before)
