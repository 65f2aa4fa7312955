"""The view of a Session, Connection or Engine is read: its schemas, roles, settings and temporary tables."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from databases import (
    Database,
    create_schema,
    fill,
    make_engine,
    new_mysql_database,
    new_postgres_database,
    new_postgres_reader,
    opened,
)
from pseudonym_keys import KEY
from reading import execute, read, select, takes_connectorx
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from feedback_etl.errors import SourceError, UsageError
from feedback_etl.processor import FeedbackProcessor

PUBLIC, TENANT_1, TENANT_7 = [1, 2, 3], [11], [71, 72]
"""The ids of the feedback in each schema; a new connection reads the first."""

Make = Callable[[str], AbstractContextManager[Any]]


def feedbacks(ids: list[int]) -> list[dict[str, Any]]:
    rows = {"user_id": 1, "recommendation_id": 1, "helpful_rating": 5, "created_at": "2025-10-25 10:00:00"}
    return [{**rows, "id": number, "analysis_id": number} for number in ids]


RECORDS = [{"id": 1, "recommendation_id": "rec_1"}]


def in_schema(url: str, schema: str) -> sa.Engine:
    return make_engine(url).execution_options(schema_translate_map={None: schema})


@pytest.fixture(scope="module")
def url(postgres_admin: sa.Engine) -> Iterator[str]:
    """A database of three tenants, in the schemas public, tenant_1 and tenant_7."""
    with new_postgres_database(postgres_admin) as url:
        execute(url, "CREATE SCHEMA tenant_1", "CREATE SCHEMA tenant_7")
        for schema, ids in (("public", PUBLIC), ("tenant_1", TENANT_1), ("tenant_7", TENANT_7)):
            create_schema(in_schema(url, schema))
            on_path = sa.make_url(url).update_query_dict({"options": f"-csearch_path={schema}"})
            fill(sa.create_engine(on_path, poolclass=sa.NullPool), records=RECORDS, feedbacks=feedbacks(ids))
        yield url


@contextlib.contextmanager
def session_after(url: str, *statements: str, bind: sa.Engine | None = None) -> Iterator[Session]:
    """A Session in a transaction in which statements were executed."""
    with Session(bind or make_engine(url)) as session:
        session.execute(sa.text("SELECT 1"))
        for statement in statements:
            session.execute(sa.text(statement))
        yield session
        assert session.in_transaction()


@contextlib.contextmanager
def connection_after(url: str, *statements: str) -> Iterator[sa.Connection]:
    with make_engine(url).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield connection


def hooked(url: str, event: str) -> sa.Engine:
    """An engine whose hook sets the search path on each connection or transaction."""
    engine = make_engine(url)

    def on_connect(connection: Any, *_: Any) -> None:
        connection.execute("SET search_path TO tenant_7")
        connection.commit()

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL search_path TO tenant_7")

    def on_statement(connection: sa.Connection, *_: Any) -> None:
        connection.connection.cursor().execute("SET search_path TO tenant_7")

    sa.event.listen(engine, event, {"connect": on_connect, "begin": on_begin}.get(event, on_statement))
    return engine


@contextlib.contextmanager
def session_of_one_connection(url: str) -> Iterator[Session]:
    """A Session with the only connection of an engine that has a `creator`."""
    plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    opens = {"creator": lambda: psycopg.connect(plain), "pool_size": 1, "max_overflow": 0}
    engine = sa.create_engine("postgresql+psycopg://", **opens)
    with session_after(url, SET, bind=engine) as session:
        yield session
    engine.dispose()


@contextlib.contextmanager
def session_with_hook(url: str) -> Iterator[Session]:
    """A Session that sets the search path whenever a transaction begins."""
    with Session(make_engine(url)) as session:
        sa.event.listen(session, "after_begin", lambda _, __, c: c.exec_driver_sql("SET LOCAL search_path TO tenant_7"))
        yield session
        assert not session.in_transaction()


@contextlib.contextmanager
def session_with_map(url: str) -> Iterator[Session]:
    """A Session whose transaction has another schema_translate_map than its engine."""
    with Session(make_engine(url)) as session:
        session.connection(execution_options={"schema_translate_map": {None: "tenant_7"}})
        yield session


null = contextlib.nullcontext
SET = "SET search_path TO tenant_7"
BY_CONNECTORX: dict[str, Make] = {
    "Session, search_path": lambda url: session_after(url, SET),
    "Session, search_path of the transaction": lambda url: session_after(url, "SET LOCAL search_path TO tenant_7"),
    "Session, quoted search_path": lambda url: session_after(url, """SET search_path TO "it's", 'tenant_7'"""),
    "Session in a savepoint": lambda url: session_after(url, "SAVEPOINT a", SET),
    "Session, schema_translate_map": lambda url: session_after(url, bind=in_schema(url, "tenant_7")),
    "Session, schema_translate_map of its own": session_with_map,
    "idle Session, schema_translate_map": lambda url: null(Session(in_schema(url, "tenant_7"))),
    "sessionmaker, schema_translate_map": lambda url: null(
        sessionmaker(make_engine(url), execution_options={"schema_translate_map": {None: "tenant_7"}})()
    ),
    "Engine, schema_translate_map": lambda url: null(in_schema(url, "tenant_7")),
}
BY_SQLALCHEMY: dict[str, Make] = {
    "Connection, search_path": lambda url: connection_after(url, SET),
    "Connection, schema_translate_map": lambda url: in_schema(url, "tenant_7").connect(),
    "Engine, connect hook": lambda url: null(hooked(url, "connect")),
    "Engine, begin hook": lambda url: null(hooked(url, "begin")),
    "Engine, hook on statements": lambda url: null(hooked(url, "before_cursor_execute")),
    "Session, begin hook": lambda url: session_after(url, bind=hooked(url, "begin")),
    "Session, after_begin hook": session_with_hook,
    "Session of an engine with one connection": session_of_one_connection,
    "Session, temporary table": lambda url: session_after(
        url, "CREATE TEMP TABLE recommendation_feedbacks ON COMMIT DROP AS TABLE tenant_7.recommendation_feedbacks"
    ),
}


def cases(*groups: tuple[bool, dict[str, Make]]) -> list[Any]:
    return [pytest.param(make, route, id=name) for route, makes in groups for name, make in makes.items()]


def exported(database: Any, **options: Any) -> int:
    stats = FeedbackProcessor(database, "out", key=KEY, **options).process_and_export(days_back=-1)
    return stats.total_feedback_records


@pytest.mark.sample(
    "Connection, search_path",
    "Engine, connect hook",
    "Engine, hook on statements",
    "Engine, schema_translate_map",
    "Session in a savepoint",
    "Session, search_path",
    "Session, temporary table",
)
@pytest.mark.parametrize(("make", "by_connectorx"), cases((True, BY_CONNECTORX), (False, BY_SQLALCHEMY)))
def test_tenant_of_caller_is_read(url: str, make: Make, by_connectorx: bool) -> None:
    """Not the view of a new connection; with ConnectorX if schema and search path can be copied."""
    with make(url) as database:
        assert takes_connectorx(database) == by_connectorx
        assert read(database)["feedback_id"].to_list() == TENANT_7
        assert exported(database) == len(TENANT_7)
    assert read(url)["feedback_id"].to_list() == PUBLIC


def test_schema_translate_map_applies_to_db_schema(url: str) -> None:
    """The same as in SQLAlchemy; other schemas are unchanged."""
    engine = make_engine(url).execution_options(schema_translate_map={"tenant": "tenant_7"})
    assert read(engine, db_schema="tenant")["feedback_id"].to_list() == TENANT_7
    assert read(engine, db_schema="tenant_1")["feedback_id"].to_list() == TENANT_1
    assert read(engine)["feedback_id"].to_list() == PUBLIC


def test_schema_translate_map_with_query_is_refused(url: str) -> None:
    """SQLAlchemy does not translate text; the remedy of the message works."""
    query = select(url, "FROM tenant_7.recommendation_feedbacks")
    with pytest.raises(UsageError, match="The schema_translate_map does not apply to the text of a query"):
        read(in_schema(url, "tenant_7"), query=query)
    assert read(in_schema(url, "tenant_7").execution_options(schema_translate_map=None), query=query).height == 2


def test_session_settings_are_restored(url: str) -> None:
    """The search path, the transaction and the permission to write."""
    with session_after(url, "SET LOCAL search_path TO tenant_7", "SET LOCAL row_security TO on") as session:
        read(session)
        assert session.scalar(sa.text("SHOW search_path")) == "tenant_7"
        assert session.scalar(sa.text("SHOW transaction_read_only")) == "off"
        assert session.scalar(sa.text("SHOW row_security")) == "on"


class Base(DeclarativeBase):
    """The application's tables."""


class Record(Base):
    """A row that the application has loaded."""

    __tablename__ = "recommendation_records"
    id: Mapped[int] = mapped_column(primary_key=True)
    recommendation_id: Mapped[str]


def test_objects_of_an_idle_session_with_a_hook_stay_loaded(url: str) -> None:
    """The transaction of the hook is closed, not rolled back, which would expire them."""
    with Session(make_engine(url), expire_on_commit=False) as session:
        record = session.get_one(Record, 1)
        session.commit()
        sa.event.listen(session, "after_begin", lambda _, __, c: c.exec_driver_sql("SET LOCAL search_path TO tenant_7"))
        assert read(session)["feedback_id"].to_list() == TENANT_7
        assert not session.in_transaction()
        assert not sa.inspect(record).expired_attributes


# Roles and policies.


@pytest.fixture(scope="module")
def role(postgres_admin: sa.Engine) -> Iterator[str]:
    with new_postgres_reader(postgres_admin) as name:
        yield name


@pytest.fixture
def guarded(postgres_database: str, role: str) -> Iterator[str]:
    """A database whose policy shows only the rows of one tenant, which is a setting, except to the owner."""
    create_schema(postgres_database)
    fill(make_engine(postgres_database), records=RECORDS, feedbacks=feedbacks([1, 2]))
    execute(
        postgres_database,
        "ALTER TABLE recommendation_feedbacks ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY tenant ON recommendation_feedbacks USING (id = current_setting('app.tenant')::int)",
    )
    yield postgres_database
    execute(postgres_database, f"DROP OWNED BY {role}")


TENANT = "SELECT set_config('app.tenant', '2', {})"


@pytest.mark.sample("false-Session", "false-after_begin hook", "true-Connection")
@pytest.mark.parametrize("made", ["Session", "Connection", "after_begin hook"])
@pytest.mark.parametrize("of_transaction", ["true", "false"])
def test_row_security_policy_applies_as_for_the_caller(guarded: str, role: str, made: str, of_transaction: str) -> None:
    """The policy depends on a setting that cannot be listed, so the caller's connection is read."""
    statements = f"SET ROLE {role}", TENANT.format(of_transaction)
    if made == "Session":
        place: Any = session_after(guarded, *statements)
    elif made == "Connection":
        place = connection_after(guarded, "BEGIN", *statements)
    else:
        session = Session(make_engine(guarded))
        sa.event.listen(
            session, "after_begin", lambda _, __, c: [c.exec_driver_sql(statement) for statement in statements]
        )
        place = session
    with place as database:
        assert read(database, allow_row_security=True)["feedback_id"].to_list() == [2]
        assert exported(database, allow_row_security=True) == 1
        with pytest.raises(SourceError, match=f"hides rows of recommendation_feedbacks from the role {role}"):
            read(database)
        if made == "Session":
            assert database.scalar(sa.text("SHOW row_security")) == "on"
            assert database.scalar(sa.text("SHOW app.tenant")) == "2"
    assert read(guarded)["feedback_id"].to_list() == [1, 2]


def test_view_that_depends_on_a_setting_is_read_through_the_session(postgres_database: str) -> None:
    """The same as for a policy."""
    create_schema(postgres_database)
    fill(make_engine(postgres_database), records=RECORDS, feedbacks=feedbacks([1, 2]))
    execute(
        postgres_database,
        "ALTER TABLE recommendation_feedbacks RENAME TO all_feedbacks",
        "CREATE VIEW recommendation_feedbacks AS SELECT * FROM all_feedbacks "
        "WHERE id = current_setting('app.tenant', true)::int",
    )
    with session_after(postgres_database, TENANT.format("false")) as session:
        assert read(session)["feedback_id"].to_list() == [2]


@pytest.mark.parametrize("change", ["SET ROLE {}", "SET SESSION AUTHORIZATION {}"])
def test_role_of_session_is_used(url: str, role: str, change: str) -> None:
    """The role's schema is first in the search path."""
    execute(url, f"CREATE SCHEMA {role}", f"CREATE TABLE {role}.recommendation_feedbacks (LIKE tenant_7.photos)")
    with session_after(url, change.format(role)) as session:
        with pytest.raises(SourceError, match="recommendation_feedbacks has no column"):
            read(session)
        assert takes_connectorx(session) == ("ROLE" in change)
    execute(url, f"DROP SCHEMA {role} CASCADE")


def test_query_is_read_in_the_transaction_of_the_session(url: str) -> None:
    """A query can depend on any setting; uncommitted rows are part of the view."""
    query = select(url, feedback_id="current_setting('app.tenant')::int")
    with session_after(url, TENANT.format("true")) as session:
        assert read(session, query=query)["feedback_id"].to_list() == [2]


# Other databases.


def test_database_of_mysql_session_is_read(mysql_admin: sa.Engine) -> None:
    """USE selects another database, and a temporary table hides a table."""
    with new_mysql_database(mysql_admin) as first, new_mysql_database(mysql_admin) as second:
        for url, ids in ((first, PUBLIC), (second, TENANT_7)):
            with opened(url) as database:
                database.fill(records=RECORDS, feedbacks=feedbacks(ids))
        name = sa.make_url(second).database
        with session_after(first) as session:
            assert takes_connectorx(session)
            assert read(session)["feedback_id"].to_list() == PUBLIC
        with session_after(first, f"USE {name}") as session:
            assert read(session)["feedback_id"].to_list() == TENANT_7
        shadow = f"CREATE TEMPORARY TABLE recommendation_feedbacks AS SELECT * FROM {name}.recommendation_feedbacks"
        with session_after(first, shadow) as session:
            assert read(session)["feedback_id"].to_list() == TENANT_7
        with session_after(first, "SET @tenant = 5") as session:
            query = select(first, feedback_id="@tenant + 0")
            assert read(session, query=query)["feedback_id"].to_list() == [5]
        assert read(in_schema(first, str(name)))["feedback_id"].to_list() == TENANT_7


def test_schemas_of_sqlite_session_are_read(sqlite_database: Database, tmp_path: Path) -> None:
    """Attached databases and temporary tables."""
    other = f"sqlite:///{tmp_path}/other.db"
    create_schema(other)
    fill(make_engine(other), records=RECORDS, feedbacks=feedbacks(TENANT_7))
    sqlite_database.fill(records=RECORDS, feedbacks=feedbacks(PUBLIC))
    with session_after(sqlite_database.url) as session:
        assert takes_connectorx(session)
    with session_after(sqlite_database.url, f"ATTACH '{tmp_path}/other.db' AS other") as session:
        assert read(session)["feedback_id"].to_list() == PUBLIC
        assert read(session, db_schema="other")["feedback_id"].to_list() == TENANT_7
        session.execute(
            sa.text("CREATE TEMP TABLE recommendation_feedbacks AS SELECT * FROM other.recommendation_feedbacks")
        )
        assert read(session)["feedback_id"].to_list() == TENANT_7


# What changes nothing.


def test_tracing_hooks_do_not_prevent_connectorx(url: str) -> None:
    """They only observe statements; an application's hook may change them."""

    def watch(*_: Any) -> None: ...

    watch.__module__ = "sentry_sdk.integrations.sqlalchemy"
    engine = make_engine(url)
    sa.event.listen(engine, "before_cursor_execute", watch)
    assert takes_connectorx(engine)
    assert read(engine)["feedback_id"].to_list() == PUBLIC


def test_orm_filters_are_logged_as_not_applied(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are not a part of the database's view."""
    with Session(make_engine(url)) as session:
        sa.event.listen(session, "do_orm_execute", lambda _: None)
        assert read(session)["feedback_id"].to_list() == PUBLIC
    assert caplog.messages == ["filters that the session adds to ORM queries (do_orm_execute) do not apply to exports"]


def test_async_session_in_a_transaction_is_read_with_run_sync(url: str) -> None:
    """Its view cannot be queried from outside of its event loop."""
    pytest.importorskip("greenlet")
    import asyncio

    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def work() -> None:
        engine = create_async_engine(url, poolclass=sa.NullPool)
        async with AsyncSession(engine) as session:
            await session.execute(sa.text(SET))
            with pytest.raises(UsageError, match=r"call the export with session\.run_sync, or pass the engine"):
                read(session)
            frame = await session.run_sync(lambda within: read(within))
            assert frame["feedback_id"].to_list() == TENANT_7
        assert read(engine)["feedback_id"].to_list() == PUBLIC  # type: ignore[arg-type]

    asyncio.run(work())
