"""The role of `schemas/reader.postgresql.sql` reads feedback, and its --query cannot write."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from databases import create_schema, fill, make_engine
from folders import NOW
from pseudonym_keys import KEY

from feedback_etl.errors import SourceError
from feedback_etl.pipeline.export import export_feedback

SCRIPT = Path(__file__).parent.parent / "schemas" / "reader.postgresql.sql"
FEEDBACK = {
    "id": 1,
    "user_id": 1,
    "analysis_id": 7,
    "recommendation_id": 1,
    "helpful_rating": 5,
    "created_at": "2025-10-25 10:00:00",
}
RAW = (
    "SELECT f.id AS feedback_id, user_id, analysis_id, r.recommendation_id, helpful_rating, product_satisfaction,"
    " routine_completion_pct, would_recommend, conditions_analyzed, rules_applied, timeframe, {} AS age, created_at"
    " FROM recommendation_feedbacks f JOIN recommendation_records r ON r.id = f.recommendation_id"
)


@pytest.fixture
def owner(postgres_database: str) -> sa.Engine:
    """A database with one feedback, as its owner, a superuser."""
    create_schema(postgres_database)
    engine = make_engine(postgres_database)
    fill(engine, users=[{"id": 1}], records=[{"id": 1, "recommendation_id": "rec_1"}], feedbacks=[FEEDBACK])
    return engine


@pytest.fixture
def reader(owner: sa.Engine, postgres_admin: sa.Engine) -> Iterator[str]:
    """The URL of the database as the role of the script, renamed: roles belong to the whole server."""
    role = f"reader_{owner.url.database}"
    with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            SCRIPT.read_text(encoding="utf-8").replace("feedback_reader", role).replace("%", "%%")
        )
    yield owner.url.set(username=role).render_as_string(hide_password=False)
    owner.dispose()
    with postgres_admin.connect() as admin, owner.connect().execution_options(isolation_level="AUTOCOMMIT") as mine:
        mine.exec_driver_sql(f"DROP OWNED BY {role}")
        mine.close()
        admin.exec_driver_sql(f"DROP ROLE {role}")


def test_the_role_exports_the_default_tables(reader: str, tmp_path: Path) -> None:
    """It may read each table that an export reads."""
    assert export_feedback(reader, days_back=-1, key=KEY, output_dir=tmp_path, now=NOW).exported_records == 1


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which every user may write, the server's too."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_query_of_the_role_cannot_write(owner: sa.Engine, reader: str, tmp_path: Path, open_folder: Path) -> None:
    """A superuser's writes a file on the server although the session is read-only."""
    with owner.begin() as connection:
        large_object = connection.scalar(sa.text("SELECT lo_from_bytea(0, 'written')"))
    target = open_folder / "by the server"
    query = RAW.format(f"lo_export({large_object}, '{target}')")
    options = {"query": query, "days_back": -1, "key": KEY, "output_dir": tmp_path / "out", "now": NOW}
    with pytest.raises(SourceError, match=r"permission"):
        export_feedback(reader, **options)  # type: ignore[arg-type]
    assert not target.exists()
    export_feedback(owner.url.render_as_string(hide_password=False), **options)  # type: ignore[arg-type]
    assert target.read_bytes() == b"written"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO users VALUES (2)",
        "UPDATE users SET id = 3",
        "DELETE FROM users",
        "CREATE TABLE more (a int)",
        "SET default_transaction_read_only = off; INSERT INTO users VALUES (2)",
    ],
)
def test_the_role_cannot_write_by_other_means(reader: str, statement: str) -> None:
    """Neither in its read-only sessions nor after it has made them writable."""
    with make_engine(reader).connect() as connection, pytest.raises(sa.exc.DBAPIError, match=r"read-only|denied"):
        connection.exec_driver_sql(statement)
