"""Feedback of people who have not consented is counted, and never read."""

from pathlib import Path
from typing import Any

import pytest
from databases import Database, opened
from folders import KEY, NOW, exported_from_url, people, rows_of, visible
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import feedback_etl as fe
from feedback_etl.errors import SourceError, ValidationError
from feedback_etl.exports.manifest import list_local_manifests
from feedback_etl.privacy.keys import Key
from feedback_etl.results import ExportReport


@pytest.fixture
def app(database: Database) -> Database:
    """Four users with three rows of feedback each."""
    database.fill(**people(4), users=[{"id": number} for number in range(1, 5)])
    return database


def alter(database: Database, *statements: str) -> None:
    """Change the application."""
    with database.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def record(database: Database, table: str, column: str, kind: str = "BOOLEAN", **values: str) -> None:
    """Add a column, and set it for some users."""
    user = {"users": "id", "profiles": "user_id"}[table]
    sets = [f"UPDATE {table} SET {column} = {value} WHERE {user} = {name[1:]}" for name, value in values.items()]
    alter(database, f"ALTER TABLE {table} ADD COLUMN {column} {kind}", *sets)


def users_in(report: ExportReport) -> set[int]:
    """Whose rows an export has; analyses 101, 102, ... are of user 1."""
    hashes = {*rows_of(Path(report.export_filename))["analysis_hash"]} if report.export_filename else set()
    ids = {
        fe.FeedbackProcessor("sqlite://", key=KEY)._hash_id(u * 100 + n): u for u in range(1, 5) for n in range(1, 4)
    }
    return {ids[each] for each in hashes}


class TestOptIn:
    """Only true lets in."""

    def test_of_users(self, app: Database, tmp_path: Path) -> None:
        """False and null do not."""
        record(app, "users", "training_data_opt_in", u1="true", u2="false")
        report = exported_from_url(app, tmp_path)
        assert (users_in(report), report.total_feedback_records, report.excluded_records) == ({1}, 3, 9)
        assert list_local_manifests(tmp_path)[0].consent == ["users.training_data_opt_in"]
        assert fe.load_feedback(app.url, days_back=-1, now=NOW)["user_id"].unique().to_list() == [1]
        assert fe.load_training(app.url, days_back=-1, now=NOW, key=KEY).height == 3

    def test_of_profiles(self, app: Database, tmp_path: Path) -> None:
        """A user without a profile has not said so, and of several profiles one that refuses is enough."""
        app.fill(profiles=[{"user_id": user, "id": n} for n, user in enumerate([1, 2, 2, 3], 1)], users=[])
        record(app, "profiles", "training_data_opt_in")
        alter(app, "UPDATE profiles SET training_data_opt_in = true WHERE id IN (1, 2, 4)")
        assert users_in(exported_from_url(app, tmp_path)) == {1, 3}

    def test_as_a_number(self, app: Database, tmp_path: Path) -> None:
        """One is true, and nothing else is."""
        record(app, "users", "training_data_opt_in", "INTEGER", u1="1", u2="2", u3="0")
        assert users_in(exported_from_url(app, tmp_path)) == {1}


class TestOptOut:
    """True keeps out."""

    def test_of_users(self, app: Database, tmp_path: Path) -> None:
        """False and null do not, nor does a user whom no row tells of."""
        record(app, "users", "training_data_opt_out", u1="true", u2="false")
        app.fill(feedbacks=[people(1)["feedbacks"][0] | {"id": 999, "user_id": 77, "analysis_id": 401}])
        report = exported_from_url(app, tmp_path)
        assert (users_in(report), report.excluded_records) == ({2, 3, 4}, 3)

    def test_of_both_tables(self, app: Database, tmp_path: Path) -> None:
        """One that refuses is enough."""
        app.fill(profiles=[{"user_id": user, "id": user} for user in (1, 2, 3)], users=[])
        record(app, "users", "training_data_opt_in", u1="true", u2="true", u3="true")
        record(app, "profiles", "training_data_opt_out", u2="true")
        report = exported_from_url(app, tmp_path)
        assert users_in(report) == {1, 3}
        assert list_local_manifests(tmp_path)[0].consent == [
            "users.training_data_opt_in",
            "profiles.training_data_opt_out",
        ]


class TestColumns:
    """Where it is recorded."""

    def test_of_another_name(self, app: Database, tmp_path: Path) -> None:
        """Named in the settings; one that is nowhere is told."""
        record(app, "users", "may_train", u4="true")
        assert users_in(exported_from_url(app, tmp_path, opt_in_column="may_train")) == {4}
        with pytest.raises(SourceError, match="Neither users nor profiles has the column may_trian"):
            exported_from_url(app, tmp_path, opt_in_column="may_trian")

    def test_of_a_wrong_type(self, postgres_database: str, tmp_path: Path) -> None:
        """Text could mean anything."""
        with opened(postgres_database) as app:
            record(app, "users", "training_data_opt_in", "TEXT")
            with pytest.raises(SourceError, match=r"users\.training_data_opt_in records consent, and is TEXT"):
                exported_from_url(app, tmp_path)

    def test_text_on_sqlite_lets_nobody_in(self, sqlite_database: Database, tmp_path: Path) -> None:
        """There a column holds anything; what is neither true nor false refuses."""
        sqlite_database.fill(**people(2), users=[{"id": 1}, {"id": 2}])
        record(sqlite_database, "users", "training_data_opt_in", u1="'yes'")
        record(sqlite_database, "users", "training_data_opt_out", u2="'no'")
        assert exported_from_url(sqlite_database, tmp_path).excluded_records == 6

    @pytest.mark.sample("sqlite")
    def test_they_are_gone(self, app: Database, tmp_path: Path) -> None:
        """Then nothing is exported into the folder any more: people could be in it who refused."""
        record(app, "users", "training_data_opt_in", u1="true")
        exported_from_url(app, tmp_path / "out")
        before = visible(tmp_path / "out")
        alter(app, "ALTER TABLE users DROP COLUMN training_data_opt_in")
        with pytest.raises(ValidationError, match=r"by users\.training_data_opt_in, and now nothing records consent"):
            exported_from_url(app, tmp_path / "out")
        assert visible(tmp_path / "out") == before
        assert exported_from_url(app, tmp_path / "other").exported_records == 12


@pytest.mark.sample("sqlite")
def test_who_withdraws_is_out_of_old_exports_too(app: Database, tmp_path: Path) -> None:
    """By a sweep; and who consents again comes back."""
    record(app, "users", "training_data_opt_in", u1="true", u2="true")
    assert users_in(exported_from_url(app, tmp_path)) == {1, 2}
    alter(app, "UPDATE users SET training_data_opt_in = false WHERE id = 2")
    assert fe.privacy.erase(tmp_path, not_in_database=True, database=app.url, keys=[Key(KEY)]).rows == 3
    assert users_in(exported_from_url(app, tmp_path)) == {1}
    alter(app, "UPDATE users SET training_data_opt_in = true WHERE id = 2")
    assert users_in(exported_from_url(app, tmp_path)) == {1, 2}


ANSWERS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["true", "false", "NULL"])), max_size=8)


@given(opt_in=ANSWERS, opt_out=ANSWERS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_what_plain_python_says(
    sqlite_database: Database, opt_in: list[tuple[int, str]], opt_out: list[tuple[int, str]]
) -> None:
    """For any answers of any users in several rows."""
    sqlite_database.clear()
    columns = {name for name, *_ in _columns_of(sqlite_database)}
    if "training_data_opt_in" not in columns:
        record(sqlite_database, "profiles", "training_data_opt_in")
        record(sqlite_database, "users", "training_data_opt_out")
    sqlite_database.fill(**people(4))
    out_of: dict[int, str] = dict(opt_out)
    statements = [f"INSERT INTO users (id, training_data_opt_out) VALUES ({u}, {out})" for u, out in out_of.items()]
    statements += [
        f"INSERT INTO profiles (id, user_id, training_data_opt_in) VALUES ({n}, {user}, {answer})"
        for n, (user, answer) in enumerate(opt_in)
    ]
    alter(sqlite_database, *statements)
    said = {user: {answer for who, answer in opt_in if who == user} for user in range(1, 5)}
    expected = {user for user in said if said[user] == {"true"} and out_of.get(user) != "true"}
    loaded = fe.load_feedback(sqlite_database.url, days_back=-1, now=NOW)
    assert {*loaded["user_id"]} == expected


def _columns_of(database: Database) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT name FROM pragma_table_info('profiles')")]
