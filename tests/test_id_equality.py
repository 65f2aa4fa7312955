"""Ids that are equal in the database are one person when people are counted, hashed, erased or excluded."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import sqlalchemy as sa
from databases import Database, make_engine, new_mysql_database, new_postgres_database
from folders import NOW, rows_of
from pseudonym_keys import KEY
from reading import ROUTES, by, execute, fetch, read, select

import feedback_etl as fe
from feedback_etl.compliance.check import check
from feedback_etl.database.connect import open_connection
from feedback_etl.database.inspection import inspect_source
from feedback_etl.database.lookups import fetch_canonical_ids
from feedback_etl.errors import SourceError
from feedback_etl.options.read import ReadOptions
from feedback_etl.privacy.keys import Key
from feedback_etl.records.catalog import list_manifests
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.source import SourceTable
from feedback_etl.settings.model import load_settings

CITEXT = (
    "CREATE TYPE citext",
    "CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT",
    "CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, INTERNALLENGTH = VARIABLE, STORAGE = extended, "
    "CATEGORY = 'S', COLLATABLE = true)",
    "CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE CAST (text AS citext) WITHOUT FUNCTION AS ASSIGNMENT",
)
"""The type as its extension defines it, for servers that come without, but for operators that no test needs."""


class Ids(NamedTuple):
    """Ids of a column type: spellings of one user, the canonical one first, and other people."""

    dialect: str
    declared: str
    spellings: tuple[str, ...]
    others: tuple[str, ...]


CASES = {
    "mysql": Ids("mysql", "varchar(20)", ("bob", "Bob", "BOB", "bob "), ("ada", "bo b", "a\\b", "it's")),
    "mysql-char": Ids("mysql", "char(20) collate utf8mb4_general_ci", ("bob", "Bob"), ("ada",)),
    "mysql-latin1": Ids("mysql", "varchar(20) character set latin1", ("vw", "Vw "), ("vv", "iy", "ii")),
    "mysql-utf16": Ids("mysql", "varchar(20) character set utf16", ("bob", "Bob "), ("ada",)),
    "mysql-nopad": Ids("mysql", "varchar(20) collate utf8mb4_unicode_nopad_ci", ("bob", "BOB"), ("bob ",)),
    "mysql-bin": Ids("mysql", "varchar(20) collate utf8mb4_bin", ("bób", "bób "), ("Bób", "bob")),
    "mysql-nopad-bin": Ids("mysql", "varchar(20) collate utf8mb4_nopad_bin", ("bób",), ("Bób", "bob", "bób ")),
    "postgresql": Ids("postgresql", "text", ("Bob",), ("bob", "BOB", "Bob ")),
    "postgresql-citext": Ids("postgresql", "citext", ("bob", "Bob", "BOB"), ("ada", "bob ")),
    "postgresql-domain": Ids("postgresql", "email", ("bob", "Bob"), ("ada",)),
    "postgresql-char": Ids("postgresql", "char(9)", ("bob", "bob "), ("Bob",)),
    "sqlite": Ids("sqlite", "text", ("Bob",), ("bob", "Bob ")),
    "sqlite-nocase": Ids("sqlite", "text COLLATE NOCASE", ("bob", "Bob", "BOB"), ("bob ", "É", "é")),
    "sqlite-rtrim": Ids("sqlite", "text COLLATE RTRIM", ("Bob", "Bob  "), ("bob",)),
    "duckdb-nocase": Ids("duckdb", "varchar COLLATE NOCASE", ("élan", "Élan", "ÉLAN"), ("elan", "élan ")),
    "duckdb-noaccent": Ids("duckdb", "varchar COLLATE NOCASE.NOACCENT", ("elan", "Élan"), ("ada",)),
}
ALL = pytest.mark.parametrize("case", CASES)


@contextmanager
def database_of(request: pytest.FixtureRequest, dialect: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    if dialect == "mysql":
        with new_mysql_database(request.getfixturevalue("mysql_admin")) as url:
            yield url
    elif dialect == "postgresql":
        with new_postgres_database(request.getfixturevalue("postgres_admin")) as url:
            has_extension = fetch(url, "SELECT 1 FROM pg_available_extensions WHERE name = 'citext'")
            create = ("CREATE EXTENSION citext",) if has_extension else CITEXT
            execute(url, *create, "CREATE DOMAIN email AS citext")
            yield url
    else:
        yield f"{dialect}:///{request.getfixturevalue('tmp_path')}/application.{dialect}"


@pytest.fixture
def url(request: pytest.FixtureRequest, case: str) -> Iterator[str]:
    """A database with a row of every spelling and of every other person of a case."""
    with database_of(request, CASES[case].dialect) as url:
        ids = CASES[case]
        execute(url, f"CREATE TABLE t (id int, who {ids.declared}, what {ids.declared})")
        add(url, *ids.spellings, *ids.others)
        yield url


def add(url: str, *users: str) -> None:
    """Add a row per id, which is also the id of its analysis."""
    rows = len(fetch(url, "SELECT id FROM t"))
    engine = make_engine(url)
    with engine.begin() as connection:
        for number, user in enumerate(users, rows + 1):
            columns = sa.table("t", sa.column("id"), sa.column("who"), sa.column("what"))
            connection.execute(columns.insert().values(id=number, who=user, what=user))


def query_of(url: str, collate: str = "") -> str:
    return select(
        url,
        "FROM t",
        feedback_id="id",
        user_id=f"who {collate}",
        analysis_id=f"what {collate}",
        recommendation_id="id",
    )


def export(url: str, folder: Path, **options: Any) -> Any:
    """An export of all rows with the pseudonym of each user."""
    usual: dict[str, Any] = {
        "days_back": -1,
        "now": NOW,
        "key": KEY,
        "output_dir": folder,
        "include_subject_hash": True,
    }
    return fe.export_feedback(url, query=query_of(url), **usual | options)


def pseudonym(domain: str, *ids: str) -> set[str]:
    hashes = fe.hash_id(pl.lit(pl.Series("id", ids)), key=KEY, domain=domain)
    return set(pl.select(hashes).to_series())


def erase(url: str, folder: Path, **options: Any) -> Any:
    return fe.privacy.erase(folder, database=url, query=query_of(url), keys=KEY, **options)


@pytest.mark.sample(
    "duckdb-nocase-sqlalchemy",
    "mysql-connectorx",
    "mysql-latin1-connectorx",
    "mysql-nopad-bin-sqlalchemy",
    "postgresql-char-sqlalchemy",
    "postgresql-citext-connectorx",
    "sqlite-nocase-connectorx",
    "sqlite-rtrim-sqlalchemy",
)
@pytest.mark.parametrize(
    ("case", "route"),
    [
        (case, route)
        for case, ids in CASES.items()
        for route in ROUTES
        if (ids.dialect, route) != ("duckdb", "connectorx")
    ],
)
def test_equal_spellings_of_an_id_are_one_person(url: str, case: str, route: str, tmp_path: Path) -> None:
    """They count once and have the pseudonym of the canonical spelling, which depends on no other row."""
    ids = CASES[case]
    report = export(by(route, url) if ids.dialect != "duckdb" else url, tmp_path / "exports")  # DuckDB has one route
    rows = rows_of(Path(report.export_filename))
    people = 1 + len(ids.others)
    if ids.declared not in ("citext", "email"):  # of which some servers have no operators here
        assert fetch(url, "SELECT count(DISTINCT who) FROM t") == [(people,)]
    assert (report.risk["k"], rows.height) == (people, len(ids.spellings) + len(ids.others))
    canonical = (ids.spellings[0], *(other.rstrip() if "char" in case else other for other in ids.others))
    assert set(rows["subject_hash"]) == pseudonym("subject_hash", *canonical)
    assert set(rows["analysis_hash"]) == pseudonym("analysis_id", *canonical)


@pytest.mark.sample(
    "duckdb-nocase-user_ids",
    "mysql-nopad-bin-analysis_ids",
    "mysql-user_ids",
    "postgresql-citext-user_ids",
    "sqlite-nocase-analysis_ids",
    "sqlite-user_ids",
)
@pytest.mark.parametrize("named", ["user_ids", "analysis_ids"])
@ALL
def test_any_spelling_erases_all_spellings_permanently(url: str, case: str, named: str, tmp_path: Path) -> None:
    """Also a spelling that the database lacks, and people without rows; excluded people stay excluded."""
    ids, folder = CASES[case], tmp_path / "exports"
    export(url, folder)
    for spelling in ids.spellings:
        assert erase(url, folder, dry_run=True, **{named: [spelling]}).rows == len(ids.spellings)
    execute(url, "DELETE FROM t WHERE id = 1")
    erased = erase(url, folder, **{named: [ids.spellings[-1]]})
    assert (erased.rows, erased.not_found) == (len(ids.spellings), [])
    assert erase(url, folder, **{named: [ids.spellings[0]]}).not_found == []
    add(url, ids.spellings[0])
    again = export(url, folder, now=NOW.replace(hour=13))
    assert (again.exported_records, again.erased_records) == (len(ids.others), len(ids.spellings))
    assert again.risk["k"] == len(ids.others)


@pytest.mark.sample("duckdb-nocase", "mysql", "postgresql-citext", "sqlite-nocase")
@ALL
def test_people_in_the_database_are_not_erased(url: str, case: str, tmp_path: Path) -> None:
    """In any present spelling of their id."""
    ids, folder = CASES[case], tmp_path / "exports"
    export(url, folder)
    execute(url, f"DELETE FROM t WHERE id < {len(ids.spellings)}")
    assert erase(url, folder, not_in_database=True).rows == 0
    execute(url, f"DELETE FROM t WHERE id = {len(ids.spellings)}")
    assert erase(url, folder, not_in_database=True).rows == len(ids.spellings)


@pytest.mark.sample(
    "mysql-{'bulk': True, 'workers': 2}",
    "postgresql-citext-{'executor': <class 'concurrent.futures.thread.ThreadPoolExecutor'>}",
)
@pytest.mark.parametrize("options", [{"bulk": True, "workers": 2}, {"executor": ThreadPoolExecutor}], ids=str)
@pytest.mark.parametrize("case", ["postgresql-citext", "mysql"])
def test_people_are_counted_across_parts(
    url: str, case: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the digests of workers, and for time ranges that are read in parallel."""
    for name, value in {"DATABASE_URL": url, "KEY": KEY}.items():
        monkeypatch.setenv(f"FEEDBACK_ETL_{name}", value)
    executor = ThreadPoolExecutor(2) if "executor" in options else None
    chosen = {"executor": executor} if executor else options
    report = export(url, tmp_path / "exports", batch_size=1, k=2, **chosen)
    assert report.risk["k"] == 1 + len(CASES[case].others)


@pytest.mark.sample("sqlite-nocase")
@pytest.mark.parametrize("case", ["mysql", "postgresql-citext", "sqlite-nocase"])
def test_checklist_finds_people_by_any_spelling(
    url: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasable people and withdrawn people in the files are reported."""
    ids, key = CASES[case], Key(KEY)
    consenting = tmp_path / "consenting.sql"
    consenting.write_text(query_of(url).replace(" FROM", f", id > {len(ids.spellings)} AS consent FROM"))
    export(url, tmp_path / "exports")
    for name, value in {"DATABASE_URL": url, "OUTPUT_DIR": tmp_path / "exports", "QUERY": consenting}.items():
        monkeypatch.setenv(f"FEEDBACK_ETL_{name}", str(value))
    items = {item.name: item for item in check(load_settings(), keys=[key], now=NOW)}
    assert items["erasure"].passed
    assert "contains 1 analyses of people who have withdrawn" in items["consent"].detail


def test_integer_ids_need_no_canonical_spelling(database: Database) -> None:
    """Integers, as in the default schema, are neither checked nor changed."""
    with open_connection(database.url) as source:
        relation = inspect_source(source)
    assert (dict(relation.comparisons), dict(relation.stored_ids)) == ({}, {})


def remedy_in(error: pytest.ExceptionInfo[SourceError]) -> str:
    """The remedy in the message: what a query has to yield."""
    found = re.search(r" yield (?:user_id|analysis_id) (COLLATE \S+)\.$", str(error.value))
    assert found, error.value
    return found[1]


REFUSED = {
    "letters of a language": ("varchar(9) collate utf8mb4_lithuanian_ci", ["ai", "ay"]),
    "two letters for one": ("varchar(9) collate utf8mb4_czech_ci", ["ch", "cH"]),
    "an accent": ("varchar(9)", ["José", "jose"]),
    "an accent of one byte": ("varchar(9) character set latin1", ["José", "jose"]),
    "a sign that is a letter to patterns": ("varchar(9)", ["\u212a", "k"]),
    "a sign of a wide character set": ("varchar(9) character set utf16", ["\u212a", "k"]),
    "a control character": ("varchar(9)", ["a\u0001", "a"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_unknown_collation_rules_of_mysql_are_refused_with_a_remedy(mysql_database: str, kind: str) -> None:
    """With a binary collation in a query, ids are compared by it."""
    declared, users = REFUSED[kind]
    execute(mysql_database, f"CREATE TABLE t (id int, who {declared}, what {declared})")
    add(mysql_database, *users)
    with pytest.raises(SourceError, match=r"^user_id ") as refused:
        read(mysql_database, query=query_of(mysql_database))
    assert not any(user in str(refused.value) for user in users if len(user) > 2)
    rows = read(mysql_database, query=query_of(mysql_database, remedy_in(refused)))
    assert rows["user_id"].to_list() == users
    altered = f"varchar(9) {remedy_in(refused)}"
    execute(mysql_database, f"ALTER TABLE t MODIFY who {altered}, MODIFY what {altered}")
    assert read(mysql_database, query=query_of(mysql_database)).equals(rows)


def test_ids_outside_the_window_are_not_checked(mysql_database: str) -> None:
    """Only ids in the window are checked."""
    execute(mysql_database, "CREATE TABLE t (id int, who varchar(9), what varchar(9))")
    add(mysql_database, "José")
    assert read(mysql_database, query=query_of(mysql_database), since="2025-10-25T11:00").is_empty()


def test_id_with_unknown_rules_is_not_partly_erased(mysql_database: str) -> None:
    """`bób` may be `bob`."""
    execute(mysql_database, "CREATE TABLE t (id int, who varchar(9), what varchar(9))")
    with pytest.raises(SourceError, match="printable ASCII"):
        fetch_canonical_ids(mysql_database, ReadOptions(query=query_of(mysql_database)), {"user_id": ["bób"]})


def test_nondeterministic_collation_of_postgresql_is_refused(postgres_database: str) -> None:
    """For all rules; servers without ICU have no such collation, so the catalogue marks another one."""
    execute(
        postgres_database,
        'CREATE SCHEMA "Other"',
        'CREATE COLLATION "Other"."Ci" FROM "C"',
        "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'Ci'",
        'CREATE TABLE t (id int, who varchar(9) COLLATE "Other"."Ci", what text)',
    )
    add(postgres_database, "Bob", "bob")
    with pytest.raises(SourceError, match=r"^user_id has the collation Ci ") as refused:
        read(postgres_database, query=query_of(postgres_database))
    rows = read(postgres_database, query=query_of(postgres_database, remedy_in(refused)))
    assert rows["user_id"].to_list() == ["Bob", "bob"]
    execute(postgres_database, f"ALTER TABLE t ALTER who TYPE varchar(9) {remedy_in(refused)}")
    assert read(postgres_database, query=query_of(postgres_database)).equals(rows)


def test_application_defined_collation_is_refused(sqlite_database: Database) -> None:
    """SQLite lets an application define a collation on its connections."""
    engine = make_engine(sqlite_database.url)

    def fold(first: str, second: str) -> int:
        first, second = first.casefold(), second.casefold()
        return (first > second) - (first < second)

    sa.event.listen(engine, "connect", lambda connection, _: connection.create_collation("unicode", fold))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id int, who text COLLATE unicode, what text)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1, 'É', 'É'), (2, 'é', 'é')")
    url = sqlite_database.url
    with pytest.raises(SourceError, match=r"^user_id has a collation ") as refused:
        read(engine, query=query_of(url))
    rows = read(engine, query=query_of(url, remedy_in(refused)))
    assert rows["user_id"].to_list() == ["É", "é"]


def test_remedy_names_how_the_source_can_have_a_query(sqlite_database: Database) -> None:
    """The one that is used, `--query` for the default tables, and that of the declaration for a declared table."""
    columns = (("feedback_id", "id"), ("user_id", "who"), ("created_at", "what"))
    schema = FeedbackSchema(ratings=(Rating(name="id", min=1, max=5),), item=None, dedup_key=("created_at",))
    execute(sqlite_database.url, "CREATE TABLE t (id int, who text, what text)")
    sources = {
        "default": None,
        "query": query_of(sqlite_database.url),
        "table": SourceTable(table="t", columns=columns),
        "declared query": SourceTable(query="SELECT * FROM t", columns=columns),
    }
    with open_connection(sqlite_database.url, ReadOptions()) as source:
        found = {
            name: inspect_source(
                source, query=own, schema=schema if isinstance(own, SourceTable) else CLASSIC_SCHEMA
            ).query_option
            for name, own in sources.items()
        }
    assert found == {
        "default": "a --query",
        "query": "the query",
        "table": "a query in [source] instead of the table",
        "declared query": "the query",
    }


def test_incremental_export_reads_each_row_once(mysql_database: str, tmp_path: Path) -> None:
    """Also in the next run, for any new spelling."""
    execute(mysql_database, "CREATE TABLE t (id int, who varchar(9), what varchar(9))")
    add(mysql_database, "Bob", "ada")
    first = export(mysql_database, tmp_path, incremental=True, lookback="1d")
    add(mysql_database, "BOB ")
    second = export(mysql_database, tmp_path, incremental=True, lookback="1d", now=NOW.replace(hour=13))
    assert (first.exported_records, second.exported_records) == (2, 1)
    hashes = [set(rows_of(tmp_path / str(manifest.data))["subject_hash"]) for manifest in list_manifests(tmp_path)]
    assert sorted(map(len, hashes)) == [1, 2]
    assert hashes[0] & hashes[1] == pseudonym("subject_hash", "bob")
