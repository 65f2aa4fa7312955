"""Read databases in tests by either route, with custom queries of literals."""

import time
from contextlib import closing
from datetime import datetime
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from feedback_etl.database import ages
from feedback_etl.database.batches import open_batches
from feedback_etl.database.connect import Database, open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.sql import count_excluded
from feedback_etl.database.statements import fetch_count
from feedback_etl.database.window import Window
from feedback_etl.options.read import ReadOptions
from feedback_etl.pipeline.load import load_feedback

NOW = datetime(2025, 10, 25, 12)
CANARY = "canary-jane@example.com"
"""A value that no message may contain."""
ROUTES = ("connectorx", "sqlalchemy")
by_both_routes = pytest.mark.parametrize("route", ROUTES)

_LITERALS = {
    "feedback_id": "1",
    "user_id": "2",
    "analysis_id": "3",
    "recommendation_id": "'rec_1'",
    "helpful_rating": "5",
    "product_satisfaction": "4",
    "routine_completion_pct": "80",
    "would_recommend": "1",
    "conditions_analyzed": """'["acne"]'""",
    "rules_applied": """'["r001"]'""",
    "timeframe": "'2_weeks'",
    "age": "25",
}
_TIME = {
    "sqlite": "'2025-10-25 10:00:00'",
    "postgresql": "timestamp '2025-10-25 10:00:00'",
    "mysql": "timestamp '2025-10-25 10:00:00'",
    "duckdb": "timestamp '2025-10-25 10:00:00'",
}
_OPTION = {"sqlite": "timeout=5", "postgresql": "keepalives=1", "mysql": "local_infile=false"}


def by(route: str, url: str) -> str:
    """Return the URL, or the URL with a harmless option that only SQLAlchemy supports."""
    if route == "connectorx":
        return url
    return f"{url}{'&' if '?' in url else '?'}{_OPTION[sa.make_url(url).get_backend_name()]}"


def select(url: str, rest: str = "", **changed: str | None) -> str:
    """Return a query of the raw columns as literals, except for the changed ones (None omits a column)."""
    columns = {**_LITERALS, "created_at": _TIME[sa.make_url(url).get_backend_name()], **changed}
    return f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in columns.items() if sql is not None)} {rest}"


def read(database: Database, **options: Any) -> pl.DataFrame:
    """Load the raw feedback before `NOW`, or that of other options of `load_feedback`."""
    chosen = {} if "since" in options else {"days_back": -1}
    return load_feedback(database, **{"now": NOW, **chosen, **options})


def read_query(database: Database, query: str, window: Window) -> tuple[pl.DataFrame, int]:
    """Read a custom query with a consent column: the rows with consent, and the number of others."""
    with open_connection(database) as source:
        relation = inspect_source(source, query=query)
        excluded = fetch_count(source, count_excluded(relation, window))
        with open_batches(source, relation, window, ReadOptions()) as batches:
            return pl.concat(batches, how="vertical_relaxed"), excluded


def read_slowly(database: Database, query: str, pause: float) -> int:
    """Count the rows of a custom query, with a pause (in seconds) after the first five."""
    with open_connection(database) as source:
        relation = inspect_source(source, query=query)
        with open_batches(source, relation, Window(None, NOW), ReadOptions(batch_size=5)) as batches:
            rows = next(batches).height
            time.sleep(pause)
            rows += sum(batch.height for batch in batches)
        return rows + fetch_count(source, "SELECT 0")


def takes_connectorx(database: Database) -> bool:
    """Return whether ConnectorX can read the database."""
    with open_connection(database) as source:
        return source.connectorx_url is not None


def execute(url: str, *statements: str) -> None:
    """Execute statements without parameters, and commit them."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection, closing(connection.connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


def fetch(url: str, statement: str) -> list[Any]:
    """Return the rows of a statement."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        return [tuple(row) for row in rows]


def record_separate_reads(monkeypatch: pytest.MonkeyPatch, table: Any, *modules: ModuleType) -> list[Any]:
    """Let modules treat small windows as large ones; return the list to which the queries of a table are added."""
    queries, collect_table = list[Any](), table.collect

    def collect(frames: Any, query: Any) -> Any:
        queries.append(query)
        return collect_table(frames, query)

    for module in modules:
        monkeypatch.setattr(module, "estimate_rows", lambda *_: ages.MIN_ROWS)
    monkeypatch.setattr(table, "collect", collect)
    return queries
