"""Integers above 2**63 - 1, which MySQL, DuckDB and PostgreSQL's numeric have: rejected as out of range, no error.

Ids of that size are in the tests of each database.
"""

import itertools
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from frames import raw_frame
from reading import NOW, ROUTES, by, execute, select

import feedback_etl as fe
from feedback_etl.schema.column_types import ExtraColumn

LARGE = 2**64 - 1
RATINGS = ("helpful_rating", "product_satisfaction", "routine_completion_pct")
VISITS, WEIGHT, MEMBER = (
    ExtraColumn("visits", type="integer"),
    ExtraColumn("weight", type="number"),
    ExtraColumn("is_member", type="boolean"),
)


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "duckdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param in ("sqlite", "duckdb"):
        url = f"{request.param}:///{tmp_path}/app.{request.param}"
        execute(url, "CREATE TABLE t (x INTEGER)")
        return url
    found: str = request.getfixturevalue({"postgresql": "postgres_database", "mysql": "mysql_database"}[request.param])
    return found


def large(url: str, number: int = LARGE) -> str:
    """The number in SQL, of the type that the database has for it."""
    kind = {"postgresql": "numeric(20)", "mysql": "unsigned", "duckdb": "ubigint"}.get(
        sa.make_url(url).get_backend_name()
    )
    return f"CAST({number} AS {kind})" if kind else str(number)


def reasons(database: str, url: str, folder: Path, extra: list[ExtraColumn], **changed: str) -> dict[str, int]:
    """Return the reasons of rejection where one row in three has unusual values."""
    columns = {name: f"CASE n WHEN 3 THEN {sql} ELSE {large(url, 1)} END" for name, sql in changed.items()}
    numbers = "(SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3) AS v"
    query = select(url, f"FROM {numbers}", feedback_id="n", analysis_id="n", **columns)
    report = fe.export_feedback(
        database, days_back=-1, now=NOW, unkeyed=True, output_dir=folder, query=query, extra_columns=extra
    )
    assert report.exported_records + report.errors == 3
    return report.rejected_reasons


CASES = [
    *itertools.product(["postgresql", "mysql", "sqlite"], ROUTES),
    ("duckdb", "its own"),
]
on_every_database = pytest.mark.parametrize(("url", "route"), CASES, indirect=["url"])


@pytest.mark.sample("duckdb-its own", "mysql-connectorx", "postgresql-connectorx", "sqlite-sqlalchemy")
@on_every_database
def test_large_rating_is_out_of_range(url: str, tmp_path: Path, route: str) -> None:
    """Like a 6."""
    database = by(route, url) if route in ROUTES else url
    found = reasons(database, url, tmp_path / "out", [], **dict.fromkeys(RATINGS, large(url)))
    assert found == {f"{name}_out_of_range": 1 for name in RATINGS}


@pytest.mark.sample("duckdb-its own", "mysql-sqlalchemy", "postgresql-connectorx", "sqlite-connectorx")
@on_every_database
def test_large_age_is_implausible(url: str, tmp_path: Path, route: str) -> None:
    """Regardless of the other rows."""
    database = by(route, url) if route in ROUTES else url
    found = [
        reasons(database, url, tmp_path / name, [], age=sql) for name, sql in (("large", large(url)), ("old", "200"))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("url", "route"), [("mysql", route) for route in ROUTES] + [("duckdb", "")], indirect=["url"])
def test_large_declared_integer_is_out_of_range(url: str, tmp_path: Path, route: str) -> None:
    """And a boolean is none; a number has room for it."""
    database = by(route, url) if route else url
    found = reasons(
        database,
        url,
        tmp_path / "out",
        [VISITS, WEIGHT, MEMBER],
        visits=large(url),
        weight=large(url),
        is_member=large(url, 1),
    )
    assert found == {"visits_out_of_range": 1}
    found = reasons(database, url, tmp_path / "more", [MEMBER], is_member=large(url), would_recommend=large(url))
    assert found == {"is_member_not_boolean": 1, "would_recommend_not_boolean": 1}


@pytest.mark.parametrize(("url", "route"), [("mysql", route) for route in ROUTES] + [("duckdb", "")], indirect=["url"])
def test_large_declared_number_is_exported(url: str, tmp_path: Path, route: str) -> None:
    """As the nearest floating-point number."""
    query = select(url, weight=large(url))
    database = by(route, url) if route else url
    frame = fe.load_training(database, days_back=-1, now=NOW, unkeyed=True, query=query, extra_columns=[WEIGHT])
    assert frame["weight"].item() == float(LARGE)


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int128])
def test_large_integers_of_dataframes_are_judged_equally(dtype: type[pl.DataType]) -> None:
    """With a reason, and without an error of Polars'."""
    value = pl.lit(LARGE, pl.Int128).cast(dtype)
    names = [*RATINGS, "would_recommend", "visits", "is_member"]
    raw = raw_frame({}).with_columns(weight=value, **dict.fromkeys(names, value))
    extra = [VISITS, WEIGHT, MEMBER]
    assert fe.split_valid(raw, extra_columns=extra).rejected["reasons"].item().split(",") == [
        *(f"{name}_out_of_range" for name in RATINGS),
        "would_recommend_not_boolean",
        "visits_out_of_range",
        "is_member_not_boolean",
    ]
    pairs = fe.anonymize(raw, unkeyed=True, now=NOW, extra_columns=extra)
    assert pairs.select(*names, "weight").row(0) == (None,) * len(names) + (float(LARGE),)
