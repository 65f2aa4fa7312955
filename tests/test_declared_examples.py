"""The declared examples on each database, against an exporter in plain Python that uses nothing of this package."""

import csv
import hashlib
import hmac
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from clusters import EXECUTORS, NOW, environment, exported, frame_of
from processes import feedback_etl
from pseudonym_keys import KEY

import feedback_etl as fe
from feedback_etl.settings.model import load_settings

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = {
    "course_ratings": "create_courses.py",
    "shop_reviews": "create_shop.py",
    "chatbot_thumbs": "create_chatbot.py",
}
Row = Mapping[str, Any]


def pseudonym(domain: str, id_: object) -> str:
    return hmac.new(KEY.encode(), f"{domain}:{id_}".encode(), hashlib.sha256).hexdigest()[:16]


def to_time(value: Any) -> str:
    """Return a time as naive UTC in ISO 8601; SQLite has it as text."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time).isoformat()


def to_answer(value: Any) -> str:
    return "" if value is None else str(bool(value))


def to_range(age: int | None) -> str:
    edges = [(18, "<18"), (25, "18-25"), (35, "25-35"), (50, "35-50"), (200, "50+")]
    return "" if age is None else next(name for edge, name in edges if age < edge)


def export_courses(fetch: Callable[[str], list[Row]]) -> Iterator[dict[str, Any]]:
    """Yield course ratings; the subject of each is the rating itself."""
    tags: dict[Any, list[str]] = {}
    for row in fetch("SELECT * FROM course_rating_tags"):
        tags.setdefault(row["rating_id"], []).append(row["tag"])
    for row in fetch("SELECT * FROM course_ratings"):
        ratings = [row[name] for name in ("score", "difficulty", "would_take_again")]
        if ratings != [None, None, None]:
            yield {
                "analysis_hash": pseudonym("analysis_id", row["id"]),
                "course": str(row["course_id"]),
                "score": "" if row["score"] is None else str(float(row["score"])),
                "difficulty": "" if row["difficulty"] is None else str(row["difficulty"]),
                "take_again": to_answer(row["would_take_again"]),
                "tags": sorted(tags.get(row["id"], [])),
                "feedback_timestamp": to_time(row["rated_at"]),
            }


def export_reviews(fetch: Callable[[str], list[Row]]) -> Iterator[dict[str, Any]]:
    """Yield the reviews of customers who allow research."""
    customers = {row["customer_no"]: row for row in fetch("SELECT * FROM customers")}
    for row in fetch("SELECT * FROM reviews"):
        customer = customers[row["customer_no"]]
        if customer["allows_research"] and row["stars"] is not None:
            yield {
                "analysis_hash": pseudonym("analysis_id", row["review_no"]),
                "product": row["product"],
                "stars": str(row["stars"]),
                "topics": json.loads(row["topics"]) if isinstance(row["topics"], str) else row["topics"],
                "verified_purchase": to_answer(row["verified_purchase"]),
                "country": customer["country"],
                "age_range": to_range(customer["age"]),
                "feedback_timestamp": to_time(row["Sent at"]),
            }


def export_thumbs(fetch: Callable[[str], list[Row]]) -> Iterator[dict[str, Any]]:
    """Yield the thumbs with an answer, one pseudonym for each conversation."""
    for row in fetch("SELECT * FROM answer_feedback"):
        if row["thumbs_up"] is not None:
            yield {
                "analysis_hash": pseudonym("analysis_id", row["conversation_id"]),
                "thumbs_up": to_answer(row["thumbs_up"]),
                "message": pseudonym("message", row["message_id"]),
                "model": row["model"],
                "feedback_timestamp": to_time(row["created_at"]),
            }


EXPORTERS = {"course_ratings": export_courses, "shop_reviews": export_reviews, "chatbot_thumbs": export_thumbs}


def create(example: str, url: str) -> None:
    """Create the tables of an example."""
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / example / SCRIPTS[example])
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.create_tables(url)


def fetch_expected(example: str, url: str) -> list[dict[str, Any]]:
    """Return the rows that plain Python would export, in the order of time."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:

        def fetch(sql: str) -> list[Row]:
            return [dict(row) for row in connection.execute(sa.text(sql)).mappings()]

        rows = list(EXPORTERS[example](fetch))
    engine.dispose()
    return sorted(rows, key=lambda row: str(row["feedback_timestamp"]))


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/example.db"
    return str(request.getfixturevalue("postgres_database" if request.param == "postgresql" else "mysql_database"))


@pytest.mark.parametrize("example", SCRIPTS)
def test_example_exports_what_plain_python_exports(example: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row for row, with no other column; nothing that a person wrote is in the file."""
    create(example, url)
    shutil.copy(EXAMPLES / example / "feedback-etl.toml", ".")
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    done = feedback_etl("export", "--days", "-1", "--json")
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(done.stdout)["export_filename"])
    with path.open(newline="") as file:
        exported = list(csv.DictReader(file))
    expected = fetch_expected(example, url)
    lists = [name for name, value in expected[0].items() if isinstance(value, list)]
    for row in exported:
        assert row.pop("export_date")
        row.update({name: json.loads(row[name] or "[]") for name in lists})
    assert exported == expected
    assert len(expected) > 15
    for canary in ("Call me", "Bought it", "Example", "@example.org", "1 Sample Street"):
        assert canary not in path.read_text()


def export_items(items: str, fetch: Callable[[str], list[Row]]) -> Iterator[dict[str, str]]:
    """Yield the rated items of the exported reviews, in the order of time, then of the map or of the items' bytes."""
    exported = {pseudonym("analysis_id", row["review_no"]): row for row in fetch("SELECT * FROM reviews")}
    services = sorted(fetch("SELECT * FROM review_services"), key=lambda row: str(row["service"]).encode())
    for review in sorted(export_reviews(fetch), key=lambda review: str(review["feedback_timestamp"])):
        row = exported[review["analysis_hash"]]
        of_table = {each["service"]: each["points"] for each in services if each["review_no"] == row["review_no"]}
        bundle = row["bundle_ratings"]
        of_column = json.loads(bundle) if isinstance(bundle, str) else bundle
        for item, rating in (of_column if items == "bundle_ratings" else of_table).items():
            if rating is not None:
                number = str(rating) if items == "bundle_ratings" else str(float(rating))
                yield {
                    "analysis_hash": review["analysis_hash"],
                    "item": f"'{item}" if item.startswith("=") else item,
                    "rating": number,
                    "feedback_timestamp": review["feedback_timestamp"],
                }


def test_items_are_what_plain_python_exports(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a JSON map and from a table of items, with the pairs as they are without items."""
    create("shop_reviews", url)
    shutil.copy(EXAMPLES / "shop_reviews" / "feedback-etl.toml", ".")
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    options = load_settings().to_options(days_back=-1)
    plain = fe.export_feedback(url, options=options, output_dir="plain", key=KEY)
    for items in ("bundle_ratings", "service_ratings"):
        report = fe.export_feedback(url, options=options, output_dir=items, items=items, key=KEY)
        with Path(report.items_filename).open(newline="") as file:
            exported = list(csv.DictReader(file))
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:

            def fetch(sql: str, connection: sa.Connection = connection) -> list[Row]:
                return [dict(row) for row in connection.execute(sa.text(sql)).mappings()]

            expected = list(export_items(items, fetch))
        engine.dispose()
        assert exported == expected
        assert report.exported_items == len(expected) > 10
        pairs = [pl.read_csv(each.export_filename).drop("export_date") for each in (report, plain)]
        assert pairs[0].equals(pairs[1])


def test_lists_of_an_example_are_lists_in_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With commas in their elements."""
    database = f"sqlite:///{tmp_path}/example.db"
    create("course_ratings", database)
    shutil.copy(EXAMPLES / "course_ratings" / "feedback-etl.toml", ".")
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", database)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    done = feedback_etl("export", "--days", "-1", "--format", "parquet", "--json")
    assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(json.loads(done.stdout)["export_filename"])
    assert rows["tags"].to_list() == [row["tags"] or None for row in fetch_expected("course_ratings", database)]
    assert rows.schema["tags"] == pl.List(pl.String)


def test_how_to_shows_the_example() -> None:
    """As it is run above."""
    page = (EXAMPLES.parent / "docs" / "how-to" / "declared-source.md").read_text(encoding="utf-8")
    assert f"```text\n{(EXAMPLES / 'course_ratings' / 'feedback-etl.toml').read_text(encoding='utf-8')}```" in page


def test_two_joins_are_a_declared_query(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page shows it, on every database."""
    create("course_ratings", url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        kind = "uuid" if engine.dialect.name == "postgresql" else "char(36)"
        connection.exec_driver_sql("CREATE TABLE teachers (id integer PRIMARY KEY, employment varchar(20))")
        connection.exec_driver_sql(f"CREATE TABLE courses (id {kind}, teacher_id integer, faculty varchar(20))")
        connection.exec_driver_sql("INSERT INTO teachers VALUES (1, 'part-time')")
        connection.exec_driver_sql("INSERT INTO courses SELECT DISTINCT course_id, 1, 'arts' FROM course_ratings")
    engine.dispose()
    page = (EXAMPLES.parent / "docs" / "how-to" / "declared-source.md").read_text(encoding="utf-8")
    query, _, rest = page.partition("`feedback.sql`:\n\n```sql\n")[2].partition("```\n")
    Path("feedback.sql").write_text(query)
    Path("feedback-etl.toml").write_text(rest.partition("```text\n")[2].partition("```")[0])
    options = load_settings().to_options(days_back=-1)
    rows = fe.load_training(url, options=options, key=KEY)
    assert rows.columns[1:4] == ["score", "faculty", "employment"]
    assert rows["employment"].to_list() == ["part-time"] * rows.height
    assert rows["faculty"].to_list() == ["arts"] * len([row for row in fetch_scores(url) if row is not None])


def fetch_scores(url: str) -> list[Any]:
    """Return all scores."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [*connection.execute(sa.text("SELECT score FROM course_ratings")).scalars()]


def test_series_and_erasure_of_a_declared_source(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night exports what is new; the rows of an erased customer leave the file."""
    create("shop_reviews", postgres_database)
    shutil.copy(EXAMPLES / "shop_reviews" / "feedback-etl.toml", ".")
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", postgres_database)
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    first = len(fetch_expected("shop_reviews", postgres_database))
    exports = [json.loads(feedback_etl("export", "--incremental", "--days", "-1", "--json").stdout)]
    new = "INSERT INTO reviews VALUES (99, {customer}, 'SKU-9', 4, true, '', '[\"price\"]', now() AT TIME ZONE 'UTC')"
    customers = "SELECT customer_no FROM customers WHERE allows_research ORDER BY customer_no"
    engine = sa.create_engine(postgres_database, poolclass=sa.NullPool)
    with engine.begin() as connection:
        customer = connection.scalar(sa.text(customers))
        connection.execute(sa.text(new.format(customer=customer)))
        written = connection.scalar(
            sa.text(f"SELECT count(*) FROM reviews WHERE customer_no = {customer} AND stars IS NOT NULL")
        )
    exports.append(json.loads(feedback_etl("export", "--incremental", "--json").stdout))
    assert [export["exported_records"] for export in exports] == [first, 1]
    Path("ids").write_text(f"{customer}\n")
    erased = feedback_etl("erase", "--user-ids-file", "ids", "--json")
    assert erased.returncode == 0, erased.stderr
    assert json.loads(erased.stdout)["rows"] == written


def test_declared_source_in_parts_has_the_same_rows(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers read ranges of the joined tables, in the order of time."""
    create("shop_reviews", postgres_database)
    shutil.copy(EXAMPLES / "shop_reviews" / "feedback-etl.toml", ".")
    monkeypatch.setattr("feedback_etl.database.partitioning.MIN_ROWS_PER_TASK", 5)
    for name, value in environment(postgres_database).items():
        monkeypatch.setenv(name, value)
    options = load_settings().to_options()
    keywords: dict[str, Any] = {"source": options.read.source, "schema": options.privacy.schema}
    alone = exported(postgres_database, tmp_path / "alone", **keywords)
    with EXECUTORS["threads"]() as executor:
        shared = exported(postgres_database, tmp_path / "shared", executor=executor, **keywords)
    assert len([*Path(shared.export_filename).glob("*.csv")]) > 1
    monkeypatch.setattr("feedback_etl.database.ranges.PARALLEL_RANGE_ROWS", 5)
    bulk = exported(postgres_database, tmp_path / "bulk", bulk=True, **keywords)
    rows = [frame_of(report).drop("export_date") for report in (shared, bulk, alone)]
    assert rows[0].equals(rows[2])
    assert rows[1].equals(rows[2])
    planned = fe.plan(postgres_database, days_back=-1, now=NOW, **keywords)
    assert planned.rows == alone.total_feedback_records
    assert rows[0].height == len(fetch_expected("shop_reviews", postgres_database))
