"""DuckDB, which ConnectorX cannot read: its own Arrow batches become the same raw columns."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from polars.testing import assert_frame_equal
from pseudonym_keys import KEY
from reading import NOW, read, read_query, select, takes_connectorx
from sqlalchemy.orm import Session
from test_database_refusals import refusal

import feedback_etl as fe
from feedback_etl.database import batches as batches_module
from feedback_etl.database import tables
from feedback_etl.database.batches import open_batches
from feedback_etl.database.connect import open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError, UsageError
from feedback_etl.options.read import ReadOptions

SCHEMAS = Path(__file__).parents[1] / "schemas"
FEEDBACKS = [
    (1, 7, 8, 1, 5, True, datetime(2025, 10, 25, 10, 0, 0, 5)),
    (2, 7, 2**31 - 1, 2, None, False, datetime(2025, 10, 24)),
    (3, None, 10, None, 4, None, datetime(2025, 10, 24)),
    (4, 9, 11, 1, 0, True, None),
]


def create(engine: sa.Engine, *more: str) -> None:
    """The default schema, as it is published for SQLite, with a few rows."""
    ddl = (SCHEMAS / "source.sqlite.sql").read_text(encoding="utf-8").split(";")
    columns = "id, user_id, analysis_id, recommendation_id, helpful_rating, would_recommend, created_at"
    with engine.begin() as connection:
        for statement in [*filter(str.strip, ddl), *more]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("INSERT INTO users SELECT * FROM range(5, 10)")
        connection.exec_driver_sql("INSERT INTO profiles VALUES (5, 7, 50), (3, 7, 30)")
        lists = """'["a", "é😀"]', '[]'"""
        connection.exec_driver_sql(
            f"INSERT INTO recommendation_records VALUES (1, 'rec_1', {lists}), (2, 'rec_2', NULL, NULL)"
        )
        statement = f"INSERT INTO recommendation_feedbacks ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        for row in FEEDBACKS:
            connection.exec_driver_sql(statement, row)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the default schema."""
    engine = sa.create_engine(f"duckdb:///{tmp_path}/app.duckdb", poolclass=sa.NullPool)
    create(engine)
    engine.dispose()
    return tmp_path / "app.duckdb"


@pytest.fixture
def url(path: Path) -> str:
    """Its URL."""
    return f"duckdb:///{path}"


def test_default_schema_is_exported_as_from_sqlite(url: str, tmp_path: Path, sqlite_database: Any) -> None:
    """The files of both databases are equal except for their names."""
    with sqlite_database.engine.begin() as connection:
        for table in tables.metadata.sorted_tables:
            source = sa.create_engine(url, connect_args={"read_only": True}, poolclass=sa.NullPool)
            with source.connect() as duck:
                rows = duck.exec_driver_sql(f"SELECT * FROM {table.name}").mappings().all()
            if rows:
                connection.execute(table.insert(), [dict(row) for row in rows])
    files = [
        Path(fe.export_feedback(given, days_back=-1, now=NOW, key=KEY, output_dir=tmp_path / str(n)).export_filename)
        for n, given in enumerate((url, sqlite_database.url))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_text().count("\n") == 3
    assert not takes_connectorx(url)


def test_duckdb_is_read_in_batches(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is a raw frame; together they contain all rows in order. No row becomes a Python tuple."""
    monkeypatch.delattr(batches_module, "_to_frame")
    with open_connection(url) as source:
        relation = inspect_source(source)
        with open_batches(source, relation, Window(None, NOW), ReadOptions(batch_size=3)) as batches:
            assert [batch["feedback_id"].to_list() for batch in batches] == [[2, 3, 1], [4]]


@pytest.mark.parametrize("given", ["engine", "connection", "session"])
def test_in_memory_duckdb_is_read_through_its_engine(given: str, url: str) -> None:
    """In a read-only transaction that ends with the reading."""
    engine = sa.create_engine("duckdb:///:memory:")
    create(engine)
    with engine.connect() as connection, Session(engine) as session:
        databases: dict[str, Any] = {"engine": engine, "connection": connection, "session": session}
        assert_frame_equal(read(databases[given]), read(url))
        with connection.begin():
            connection.exec_driver_sql("DELETE FROM recommendation_feedbacks")
    engine.dispose()


TYPES: list[tuple[str, str, Any]] = [
    ("feedback_id", "18446744073709551615::ubigint", 2**64 - 1),
    ("user_id", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("analysis_id", "-7::tinyint", -7),
    ("helpful_rating", "4.5::decimal(3,1)", 4.5),
    ("age", "4.5::double", 4.5),
    ("would_recommend", "false", False),
    ("would_recommend", "7", 7),
    ("rules_applied", "['a', 'b']", '["a","b"]'),
    ("rules_applied", "'[\"a\"]'::json", '["a"]'),
    ("rules_applied", "NULL::json", None),
    ("timeframe", "'2_weeks'::enum('1_week', '2_weeks')", "2_weeks"),
    ("created_at", "timestamptz '2025-10-25 12:00:00+02'", datetime(2025, 10, 25, 10)),
    ("created_at", "timestamp '2025-10-25 10:00:00.123456'", datetime(2025, 10, 25, 10, 0, 0, 123_456)),
    ("created_at", "timestamp '-infinity'", None),
]


@pytest.mark.parametrize(("column", "sql", "expected"), TYPES)
def test_every_accepted_type_is_read(url: str, column: str, sql: str, expected: Any) -> None:
    """Values are exact."""
    found = read(url, query=select(url, **{column: sql}))[column].item()
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("column", "sql", "message"),
    [
        ("helpful_rating", "'5'", "helpful_rating is varchar, expected a number"),
        ("user_id", "1::hugeint", "user_id is hugeint, expected an integer, a UUID or text"),
        ("created_at", "date '2025-10-25'", "created_at is date, expected a timestamp"),
        (
            "created_at",
            "timestamp '2025-10-25 10:00:00'::timestamp_ns",
            "created_at is timestamp_ns, expected a timestamp",
        ),
        ("age", "nonsense", "nonsense"),
        ("age", "error('canary-p4ssw0rd')::int", "stopped the query"),
        ("age", "(timeframe || '1')::int", "stopped the query"),
    ],
)
def test_query_errors_are_reported(url: str, column: str, sql: str, message: str) -> None:
    """The message contains no value of a row."""
    query = select(url, "FROM (SELECT 'canary-p4ssw0rd' AS timeframe)", **{"timeframe": "timeframe", column: sql})
    assert message in str(refusal(url, query=query))


def test_windows_and_consent_are_counted(url: str) -> None:
    """Half-open to the microsecond, in the order of times and ids as bytes."""
    window = Window(datetime(2025, 10, 24, 10), NOW)
    rows = "('b', 10, true), ('B', 10, true), ('a', 11, NULL), ('c', 9, true), ('d', 12, false)"
    values = f"(VALUES {rows}) AS v(id, h, c)"
    time = "timestamp '2025-10-24' + h * interval '1 hour'"
    query = select(url, f"FROM {values}", feedback_id="id", created_at=time, consent="c")
    frame, excluded = read_query(url, query, window)
    assert (frame["feedback_id"].to_list(), excluded) == (["B", "b"], 2)


def test_consent_of_default_tables_is_read(url: str) -> None:
    """SQLAlchemy cannot reflect columns there."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE users ADD COLUMN training_data_opt_out BOOLEAN")
        connection.exec_driver_sql("UPDATE users SET training_data_opt_out = (id = 7)")
    engine.dispose()
    assert read(url)["feedback_id"].to_list() == [3, 4]


@pytest.mark.parametrize(
    "sql", ["DELETE FROM users", "{}; DROP TABLE users", "INSERT INTO users {}", "{}) q; DROP TABLE users; --"]
)
def test_duckdb_is_read_only(url: str, path: Path, sql: str) -> None:
    """No byte of the file changes."""
    before = path.read_bytes()
    assert isinstance(refusal(url, query=sql.format(select(url))), SourceError | UsageError)
    with open_connection(url) as source, pytest.raises(sa.exc.DBAPIError, match="read-only"):
        source.connection.exec_driver_sql("DELETE FROM users")
    assert path.read_bytes() == before


def test_unopenable_file_is_reported(url: str, path: Path, tmp_path: Path) -> None:
    """Missing, no database, or open elsewhere."""
    assert str(refusal(f"duckdb:///{tmp_path}/missing.duckdb")).startswith("There is no DuckDB file at ")
    for name in ("feedback.csv", "feedback.db"):
        (tmp_path / name).write_text("id\n" * 9999)
        assert str(refusal(f"duckdb:///{tmp_path}/{name}")).endswith("it is not a DuckDB database.")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert "give its engine instead of the URL" in str(refusal(url))
        assert read(engine).height == read(connection).height == 4
    assert not list(tmp_path.glob("missing*"))


def test_missing_driver_is_reported_with_the_extra() -> None:
    """The message is one sentence with the command to install it."""
    code = (
        "import sys; sys.modules['duckdb_engine'] = None; import feedback_etl\n"
        "try: feedback_etl.load_feedback('duckdb:///:memory:')\n"
        "except feedback_etl.errors.UsageError as error: print(error)"
    )
    message = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert message == 'DuckDB needs a driver that is not installed: pip install "feedback-etl[duckdb]".\n'
