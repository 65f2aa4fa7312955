"""Row-level security of PostgreSQL: hidden rows are an error, unless they are allowed."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import create_schema, fill, make_engine, new_postgres_reader
from pseudonym_keys import KEY
from reading import NOW, by, by_both_routes, execute, read, select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from feedback_etl.cli.app import app
from feedback_etl.compliance.check import check
from feedback_etl.database.batches import open_batches
from feedback_etl.database.connect import open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.estimate import plan
from feedback_etl.pipeline.export import export_feedback
from feedback_etl.pipeline.load import load_training
from feedback_etl.privacy.erasure import erase
from feedback_etl.processor import FeedbackProcessor
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.source import Join, SourceTable
from feedback_etl.settings.model import load_settings

ALL: dict[str, Any] = {"days_back": -1, "now": NOW}
DOCUMENTED = Path(__file__).parent.parent / "docs" / "databases.md"


def feedback(number: int, user: int) -> dict[str, Any]:
    return {
        "id": number,
        "user_id": user,
        "analysis_id": 100 + number,
        "recommendation_id": 1,
        "helpful_rating": 5,
        "created_at": "2025-10-25 10:00:00",
    }


@pytest.fixture
def role(postgres_admin: sa.Engine) -> Iterator[str]:
    """A role that can log in and is not a superuser; superusers bypass row-level security."""
    with new_postgres_reader(postgres_admin) as name:
        yield name


@pytest.fixture
def owner_url(postgres_database: str, role: str) -> Iterator[str]:
    """The database as its owner: feedback of users 1, 2 and 3, of whom 2 has opted out and 3 is in no table."""
    create_schema(postgres_database)
    execute(postgres_database, "ALTER TABLE users ADD training_data_opt_out boolean")
    users = [{"id": 1, "training_data_opt_out": False}, {"id": 2, "training_data_opt_out": True}]
    records = [{"id": 1, "recommendation_id": "rec_1"}]
    fill(make_engine(postgres_database), users=users, records=records, feedbacks=[feedback(n, n) for n in (1, 2, 3)])
    yield postgres_database
    execute(postgres_database, f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP OWNED BY {role}")


@pytest.fixture
def url(owner_url: str, role: str) -> str:
    """The same database as the role."""
    return sa.make_url(owner_url).set(username=role, password="secret").render_as_string(hide_password=False)


def protect(owner_url: str, table: str, policy: str | None = None) -> None:
    """Enable row-level security on a table, with or without a policy that shows some rows."""
    execute(owner_url, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    if policy:
        execute(owner_url, f"CREATE POLICY some_rows ON {table} USING ({policy})")


def ids(database: Any, **options: Any) -> list[int]:
    return read(database, **options)["feedback_id"].to_list()


def test_only_opted_out_users_are_excluded_without_row_security(url: str) -> None:
    """Without row-level security, the user who opted out is excluded."""
    assert ids(url) == [1, 3]


def _connection(url: str, **options: Any) -> Any:
    with make_engine(url).connect() as connection:
        return read(connection, **options)


def _session(url: str, **options: Any) -> Any:
    with Session(make_engine(url)) as session:
        session.execute(sa.text("SELECT 1"))
        return read(session, **options)


def _executor(url: str, **options: Any) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return export_feedback(url, key=KEY, executor=executor, **ALL, **options)


def _check(url: str, **options: Any) -> Any:
    return check(load_settings(database_url=url, output_dir="out", **options))


READERS: dict[str, Callable[..., Any]] = {
    "ConnectorX": read,
    "SQLAlchemy": lambda url, **options: read(by("sqlalchemy", url), **options),
    "Connection": _connection,
    "Session": _session,
    "bulk": lambda url, **options: read(url, bulk=True, **options),
    "query": lambda url, **options: read(url, query=select(url, "FROM users"), **options),
    "export": lambda url, **options: export_feedback(url, key=KEY, **ALL, **options),
    "export of workers": _executor,
    "processor": lambda url, **options: FeedbackProcessor(url, key=KEY, **options).process_and_export(-1),
    "preview": lambda url, **options: load_training(url, key=KEY, **ALL, **options),
    "plan": lambda url, **options: plan(url, **ALL, **options),
    "check": _check,
    "erase": lambda url, **options: erase("out", user_ids=[2], database=url, keys=KEY, **options),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_hidden_users_are_refused_on_every_route(
    owner_url: str, url: str, role: str, reader: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the person whose opt-out is hidden would be exported; with the option it is."""
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    Path("out").mkdir()
    Path("out/.feedback_etl").mkdir()
    protect(owner_url, "users")
    with pytest.raises(SourceError) as refusal:
        reader(url)
    assert str(refusal.value) == (
        f"Row-level security hides rows of users from the role {role}: an export could lack rows, and contain people "
        f"who have opted out. Let the role read every row (ALTER ROLE {role} BYPASSRLS), or read only what its "
        "policies show (--allow-row-security; erase --not-in-database never does)."
    )
    reader(url, allow_row_security=True)


def test_hidden_rows_of_a_joined_table_are_refused(owner_url: str, url: str, role: str) -> None:
    """A declared source has the sentence of the default tables: it names the table and the remedy."""
    protect(owner_url, "users")
    columns = {"feedback_id": "id", "user_id": "user_id", "created_at": "created_at", "stars": "helpful_rating"}
    joined = Join("users", (("user_id", "id"),))
    declaration = SourceTable(table="recommendation_feedbacks", columns=tuple(columns.items()), join=joined)
    schema = FeedbackSchema(
        ratings=(Rating(name="stars", min=1, max=5),), item=None, dedup_key=("analysis_id", "created_at")
    )
    with open_connection(url) as source, pytest.raises(SourceError) as refusal:
        inspect_source(source, query=declaration, schema=schema)
    assert str(refusal.value).startswith(f"Row-level security hides rows of users from the role {role}: ")
    assert f"(ALTER ROLE {role} BYPASSRLS)" in str(refusal.value)


def test_printed_remedy_lets_the_role_read_every_row(owner_url: str, url: str) -> None:
    """Consent is then applied again."""
    protect(owner_url, "users")
    protect(owner_url, "recommendation_feedbacks", "user_id = 1")
    with pytest.raises(SourceError) as refusal:
        read(url)
    execute(owner_url, str(refusal.value).partition("(")[2].partition(")")[0])
    assert ids(url) == [1, 3]


def test_documented_policy_lets_the_role_read_every_row(owner_url: str, url: str, role: str) -> None:
    """For users who cannot grant BYPASSRLS."""
    protect(owner_url, "users", "false")
    statement = next(line for line in DOCUMENTED.read_text().splitlines() if line.startswith("CREATE POLICY"))
    execute(owner_url, statement.replace(" etl ", f" {role} "))
    with pytest.raises(SourceError, match="hides rows of users"):
        read(url)
    assert ids(url, allow_row_security=True) == [1]


@by_both_routes
def test_visible_rows_are_exported_if_row_security_is_allowed(owner_url: str, url: str, route: str) -> None:
    """No other row, and no user whose consent is hidden."""
    protect(owner_url, "recommendation_feedbacks", "id < 3")
    with pytest.raises(SourceError, match="hides rows of recommendation_feedbacks"):
        read(by(route, url))
    assert ids(by(route, url), allow_row_security=True) == [1]
    protect(owner_url, "users")
    assert ids(by(route, url), allow_row_security=True) == []
    report = export_feedback(by(route, url), key=KEY, output_dir="out", allow_row_security=True, **ALL)
    assert (report.total_feedback_records, report.excluded_records) == (0, 2)


def test_commands_accept_the_option_and_the_setting(owner_url: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading command accepts the option; the environment variable works too."""
    protect(owner_url, "users", "id = 1")
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    Path("ids.txt").write_text("1\n")
    commands = ["export --days -1 -q", "erase --user-ids-file ids.txt", "preview --days -1", "plan --days -1", "check"]
    for command in commands:
        refused = CliRunner().invoke(app, command.split())
        assert isinstance(refused.exception, SourceError)
        assert "hides rows of users" in str(refused.exception)
        assert not isinstance(
            CliRunner().invoke(app, [*command.split(), "--allow-row-security"]).exception, SourceError
        )
    monkeypatch.setenv("FEEDBACK_ETL_ALLOW_ROW_SECURITY", "true")
    assert CliRunner().invoke(app, ["preview", "--days", "-1"]).exit_code == 0


def test_manifest_records_allowed_row_security(owner_url: str, url: str) -> None:
    """Otherwise the manifest has no such entry, so incremental series continue."""
    protect(owner_url, "recommendation_records", "true")
    options: list[dict[str, Any]] = [{}, {"allow_row_security": True}]
    for allowed in options:
        report = export_feedback(url if allowed else owner_url, key=KEY, output_dir="out", **ALL, **allowed)
        manifest = json.loads(Path(report.export_filename).with_suffix(".manifest.json").read_text())
        assert {name: manifest["settings"].get(name) for name in allowed} == allowed
        assert ("allow_row_security" in manifest["settings"]) == bool(allowed)


def test_table_owner_reads_every_row_unless_security_is_forced(owner_url: str, url: str, role: str) -> None:
    """PostgreSQL's rule."""
    protect(owner_url, "users")
    execute(owner_url, f"ALTER TABLE users OWNER TO {role}")
    assert ids(url) == [1, 3]
    execute(owner_url, "ALTER TABLE users FORCE ROW LEVEL SECURITY")
    with pytest.raises(SourceError, match="hides rows of users"):
        read(url)


def test_hidden_people_are_not_erased(owner_url: str, url: str) -> None:
    """Also if exports may read a part of the rows."""
    export_feedback(url, key=KEY, output_dir="out", **ALL)
    protect(owner_url, "recommendation_feedbacks", "user_id = 1")
    for allowed in (False, True):
        with pytest.raises(SourceError, match="hides rows of recommendation_feedbacks"):
            erase("out", not_in_database=True, database=url, keys=KEY, allow_row_security=allowed)
    done = erase("out", not_in_database=True, database=owner_url, keys=KEY)
    assert done.rows == 0


def test_consent_check_fails_if_people_are_hidden(owner_url: str, url: str, role: str) -> None:
    """Withdrawals of hidden people are unknown, until the check runs as its remedy says."""
    items = check(load_settings(database_url=url, output_dir="out"))
    assert next(item.passed for item in items if item.name == "consent")
    protect(owner_url, "recommendation_feedbacks", "user_id = 1")
    items = check(load_settings(database_url=url, output_dir="out", allow_row_security=True))
    (item,) = [item for item in items if item.name == "consent"]
    assert (item.passed, item.detail) == (
        False,
        "Row-level security hides people from this role, who may have withdrawn (allow_row_security).",
    )
    assert item.remedy == "run the check as a role with BYPASSRLS, without allow_row_security"
    execute(owner_url, f"ALTER ROLE {role} BYPASSRLS")
    items = check(load_settings(database_url=url, output_dir="out"))
    assert next(item.passed for item in items if item.name == "consent")


@by_both_routes
def test_policy_created_after_inspection_is_refused(owner_url: str, url: str, route: str) -> None:
    """The sessions of the readers refuse it, not only the inspection."""
    with open_connection(by(route, url)) as source:
        relation = inspect_source(source)
        source.connection.exec_driver_sql("COMMIT")  # its locks would keep the policy out
        source.connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for statement in source.settings:
            source.connection.exec_driver_sql(statement)
        protect(owner_url, "users")
        with (
            pytest.raises(SourceError, match="row-level security would hide rows from this user"),
            open_batches(source, relation, Window(None, NOW), ReadOptions()) as frames,
        ):
            list(frames)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "AUTOCOMMIT"])
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in a transaction"])
def test_row_security_setting_of_caller_is_restored(url: str, isolation: Any, idle: bool) -> None:
    """Row-level security applies to its queries as before."""
    engine = make_engine(url).execution_options(isolation_level=isolation)
    with engine.connect() as connection:
        if not idle:
            connection.exec_driver_sql("SELECT 1")
        assert ids(connection) == [1, 3]
        assert connection.exec_driver_sql("SHOW row_security").scalar() == "on"
