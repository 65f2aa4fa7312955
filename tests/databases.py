"""Databases of the default application schema, filled with exactly the rows a test gives."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from feedback_etl.database import tables

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Database:
    """A database of the default schema: `url` for the code under test, `engine` and `fill` for the test."""

    url: str
    engine: sa.Engine

    def fill(self, **rows: Sequence[Row]) -> None:
        """Insert rows, by the arguments of `fill`."""
        fill(self.engine, **rows)

    def clear(self) -> None:
        """Delete every row, so that one database serves many examples."""
        clear(self.engine)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database at `url` with the default schema created in it; no connection outlives the block."""
    engine = make_engine(url)
    try:
        create_schema(engine)
        yield Database(url, engine)
    finally:
        engine.dispose()


@contextmanager
def new_postgres_database(admin: sa.Engine, template: str | None = "template0") -> Iterator[str]:
    """The URL of a new database, dropped after the block with all its connections; empty, or a copy of another."""
    name = f"feedback_etl_test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"))
    try:
        yield admin.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def new_postgres_reader(admin: sa.Engine, password: str = "secret") -> Iterator[str]:
    """The name of a new role that can log in, reads every table and writes nothing; dropped after the block."""
    name = f"feedback_etl_test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE pg_read_all_data"))
    yield name
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP ROLE {name}"))


@contextmanager
def new_mysql_database(admin: sa.Engine) -> Iterator[str]:
    """The URL of a new, empty database, dropped after the block."""
    name = f"feedback_etl_test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"))
    try:
        yield admin.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name}"))


def make_engine(url: str) -> sa.Engine:
    """An engine that keeps no connection between uses, so that files can be copied and databases dropped."""
    return sa.create_engine(url, poolclass=sa.NullPool)


def create_schema(where: str | sa.Engine) -> None:
    """Create the tables of the default application schema."""
    tables.metadata.create_all(where if isinstance(where, sa.Engine) else make_engine(where))


def clear(engine: sa.Engine) -> None:
    """Delete every row of every table."""
    with engine.begin() as connection:
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(table.delete())


def fill(
    engine: sa.Engine,
    *,
    feedbacks: Sequence[Row] = (),
    records: Sequence[Row] = (),
    profiles: Sequence[Row] = (),
    users: Sequence[Row] | None = None,
    analyses: Sequence[Row] = (),
    photos: Sequence[Row] = (),
) -> None:
    """Insert the given rows; a key that a row does not give is NULL (ids: given by all rows or by none).

    Text reaches the database as it is, also in JSON and time columns (`null`, `oops`, `2025-10-25T10:00:00`);
    a list is written as JSON, a datetime as SQLAlchemy would on SQLite. Without `users`, there is one for
    each user_id among the profiles, since PostgreSQL asks for them.
    """
    if users is None:
        users = [{"id": user_id} for user_id in sorted({row["user_id"] for row in profiles if row.get("user_id")})]
    rows_of_table = {
        "photos": photos,
        "analyses": analyses,
        "users": users,
        "profiles": profiles,
        "recommendation_records": records,
        "recommendation_feedbacks": feedbacks,
    }
    with engine.begin() as connection:
        for name, rows in rows_of_table.items():
            if rows:
                columns = sorted({column for row in rows for column in row})
                # No column types: the driver gets each value as it is; the others take text for any type, as SQLite.
                table = sa.table(name, *map(sa.column, columns))
                values = [{column: _as_stored(row.get(column)) for column in columns} for row in rows]
                connection.execute(table.insert(), values)


def _as_stored(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    return value
