"""Databases of the default schema that serve one test after the other, emptied in between.

To create and drop one costs ten times as much as to empty it. A test may change more than rows: then the server's own
record of definitions differs from what it was, the database is dropped, and the next test gets a new one.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import psycopg
import pymysql
import sqlalchemy as sa
from databases import Database, opened

from feedback_etl.database import tables

TABLES = [table.name for table in tables.metadata.sorted_tables]

_CATALOGUES = (
    *("pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_constraint", "pg_attrdef", "pg_trigger", "pg_rewrite"),
    *(
        "pg_extension",
        "pg_policy",
        "pg_event_trigger",
        "pg_foreign_server",
        "pg_largeobject_metadata",
        "pg_default_acl",
    ),
)
_DEFINED = " UNION ALL ".join(
    [f"SELECT '{name}', count(*), sum(xmin::text::bigint) FROM {name} WHERE oid >= 16384" for name in _CATALOGUES]
    + ["SELECT 'columns', count(*), sum(xmin::text::bigint) FROM pg_attribute WHERE attrelid >= 16384"]
    + ["SELECT 'database', count(*), sum(xmin::text::bigint) FROM pg_database WHERE datname = current_database()"]
    + ["SELECT 'settings', count(*), sum(xmin::text::bigint) FROM pg_db_role_setting"]
)
"""How many definitions a PostgreSQL database has, and which transactions made them."""

_CHANGES = "SHOW GLOBAL STATUS WHERE Variable_name REGEXP '^Com_(create|alter|drop|rename|grant|revoke|optimize)' OR "
_CHANGES += "Variable_name REGEXP '^Com_(install|uninstall|load|set_password|analyze|repair)'"
"""Counts how often a MySQL server changed a definition."""


class PostgresCleaner:
    """Empty a PostgreSQL database, and detect changed definitions."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        options: dict[str, Any] = {name: str(value) for name, value in parsed.query.items()}
        options |= {"host": parsed.host, "port": parsed.port} if parsed.host else {}
        self._options = options | {"dbname": parsed.database, "user": parsed.username, "password": parsed.password}
        self._defined = self._definitions()

    def _definitions(self) -> list[Any]:
        with psycopg.connect(**self._options, autocommit=True) as connection:
            return connection.execute(_DEFINED).fetchall()

    def empty(self) -> bool:
        """Leave no row and no other connection; False if definitions were changed."""
        with psycopg.connect(**self._options, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if connection.execute(_DEFINED).fetchall() != self._defined:
                return False
            connection.execute(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY")
            self._defined = connection.execute(_DEFINED).fetchall()  # each table has a new file
            return True


class MysqlCleaner:
    """Empty a MySQL database, and detect changed definitions."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._options: dict[str, Any] = {"host": parsed.host, "port": parsed.port, "user": parsed.username}
        self._options |= {"password": parsed.password or "", "database": parsed.database}
        with pymysql.connect(**self._options) as connection, connection.cursor() as cursor:
            self._changes = _count_changes(cursor)

    def empty(self) -> bool:
        """Leave no row; False if definitions were changed, here or elsewhere on the server."""
        with pymysql.connect(**self._options, autocommit=True) as connection, connection.cursor() as cursor:
            if _count_changes(cursor) != self._changes:
                return False
            cursor.execute("SET foreign_key_checks = 0")
            for name in TABLES:
                if cursor.execute(f"DELETE FROM {name}"):
                    cursor.execute(f"ALTER TABLE {name} AUTO_INCREMENT = 1")
            self._changes = _count_changes(cursor)
            return True


def _count_changes(cursor: Any) -> list[Any]:
    cursor.execute(_CHANGES)
    return list(cursor.fetchall())


class ReusedDatabase:
    """A database that many tests use, one after the other."""

    def __init__(
        self, new: Callable[[], AbstractContextManager[str]], cleaner: Callable[[str], PostgresCleaner | MysqlCleaner]
    ) -> None:
        self._new, self._cleaner = new, cleaner
        self._stack = ExitStack()
        self._current: tuple[Database, PostgresCleaner | MysqlCleaner] | None = None

    @contextmanager
    def empty(self) -> Iterator[Database]:
        """Yield the database without rows."""
        if self._current is None:
            url = self._stack.enter_context(self._new())
            database = self._stack.enter_context(opened(url))
            self._current = database, self._cleaner(url)
        database, cleaner = self._current
        try:
            yield database
        finally:
            if not cleaner.empty():
                self.close()

    def close(self) -> None:
        """Drop the database."""
        self._current = None
        self._stack.close()
