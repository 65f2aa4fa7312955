"""A declared table is read with its own names, types, joins and lists, as plain SQL and Python would read it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from databases import new_mysql_database, new_postgres_database
from pseudonym_keys import KEY

from feedback_etl.database.batches import open_batches
from feedback_etl.database.connect import open_connection
from feedback_etl.database.hints import build_index_statement
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.relation import sample_table
from feedback_etl.database.sql import count_rows
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.errors import SourceError, UsageError
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.load import load_training
from feedback_etl.schema.feedback_columns import AgeColumn, ListColumn, Rating
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.source import ElementTable, Join, SourceTable
from feedback_etl.settings.model import load_settings

DIALECTS = ("sqlite", "postgresql", "mysql", "duckdb")
SCHEMA = FeedbackSchema(
    ratings=(Rating(name="stars", min=1, max=5, step=0.5), Rating(name="again", type="boolean")),
    lists=(ListColumn(raw_name="tags", name="tags", reason="tags_not_a_list"),),
    item=None,
    dedup_key=("analysis_id", "created_at"),
)
TABLES = """
CREATE TABLE "People" ("No" integer PRIMARY KEY, "may use" boolean);
CREATE TABLE "Order" ("Id" integer PRIMARY KEY, person integer, "select" numeric(3,1), again boolean, "at" timestamp);
CREATE TABLE labels (order_id integer, label varchar(40));
INSERT INTO "People" VALUES (1, true), (2, false), (3, NULL);
INSERT INTO "Order" VALUES (10, 1, 4.5, true, '2025-10-01 10:00:00'), (11, 2, 3, NULL, '2025-10-02 10:00:00'),
    (12, 3, 2, false, '2025-10-03 10:00:00'), (13, 1, NULL, false, '2025-10-04 10:00:00'),
    (14, 9, 1, true, '2025-10-05 10:00:00');
INSERT INTO labels VALUES (10, 'b, c'), (10, 'a "quoted"'), (10, NULL), (11, 'x'), (99, 'y');
"""
MYSQL_TABLES = TABLES.replace('"', "`").replace("`quoted`", '"quoted"').replace("timestamp", "datetime(6)")
SOURCE = SourceTable(
    table="Order",
    columns=(
        ("feedback_id", "Id"),
        ("user_id", "person"),
        ("created_at", "at"),
        ("stars", "select"),
        ("consent", "may use"),
    ),
    join=Join("People", (("person", "No"),)),
    elements=(("tags", ElementTable(Join("labels", (("Id", "order_id"),)), "label")),),
)
EVERYTHING = Window(None, datetime(2026, 1, 1))


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A database of each dialect with the tables."""
    folder = tmp_path_factory.mktemp("declared")
    with (
        new_postgres_database(request.getfixturevalue("postgres_admin")) as postgres,
        new_mysql_database(request.getfixturevalue("mysql_admin")) as mysql,
    ):
        urls = {
            "sqlite": f"sqlite:///{folder}/shop.db",
            "postgresql": postgres,
            "mysql": mysql,
            "duckdb": f"duckdb:///{folder}/shop.duckdb",
        }
        for dialect, url in urls.items():
            execute(url, MYSQL_TABLES if dialect == "mysql" else TABLES)
        yield urls


def execute(url: str, script: str) -> None:
    """Execute statements."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in filter(str.strip, script.split(";\n")):
            connection.exec_driver_sql(statement)
    engine.dispose()


def read(url: str, source: SourceTable, schema: FeedbackSchema = SCHEMA, window: Window = EVERYTHING) -> pl.DataFrame:
    """Return the raw rows of a declared source."""
    options = ReadOptions(source=source)
    with open_connection(url, options) as connection:
        relation = inspect_source(connection, query=source, schema=schema)
        with open_batches(connection, relation, window, options) as batches:
            return pl.concat(batches, how="vertical_relaxed")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_declared_columns_are_read_by_their_raw_names(urls: dict[str, str], dialect: str) -> None:
    """Names that must be quoted, a consent of a joined table, and the sorted elements of a list."""
    rows = read(urls[dialect], SOURCE)
    assert rows.columns == ["feedback_id", "user_id", "analysis_id", "stars", "again", "tags", "created_at"]
    assert [(*row[:5], json.loads(row[5]), row[6]) for row in rows.rows()] == [
        (10, 1, 10, 4.5, True, ['a "quoted"', "b, c"], datetime(2025, 10, 1, 10)),
        (13, 1, 13, None, False, [], datetime(2025, 10, 4, 10)),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_window_of_a_declared_source_is_half_open(urls: dict[str, str], dialect: str) -> None:
    """Also where its time is read from the joined rows."""
    window = Window(datetime(2025, 10, 1, 10), datetime(2025, 10, 4, 10))
    assert read(urls[dialect], SOURCE, window=window)["feedback_id"].to_list() == [10]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_query_with_other_names_is_declared(urls: dict[str, str], dialect: str) -> None:
    """Its columns are renamed, and others are not read."""
    query = "SELECT 1 AS n, 4.5 AS mark, CAST('2025-10-01 10:00:00' AS {}) AS t, 'secret' AS mail"
    types = {"sqlite": "text", "mysql": "datetime"}
    query = query.format(types.get(dialect, "timestamp"))
    source = SourceTable(query=query, columns=(("feedback_id", "n"), ("created_at", "t"), ("stars", "mark")))
    schema = FeedbackSchema(ratings=SCHEMA.ratings[:1], item=None, dedup_key=SCHEMA.dedup_key)
    assert read(urls[dialect], source, schema).rows() == [(1, None, 1, 4.5, datetime(2025, 10, 1, 10))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "Orders"}, r"no table Orders, which \[source\] names. It has: Order, People, labels"),
        (
            {"columns": (*SOURCE.columns, ("created_at", "sent"))},
            "Order has no column sent, .*for created_at .it has Id",
        ),
        ({"join": Join("People", (("person", "Nr"),))}, r"People has no column Nr, .* for \[source.join\]"),
        ({"join": Join("labels", (("Id", "order_id"),))}, "labels has several rows with the same order_id"),
        (
            {"elements": (("tags", ElementTable(Join("tags", (("Id", "x"),)), "t")),)},
            "no table tags, .*lists.tags",
        ),
    ],
)
def test_what_the_database_lacks_is_named(urls: dict[str, str], changes: dict[str, Any], message: str) -> None:
    """With the key of the declaration, before a row is read."""
    with pytest.raises(SourceError, match=message):
        read(urls["sqlite"], replace(SOURCE, **changes))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"columns": SOURCE.columns}, "either a table or a query"),
        ({"table": "t", "query": "SELECT 1", "columns": SOURCE.columns}, "either a table or a query"),
        ({"query": "SELECT 1", "columns": SOURCE.columns, "join": SOURCE.join}, "join it in the query"),
        ({"table": "t"}, "must name the column of feedback_id and created_at"),
    ],
)
def test_contradictory_sources_are_refused(source: dict[str, Any], message: str) -> None:
    """With a sentence."""
    with pytest.raises(UsageError, match=message):
        SourceTable(**source)


def test_index_and_sample_name_the_columns_of_the_table(urls: dict[str, str]) -> None:
    """Not the raw columns; a table is sampled where it is not joined."""
    source = replace(SOURCE, join=None, elements=(), columns=SOURCE.columns[:4])
    with open_connection(urls["postgresql"]) as connection:
        relation = inspect_source(connection, query=source, schema=replace(SCHEMA, lists=()))
        statement = build_index_statement(connection, relation)
        joined = inspect_source(connection, query=SOURCE, schema=SCHEMA)
        assert statement == build_index_statement(connection, joined)
        assert 0 <= fetch_count(connection, count_rows(sample_table(relation, 0.5), EVERYTHING)) <= 5
        assert (relation.table is None, joined.table is None) == (False, True)
    assert statement == 'CREATE INDEX CONCURRENTLY ON "Order" (at);'


def test_image_urls_of_a_declared_source_are_refused(urls: dict[str, str]) -> None:
    """They would be read without the opt-in of the default tables."""
    with pytest.raises(UsageError, match=r"cannot be combined with \[source\]"):
        load_training(urls["sqlite"], key=KEY, source=SOURCE, schema=SCHEMA, include_image_urls=True)


BORN = replace(SCHEMA, ratings=SCHEMA.ratings[:1], lists=(), age=AgeColumn(raw_name="date_of_birth"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dates_of_birth_are_dates_on_each_database(urls: dict[str, str], dialect: str) -> None:
    """Those that no driver can read are null."""
    unreadable = {"postgresql": "'infinity'", "duckdb": "'infinity'", "mysql": "'0000-00-00'", "sqlite": "'soon'"}
    kind, table = "text" if dialect == "sqlite" else "date", "births"
    execute(
        urls[dialect],
        f"CREATE TABLE {table} (id integer, born {kind}, sent timestamp, stars integer);\n"
        f"INSERT INTO {table} VALUES (1, '1990-02-28', '2025-10-01 10:00:00', 5);\n"
        f"INSERT INTO {table} VALUES (2, NULL, '2025-10-02 10:00:00', 4);\n"
        + ("SET SESSION sql_mode = '';\n" if dialect == "mysql" else "")
        + f"INSERT INTO {table} VALUES (3, {unreadable[dialect]}, '2025-10-03 10:00:00', 3)",
    )
    columns = (("feedback_id", "id"), ("created_at", "sent"), ("date_of_birth", "born"))
    rows = read(urls[dialect], SourceTable(table=table, columns=columns), BORN)
    assert rows["date_of_birth"].to_list() == [date(1990, 2, 28), None, None]


def test_arrays_and_views_of_another_schema_are_read(urls: dict[str, str]) -> None:
    """On PostgreSQL, with the name of the schema."""
    execute(
        urls["postgresql"],
        """CREATE SCHEMA "My Shop";
CREATE TABLE "My Shop".notes (id uuid, tags varchar(20)[], sent timestamptz, stars integer);
CREATE VIEW "My Shop".rated AS SELECT * FROM "My Shop".notes WHERE stars IS NOT NULL;
INSERT INTO "My Shop".notes VALUES
    ('00000000-0000-4000-8000-000000000001', ARRAY['a, b', 'c'], '2025-10-01 12:00:00+02', 5),
    ('00000000-0000-4000-8000-000000000002', NULL, '2025-10-02 12:00:00+02', 4),
    ('00000000-0000-4000-8000-000000000003', NULL, '2025-10-03 12:00:00+02', NULL)""",
    )
    source = SourceTable(table="My Shop.rated", columns=(("feedback_id", "id"), ("created_at", "sent")))
    rows = read(urls["postgresql"], source, replace(BORN, age=None, lists=SCHEMA.lists))
    assert rows["feedback_id"].to_list() == [f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2)]
    assert rows["tags"].to_list() == ['["a, b","c"]', None]
    assert rows["created_at"].to_list() == [datetime(2025, 10, 1, 10), datetime(2025, 10, 2, 10)]


def test_settings_file_declares_a_source() -> None:
    """The tables of the file become one value; what is missing is named."""
    text = """
    [source]
    table = "Order"
    feedback_id = "Id"
    user_id = "person"
    created_at = "at"
    consent = "may use"
    join = { table = "People", on = { person = "No" } }
    [ratings]
    stars = { min = 1, max = 5, column = "select" }
    [lists.tags]
    column = "label"
    join = { table = "labels", on = { Id = "order_id" } }
    """
    Path("feedback-etl.toml").write_text(text)
    source = load_settings().to_options().read.source
    assert source is not None
    assert {*source.columns} == {*SOURCE.columns}
    assert replace(source, columns=SOURCE.columns) == SOURCE
    Path("feedback-etl.toml").write_text(text.replace('feedback_id = "Id"', ""))
    with pytest.raises(UsageError, match=r"source.feedback_id is missing"):
        load_settings()
    Path("feedback-etl.toml").write_text(f'query = "own.sql"{text}')
    Path("own.sql").write_text("SELECT 1")
    with pytest.raises(UsageError, match=r"`query` and \[source\] exclude each other"):
        load_settings().to_options()
