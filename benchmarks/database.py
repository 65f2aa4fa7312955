"""The databases that are exported: the default schema, filled with sample data through COPY."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from math import ceil
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo
from sqlalchemy.schema import CreateIndex, CreateTable

from feedback_etl.database import tables
from feedback_etl.demo.data import generate_tables
from feedback_etl.demo.parameters import FIRST_ANALYSIS, WINDOW_HOURS

TABLES = tables.metadata.sorted_tables
SEED = 7


def conninfo(url: sa.URL) -> str:
    """Return the URL for libpq and psql."""
    socket = {name: str(value) for name, value in url.query.items()}
    return make_conninfo(dbname=url.database, user=url.username, **socket)


def create(server: sa.URL, name: str, rows: int, now: datetime) -> sa.URL:
    """Create a database with `rows` rows of feedback from the 180 days before `now`, indexed and analysed."""
    with psycopg.connect(conninfo(server), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    url = server.set(database=name)
    with _filling(url) as connection:
        _create_tables(connection)
        for table, chunk in generate_tables(rows, seed=SEED, now=now):
            with connection.cursor() as cursor, cursor.copy(f"COPY {table.name} FROM STDIN") as copy:
                for row in chunk:
                    copy.write_row(row)
    return url


def grow(url: sa.URL, rows: int, wanted: int) -> None:
    """Put copies of everything before it, each 180 days earlier and with ids of its own, until there are enough rows.

    As in a real database, older rows have lower ids and come first.
    """
    copies = ceil(wanted / rows)
    with _filling(url) as connection:
        connection.execute("CREATE SCHEMA base")
        for table in TABLES:
            connection.execute(f"ALTER TABLE {table.name} SET SCHEMA base")
        _create_tables(connection)
        for table in TABLES:
            for earlier in reversed(range(copies)):
                shift = (copies - 1 - earlier) * (rows + FIRST_ANALYSIS)
                values = ", ".join(_shifted(column, shift, earlier) for column in table.columns)
                connection.execute(f"INSERT INTO {table.name} SELECT {values} FROM base.{table.name}")
        connection.execute("DROP SCHEMA base CASCADE")


def _shifted(column: sa.Column[Any], shift: int, earlier: int) -> str:
    is_id = column.name == "id" or column.name.endswith("_id")
    if is_id and isinstance(column.type, sa.Integer):
        return f"{column.name} + {shift}"
    if column.unique:
        return f"{column.name} || '_{earlier}'" if earlier else column.name
    if isinstance(column.type, sa.DateTime):
        return f"{column.name} - interval '{earlier * WINDOW_HOURS} hours'"
    return column.name


def start_of(url: sa.URL, rows: int) -> datetime:
    """Return the time since which there are this many rows."""
    query = "SELECT created_at FROM recommendation_feedbacks ORDER BY created_at DESC OFFSET %s LIMIT 1"
    with psycopg.connect(conninfo(url)) as connection:
        found: tuple[datetime] | None = connection.execute(query, [rows - 1]).fetchone()
    if found is None:
        raise ValueError(f"the database has fewer than {rows:,} rows")
    return found[0]


def server_version(url: sa.URL) -> str:
    """Such as 18.1."""
    with psycopg.connect(conninfo(url)) as connection:
        return str(connection.info.parameter_status("server_version"))


@contextmanager
def _filling(url: sa.URL) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection without foreign-key checks; index and analyse the tables at the end."""
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET client_min_messages = warning")
        yield connection
        for table in TABLES:
            for index in table.indexes:
                connection.execute(_ddl(CreateIndex(index)))
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _create_tables(connection: psycopg.Connection[Any]) -> None:
    for table in TABLES:
        connection.execute(_ddl(CreateTable(table)))


def _ddl(element: CreateTable | CreateIndex) -> str:
    return str(element.compile(dialect=tables.DIALECTS["postgresql"]))
