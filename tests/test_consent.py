"""Consent: feedback of people without consent is counted and never read."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Database, opened
from folders import NOW, exported_from_url, people, rows_of, visible
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.errors import SourceError, ValidationError
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.results import ExportReport


@pytest.fixture
def app(database: Database) -> Database:
    """Create an application of four users with three rows of feedback each."""
    database.fill(**people(4), users=[{"id": number} for number in range(1, 5)])
    return database


def alter(database: Database, *statements: str) -> None:
    """Execute statements in the application's database."""
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def add_consent_column(database: Database, table: str, column: str, kind: str = "BOOLEAN", **values: str) -> None:
    """Add a consent column, and set it for some users."""
    user = {"users": "id", "profiles": "user_id"}[table]
    sets = [f"UPDATE {table} SET {column} = {value} WHERE {user} = {name[1:]}" for name, value in values.items()]
    alter(database, f"ALTER TABLE {table} ADD COLUMN {column} {kind}", *sets)


def get_exported_users(report: ExportReport) -> set[int]:
    """Return the users whose rows an export contains; analyses 101, 102, ... are of user 1."""
    hashes = {*rows_of(Path(report.export_filename))["analysis_hash"]} if report.export_filename else set()
    ids = {
        fe.FeedbackProcessor("sqlite://", key=KEY)._hash_id(u * 100 + n): u for u in range(1, 5) for n in range(1, 4)
    }
    return {ids[analysis_hash] for analysis_hash in hashes}


class TestOptIn:
    """With an opt-in column, only true is consent."""

    def test_column_of_users(self, app: Database, tmp_path: Path) -> None:
        """False and null are not."""
        add_consent_column(app, "users", "training_data_opt_in", u1="true", u2="false")
        report = exported_from_url(app, tmp_path)
        assert (get_exported_users(report), report.total_feedback_records, report.excluded_records) == ({1}, 3, 9)
        assert list_manifests(tmp_path)[0].consent == ["users.training_data_opt_in"]
        assert fe.load_feedback(app.url, days_back=-1, now=NOW)["user_id"].unique().to_list() == [1]
        assert fe.load_training(app.url, days_back=-1, now=NOW, key=KEY).height == 3

    def test_column_of_profiles(self, app: Database, tmp_path: Path) -> None:
        """A user without a profile has not consented, and one refusal among several profiles is enough."""
        app.fill(profiles=[{"user_id": user, "id": n} for n, user in enumerate([1, 2, 2, 3], 1)], users=[])
        add_consent_column(app, "profiles", "training_data_opt_in")
        alter(app, "UPDATE profiles SET training_data_opt_in = true WHERE id IN (1, 2, 4)")
        assert get_exported_users(exported_from_url(app, tmp_path)) == {1, 3}

    def test_column_of_integers(self, app: Database, tmp_path: Path) -> None:
        """Only 1 is true."""
        add_consent_column(app, "users", "training_data_opt_in", "INTEGER", u1="1", u2="2", u3="0")
        assert get_exported_users(exported_from_url(app, tmp_path)) == {1}


class TestOptOut:
    """With an opt-out column, true excludes."""

    def test_column_of_users(self, app: Database, tmp_path: Path) -> None:
        """False and null do not exclude, and neither does a missing user."""
        add_consent_column(app, "users", "training_data_opt_out", u1="true", u2="false")
        app.fill(feedbacks=[people(1)["feedbacks"][0] | {"id": 999, "user_id": 77, "analysis_id": 401}])
        report = exported_from_url(app, tmp_path)
        assert (get_exported_users(report), report.excluded_records) == ({2, 3, 4}, 3)

    def test_columns_of_both_tables(self, app: Database, tmp_path: Path) -> None:
        """One refusal is enough."""
        app.fill(profiles=[{"user_id": user, "id": user} for user in (1, 2, 3)], users=[])
        add_consent_column(app, "users", "training_data_opt_in", u1="true", u2="true", u3="true")
        add_consent_column(app, "profiles", "training_data_opt_out", u2="true")
        report = exported_from_url(app, tmp_path)
        assert get_exported_users(report) == {1, 3}
        assert list_manifests(tmp_path)[0].consent == [
            "users.training_data_opt_in",
            "profiles.training_data_opt_out",
        ]


class TestColumns:
    """Names and types of consent columns."""

    def test_column_with_a_configured_name(self, app: Database, tmp_path: Path) -> None:
        """A configured column that does not exist is an error."""
        add_consent_column(app, "users", "may_train", u4="true")
        assert get_exported_users(exported_from_url(app, tmp_path, opt_in_column="may_train")) == {4}
        with pytest.raises(SourceError, match="Neither users nor profiles has the column may_trian"):
            exported_from_url(app, tmp_path, opt_in_column="may_trian")

    def test_column_of_a_wrong_type_is_an_error(self, postgres_database: str, tmp_path: Path) -> None:
        """The meaning of text is unknown."""
        with opened(postgres_database) as app:
            add_consent_column(app, "users", "training_data_opt_in", "TEXT")
            with pytest.raises(SourceError, match=r"users\.training_data_opt_in records consent, and is TEXT"):
                exported_from_url(app, tmp_path)

    def test_text_in_sqlite_is_no_consent(self, sqlite_database: Database, tmp_path: Path) -> None:
        """SQLite stores any value in a column; one that is neither true nor false is a refusal."""
        sqlite_database.fill(**people(2), users=[{"id": 1}, {"id": 2}])
        add_consent_column(sqlite_database, "users", "training_data_opt_in", u1="'yes'")
        add_consent_column(sqlite_database, "users", "training_data_opt_out", u2="'no'")
        assert exported_from_url(sqlite_database, tmp_path).excluded_records == 6

    @pytest.mark.sample("sqlite")
    def test_export_fails_after_consent_columns_are_dropped(self, app: Database, tmp_path: Path) -> None:
        """The folder gets no further export, which could contain people who refused."""
        add_consent_column(app, "users", "training_data_opt_in", u1="true")
        exported_from_url(app, tmp_path / "out")
        before = visible(tmp_path / "out")
        alter(app, "ALTER TABLE users DROP COLUMN training_data_opt_in")
        with pytest.raises(ValidationError, match=r"by users\.training_data_opt_in, and now no column records consent"):
            exported_from_url(app, tmp_path / "out")
        assert visible(tmp_path / "out") == before
        assert exported_from_url(app, tmp_path / "other").exported_records == 12


@pytest.mark.sample("sqlite")
def test_sweep_removes_withdrawn_people_from_earlier_exports(app: Database, tmp_path: Path) -> None:
    """After consenting again they are exported again."""
    add_consent_column(app, "users", "training_data_opt_in", u1="true", u2="true")
    assert get_exported_users(exported_from_url(app, tmp_path)) == {1, 2}
    alter(app, "UPDATE users SET training_data_opt_in = false WHERE id = 2")
    assert fe.privacy.erase(tmp_path, not_in_database=True, database=app.url, keys=[Key(KEY)]).rows == 3
    assert get_exported_users(exported_from_url(app, tmp_path)) == {1}
    alter(app, "UPDATE users SET training_data_opt_in = true WHERE id = 2")
    assert get_exported_users(exported_from_url(app, tmp_path)) == {1, 2}


ANSWERS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["true", "false", "NULL"])), max_size=8)


@given(opt_in=ANSWERS, opt_out=ANSWERS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_consent_equals_the_plain_python_oracle(
    sqlite_database: Database, opt_in: list[tuple[int, str]], opt_out: list[tuple[int, str]]
) -> None:
    """For any answers of any users, in several rows."""
    sqlite_database.clear()
    columns = {name for name, *_ in _columns_of(sqlite_database)}
    if "training_data_opt_in" not in columns:
        add_consent_column(sqlite_database, "profiles", "training_data_opt_in")
        add_consent_column(sqlite_database, "users", "training_data_opt_out")
    sqlite_database.fill(**people(4))
    out_of: dict[int, str] = dict(opt_out)
    statements = [f"INSERT INTO users (id, training_data_opt_out) VALUES ({u}, {out})" for u, out in out_of.items()]
    statements += [
        f"INSERT INTO profiles (id, user_id, training_data_opt_in) VALUES ({n}, {user}, {answer})"
        for n, (user, answer) in enumerate(opt_in)
    ]
    alter(sqlite_database, *statements)
    answers = {user: {answer for who, answer in opt_in if who == user} for user in range(1, 5)}
    expected = {user for user in answers if answers[user] == {"true"} and out_of.get(user) != "true"}
    loaded = fe.load_feedback(sqlite_database.url, days_back=-1, now=NOW)
    assert {*loaded["user_id"]} == expected


def _columns_of(database: Database) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT name FROM pragma_table_info('profiles')")]


def test_row_without_consent_is_counted_by_one_run_of_a_series(app: Database, tmp_path: Path) -> None:
    """Neither the overlap of two windows nor a run that writes nothing counts it again."""
    add_consent_column(app, "users", "training_data_opt_in", u1="true", u2="false")
    options: dict[str, Any] = {"incremental": True, "lookback": "1d"}
    excluded = [exported_from_url(app, tmp_path, **options).excluded_records]
    for number, user in ((1, 2), (2, 1), (3, 1)):
        now = NOW + timedelta(hours=number)
        ids = {"id": 900 + number, "analysis_id": 900 + number, "user_id": user, "recommendation_id": 1}
        app.fill(feedbacks=[{**ids, "helpful_rating": 5, "created_at": now - timedelta(minutes=1)}])
        excluded.append(exported_from_url(app, tmp_path, now=now, **options).excluded_records)
    assert excluded == [9, 1, 0, 0]


@pytest.mark.parametrize("cursor", ["created_at", "updated_at"])
def test_row_without_consent_that_arrives_in_the_lookback_is_counted_once(
    app: Database, tmp_path: Path, cursor: str
) -> None:
    """Also after runs that write nothing, and a backfill, whose rows earlier runs have counted."""
    add_consent_column(app, "users", "training_data_opt_in", u1="true", u2="false")
    options: dict[str, Any] = {"incremental": True, "lookback": "1d", "cursor": cursor}
    exported_from_url(app, tmp_path, **options)
    excluded = []
    for number, users in enumerate([(2, 2), (), (1, 2), (2,), ()], 1):
        rows = [{"id": 900 + 10 * number + each, "user_id": user} for each, user in enumerate(users)]
        values = {"recommendation_id": 1, "helpful_rating": 5, "created_at": NOW - timedelta(minutes=1)}
        app.fill(feedbacks=[row | {"analysis_id": row["id"]} | values for row in rows])
        now = NOW + timedelta(hours=number)
        excluded.append(exported_from_url(app, tmp_path, now=now, **options).excluded_records)
        assert exported_from_url(app, tmp_path, now=now, backfill=True, **options).excluded_records == 0
    assert excluded == [2, 0, 1, 1, 0]
