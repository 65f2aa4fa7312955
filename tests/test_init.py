"""`feedback-etl init` against real databases: the file that it writes, its questions and refusals."""

import csv
import json
import sqlite3
import stat
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from databases import Database
from processes import Here, feedback_etl, on_terminal
from pseudonym_keys import KEY

SCRIPT = """
CREATE TABLE customers (id integer PRIMARY KEY, name varchar(80), may_use_consent boolean);
CREATE TABLE reviews (
    id integer PRIMARY KEY, customer_id integer REFERENCES customers (id), stars numeric(3,1), liked boolean,
    comment text, email varchar(60), rated_at {time}
);
CREATE TABLE review_tags (review_id integer REFERENCES reviews (id), tag varchar(20));
INSERT INTO customers VALUES (1, 'Ann', true), (2, 'Bob', false);
INSERT INTO reviews VALUES (10, 1, 4.5, true, 'canary text', 'canary@example.org', '2025-10-01 10:00:00'),
    (11, 2, 9, false, NULL, NULL, '2025-10-02 10:00:00'), (12, 1, NULL, true, NULL, NULL, '2025-10-03 10:00:00');
INSERT INTO review_tags VALUES (10, 'good, cheap'), (10, 'big')
"""
DECLARATION: dict[str, Any] = {
    "source": {
        "table": "reviews",
        "feedback_id": "id",
        "user_id": "customer_id",
        "created_at": "rated_at",
        "consent": "customers.may_use_consent",
        "join": {"table": "customers", "on": {"customer_id": "id"}},
    },
    "ratings": {"stars": {"min": 1, "max": 10, "step": 0.5}, "liked": {"type": "boolean"}},
    "lists": {"tags": {"column": "tag", "join": {"table": "review_tags", "on": {"id": "review_id"}}}},
}
FILE = Path("feedback-etl.toml")


def create_shop(url: str) -> str:
    """Create the tables of a shop; return the URL."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    time = "datetime(6)" if engine.dialect.name in ("mysql", "mariadb") else "timestamp"
    with engine.begin() as connection:
        for statement in SCRIPT.format(time=time).split(";\n"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return url


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """Return the URL of a shop in SQLite."""
    return create_shop(f"sqlite:///{tmp_path}/shop.db")


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Return a runner of command lines in this process."""
    return Here(capfd, monkeypatch)


def read_declaration() -> dict[str, Any]:
    """Return the written file without the URL."""
    return {name: value for name, value in tomllib.loads(FILE.read_text()).items() if name != "database_url"}


def test_declaration_is_written_and_summarized(here: Here, shop: str) -> None:
    """It contains no value of a row but the limits of ratings."""
    ended = here("init", shop, "--yes")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines() == [
        "table      reviews",
        "exported   stars, liked, tags",
        "left out   comment, email: may be personal",
        "written    feedback-etl.toml: check every line of it",
        "Next: feedback-etl preview --days -1",
    ]
    assert read_declaration() == DECLARATION
    text = FILE.read_text()
    assert "canary" not in text
    assert tomllib.loads(text)["database_url"] == shop
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600


def test_missing_consent_is_reported(here: Here, shop: str) -> None:
    """Since every row would be exported."""
    engine = sa.create_engine(shop)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE customers RENAME COLUMN may_use_consent TO is_active")
    lines = here("init", shop, "--yes").err.splitlines()
    assert "consent    no column of consent was found: the feedback of all users would be exported" in lines
    assert "consent" not in read_declaration()["source"]


@pytest.mark.parametrize("kind", ["postgres_database", "mysql_database"])
def test_servers_are_reflected(here: Here, request: pytest.FixtureRequest, kind: str) -> None:
    """The URL comes from the environment, since it may have a password, and is not written."""
    url = create_shop(request.getfixturevalue(kind))
    request.getfixturevalue("monkeypatch").setenv("FEEDBACK_ETL_DATABASE_URL", url)
    assert here("init", "--yes").code == 0
    assert read_declaration() == DECLARATION
    assert "database_url" not in tomllib.loads(FILE.read_text())


def test_file_is_never_overwritten(here: Here, shop: str) -> None:
    """Nor is a dangling link followed."""
    FILE.symlink_to("elsewhere")
    ended = here("init", shop, "--yes")
    assert (ended.code, ended.err) == (
        2,
        "error: feedback-etl.toml exists, and `init` never overwrites a file: name another one with --output.\n",
    )
    assert here("init", shop, "--yes", "-o", "other file.toml").err.endswith(
        "Next: mv 'other file.toml' feedback-etl.toml && feedback-etl preview --days -1\n"
    )
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "`init` asks its questions on a terminal: pass --yes to accept its proposals elsewhere."),
        (("--yes", "--table", "orders"), 2, "The database has no table orders (--table). Its tables are: customers, "),
        (("--yes", "--table", "customers"), 3, "No column of customers looks like a time or a rating. "),
    ],
)
def test_what_cannot_be_proposed_is_a_sentence(
    here: Here, shop: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """And nothing is written."""
    ended = here("init", shop, *arguments)
    assert (ended.code, ended.err.startswith(f"error: {message}")) == (code, True), ended.err
    assert not FILE.exists()


def test_database_without_feedback_is_reported(here: Here, tmp_path: Path) -> None:
    """With its tables."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id integer PRIMARY KEY, created_at timestamp)")
    ended = here("init", str(engine.url), "--yes")
    assert ended.code == 3
    assert ended.err.endswith("Name one with --table: orders.\n")


def test_tables_of_another_schema_are_found_by_its_name(here: Here, postgres_database: str) -> None:
    """Without it, none is visible."""
    engine = sa.create_engine(create_shop(postgres_database), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA app")
        for table in ("customers", "reviews", "review_tags"):
            connection.exec_driver_sql(f"ALTER TABLE {table} SET SCHEMA app")
    ended = here("init", postgres_database, "--yes")
    message = "No table is visible to this user in the default schema: name another one with --db-schema."
    assert (ended.code, ended.err) == (3, f"error: {message}\n")
    assert here("init", postgres_database, "--yes", "--db-schema", "app").code == 0
    assert read_declaration()["source"]["table"] == "app.reviews"


def test_tables_that_the_user_may_not_read_are_left_out(here: Here, postgres_database: str) -> None:
    """Also where they refer to the feedback, and columns that are not granted."""
    engine = sa.create_engine(create_shop(postgres_database), poolclass=sa.NullPool)
    statements = (
        "CREATE TABLE review_notes (review_id integer REFERENCES reviews (id), product_id integer, stars integer)",
        "ALTER TABLE review_notes ADD COLUMN body text",
        "ALTER TABLE reviews ADD COLUMN hidden_notes text",
        "CREATE ROLE shop_reader LOGIN",
        "GRANT SELECT ON customers, review_tags TO shop_reader",
    )
    with engine.begin() as connection:
        names = [column["name"] for column in sa.inspect(connection).get_columns("reviews")]
        for statement in (*statements, f"GRANT SELECT ({', '.join(names)}) ON reviews TO shop_reader"):
            connection.exec_driver_sql(statement)
    try:
        reader = sa.make_url(postgres_database).set(username="shop_reader").render_as_string(hide_password=False)
        ended = here("init", reader, "--yes")
        assert ended.code == 0, ended.err
        assert read_declaration()["source"]["table"] == "reviews"
        assert "notes" not in ended.err + Path("feedback-etl.toml").read_text()
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY shop_reader")
            connection.exec_driver_sql("DROP ROLE shop_reader")


def test_columns_of_files_are_found_by_their_values(here: Here, tmp_path: Path) -> None:
    """Which are all text in CSV; an id with leading zeros is not a number. The written file exports the rows."""
    Path("raw.csv").write_text(
        "review_id,customer,app,stars,helpful,device,topics,review,hiv_score,sent\n"
        '007,ann,a1,4.5,true,phone,"[""x"", ""y""]",a long canary text,3,2025-10-01T10:00:00Z\n'
        "008,bob,a2,3,,,[],,1,2025-10-02\n",
        encoding="utf-8",
    )
    ended = here("init", "--from", "*.csv", "--yes")
    assert ended.code == 0, ended.err
    assert tomllib.loads(FILE.read_text()) == {
        "database_url": "files:*.csv",
        "source": {"table": "files", "feedback_id": "review_id", "user_id": "customer", "created_at": "sent"},
        "columns": {"app": {"role": "item"}},
        "ratings": {"stars": {"min": 1, "max": 5, "step": 0.5}, "helpful": {"type": "boolean"}},
        "lists": {"topics": {}},
    }
    assert "canary" not in FILE.read_text()
    assert "left out   review, hiv_score: may be personal" in ended.err
    shown = here("preview", "--days", "-1").out.splitlines()
    assert [line.split(",", 1)[1].rpartition(",")[0] for line in shown[1:]] == [
        'a1,4.5,True,"[""x"",""y""]",2025-10-01T10:00:00',
        "a2,3.0,,,2025-10-02T00:00:00",
    ]


def test_numbers_too_long_for_an_integer_are_ids(here: Here) -> None:
    """Such as snowflakes; what is written exports the rows."""
    lines = [f"{10**18 + day},{4 * 10**18 + day},9{10**18 + day},{day},2025-10-0{day}\n" for day in (1, 2)]
    Path("raw.csv").write_text("".join(["post_id,user_id,item_id,stars,sent\n", *lines]), encoding="utf-8")
    assert here("init", "--from", "*.csv", "--yes").code == 0
    declared = tomllib.loads(FILE.read_text())
    assert declared["source"] == {
        **{"table": "files", "feedback_id": "post_id", "user_id": "user_id", "created_at": "sent"}
    }
    assert declared["columns"] == {"item_id": {"role": "item"}}
    shown = here("preview", "--days", "-1").out.splitlines()
    assert [line.split(",")[1:3] for line in shown[1:]] == [
        ["91000000000000000001", "1"],
        ["91000000000000000002", "2"],
    ]


def test_files_and_a_url_exclude_each_other(here: Here, shop: str) -> None:
    """As they do for other commands."""
    assert here("init", shop, "--from", "*.csv", "--yes").code == 2


def test_tables_of_duckdb_are_reflected(here: Here, tmp_path: Path) -> None:
    """With their types, though its driver reflects no columns."""
    engine = sa.create_engine(f"duckdb:///{tmp_path}/app.duckdb", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE reviews (id INTEGER PRIMARY KEY, customer_id UUID, stars DECIMAL(3,1), tags VARCHAR[], "
            "sent TIMESTAMPTZ, comment VARCHAR)"
        )
        connection.exec_driver_sql("INSERT INTO reviews VALUES (1, uuid(), 4.5, ['a'], '2025-10-01', 'canary')")
    engine.dispose()
    assert here("init", str(engine.url), "--yes").code == 0
    assert read_declaration() == {
        "source": {"table": "reviews", "feedback_id": "id", "user_id": "customer_id", "created_at": "sent"},
        "ratings": {"stars": {"min": 1, "max": 5, "step": 0.5}},
        "lists": {"tags": {}},
    }
    assert ",4.5," in here("preview", "--days", "-1").out


@pytest.mark.parametrize("kind", ["sqlite", "postgres_database", "mysql_database"])
def test_json_arrays_in_text_are_lists(
    here: Here, tmp_path: Path, request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by their values; one whose name is none of a list is offered as a comment. A long text is not an item."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue(kind))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE ratings (id integer PRIMARY KEY, score integer, diagnosis varchar(20), article text, "
            "topics text, used text, sent timestamp)"
        )
        body = "body " * 20
        connection.exec_driver_sql(
            f"INSERT INTO ratings VALUES (1, 4, 'flu', '{body}', '[\"a\"]', '[]', '2025-10-01 10:00:00')"
        )
    engine.dispose()
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    assert here("init", "--yes").code == 0
    declaration = read_declaration()
    assert (declaration["lists"], "columns" in declaration) == ({"topics": {}}, False)
    text = FILE.read_text()
    assert "# Not exported unless you declare it:\n# [lists.used]\n" in text
    assert "# Not exported: diagnosis looks like health data.\n" in text
    assert '["a"]' in here("preview", "--days", "-1").out.replace('""', '"')


def test_maps_lists_with_mistakes_and_a_cursor_are_proposed(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are in text of SQLite; what is proposed can be exported."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    row = "INSERT INTO reviews SELECT {}, 4, '2025-10-01 10:00:00', '2025-10-02 10:00:00', '{}', '{}', '{}'"
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE reviews (id integer PRIMARY KEY, stars integer, created_at text, updated_at text, "
            "product_ratings text, tags text, used text)"
        )
        for number in range(200):
            rated = '{"a": 5, "b": 2.5, "c": null}' if number else "{}"
            tags = '["x", "y"]' if number > 1 else "none"
            connection.exec_driver_sql(row.format(number, rated, tags, '{"phone": 1}'))
    engine.dispose()
    ended = here("init", f"sqlite:///{tmp_path}/a.db", "--yes")
    assert "items      product_ratings: exported with --items\n" in ended.err
    assert "may be personal" not in ended.err
    declaration = read_declaration()
    assert declaration["items"] == {"product_ratings": {"min": 1, "max": 5, "step": 0.5}}
    assert declaration["lists"] == {"tags": {}}
    text = FILE.read_text()
    assert "# [items.used]\n# min = 1\n" in text
    assert "`--incremental --cursor updated_at` also exports rows that were edited later." in text
    command = ("export", "--days", "-1", "--max-rejected", "0.5", "--output")
    assert "exported   198 of 200 rows" in here(*command, "items", "--items", "product_ratings").err
    assert here(*command, "edited", "--incremental", "--cursor", "updated_at").code == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgres_database", "mysql_database", "duckdb"])
def test_columns_of_json_and_child_tables_of_items_can_be_exported(
    here: Here, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Maps, lists and other JSON are distinguished by their values."""
    files = {"sqlite": f"sqlite:///{tmp_path}/a.db", "duckdb": f"duckdb:///{tmp_path}/a.duckdb"}
    engine = sa.create_engine(files.get(kind) or request.getfixturevalue(kind), poolclass=sa.NullPool)
    binary = "jsonb" if kind == "postgres_database" else "json"
    text = "text" if kind in files else "varchar(20)"
    with engine.begin() as connection:
        for statement in (
            f"CREATE TABLE reviews (id integer PRIMARY KEY, stars integer, product_ratings {binary}, tags json, "
            "topics json, labels json, created_at timestamp NULL)",
            f"CREATE TABLE rated (review_id integer REFERENCES reviews (id), product {text}, score numeric(3,1), "
            "PRIMARY KEY (review_id, product))",
            'INSERT INTO reviews VALUES (1, 4, \'{"a": 5, "b": null}\', \'["x"]\', \'{"x": "y"}\', NULL, '
            "'2025-10-01 10:00:00')",
            "INSERT INTO rated VALUES (1, 'c', 4.5), (1, 'd', 1)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    names = ["product_ratings", "rated"]
    ended = here("init", "--yes")
    assert f"items      {', '.join(names)}: exported with --items\n" in ended.err
    declaration = read_declaration()
    empty: dict[str, object] = {} if kind == "mysql_database" else {"labels": {}}  # MariaDB's JSON is text
    assert declaration["lists"] == {"tags": {}} | empty
    scales = {name: {key: table[key] for key in ("min", "max")} for name, table in declaration["items"].items()}
    assert scales == {name: {"min": 1, "max": 5} for name in names}
    rows = {"product_ratings": [["a", "5"]], "rated": [["c", "4.5"], ["d", "1.0"]]}
    for name in names:
        assert here("export", "--days", "-1", "--items", name, "--output", name).code == 0
        (path,) = Path(name, "items").glob("*.csv")
        assert [row[1:3] for row in csv.reader(path.read_text().splitlines())][1:] == rows[name]


def test_query_for_consent_of_another_table_is_explained(
    here: Here, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen is named, and what the file says to write excludes who opted out."""
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.executescript(
            "ALTER TABLE customers DROP COLUMN may_use_consent; "
            "CREATE TABLE settings (customer_id integer REFERENCES customers (id), do_not_track boolean); "
            "INSERT INTO settings VALUES (2, true)"
        )
    lines = here("init", shop, "--yes").err.splitlines()
    assert "consent    no column of consent is used: the feedback of all users would be exported" in lines
    assert "not used   settings.do_not_track: for consent to this use, write a query" in lines
    text = FILE.read_text()
    for comment in ('# query = "feedback.sql"', '# consent = "may_use"'):
        assert comment in text
        text = text.replace(comment, comment.removeprefix("# "))
    source, _, lists = text.replace('table = "reviews"\n', "", 1).partition("[lists.tags]")
    FILE.write_text(source)
    Path("feedback.sql").write_text(
        "SELECT r.*, CASE WHEN s.do_not_track THEN false ELSE true END AS may_use FROM reviews r "
        "LEFT JOIN settings s ON s.customer_id = r.customer_id"
    )
    assert "excluded   1 without consent" in here("export", "--days", "-1").err, lists


def test_choices_are_asked_on_a_terminal(shop: str) -> None:
    """Return takes what is proposed; no file is written after a no."""
    answers = "reviews\nid\nno_such\n-\n-\n\n"
    code, screen = on_terminal("init", shop, typed=f"{answers}n\n")
    assert code == 1
    assert not FILE.exists()
    assert on_terminal("init", shop, typed=f"{answers}y\n")[0] == 0
    assert "Table of the feedback [reviews]: " in screen
    assert "reviews has no such column." in screen
    assert "Time of a feedback [rated_at]: " in screen
    assert "user_id" not in read_declaration()["source"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres_database"])
def test_first_export_of_an_unknown_database_takes_three_commands(
    shop: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """init, preview, export: only the rating of the one customer who consented, and nothing that she wrote."""
    url = shop if kind == "sqlite" else create_shop(request.getfixturevalue(kind))
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    commands = [("init", "--yes"), ("preview", "--days", "-1"), ("export", "--days", "-1", "--json")]
    runs = [feedback_etl(*command) for command in commands]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[-1].stderr
    exported = Path(json.loads(runs[-1].stdout)["export_filename"]).read_text()
    for text in (runs[1].stdout, exported):
        header, *rows = csv.reader(text.splitlines())
        assert header == ["analysis_hash", "stars", "liked", "tags", "feedback_timestamp", "export_date"]
        assert [row[1:5] for row in rows] == [
            ["4.5", "True", '["big","good, cheap"]', "2025-10-01T10:00:00"],
            ["", "True", "", "2025-10-03T10:00:00"],
        ]
    assert "canary" not in exported


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgres_database"])
def test_first_export_of_a_large_unknown_database_takes_seconds(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of 100,000 rows with elements and items in other tables; of five minutes, the rest is to check the file."""
    url = f"sqlite:///{tmp_path}/a.db" if kind == "sqlite" else request.getfixturevalue(kind)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT"
    reference, text = "review_id integer REFERENCES reviews (id)", "It was fine. " * 20
    times = {
        "sqlite": "datetime(1759312800 + i * 60, 'unixepoch')",
        "postgres_database": "timestamp '2025-10-01 10:00:00' + i * interval '1 minute'",
    }
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE customers (id integer PRIMARY KEY, name varchar(80), research_consent boolean)",
            "CREATE TABLE reviews (id integer PRIMARY KEY, customer_id integer REFERENCES customers (id), product_id "
            "integer, stars integer, recommends boolean, body text, topics text, submitted_at timestamp)",
            f"CREATE TABLE review_tags ({reference}, tag varchar(20), PRIMARY KEY (review_id, tag))",
            f"CREATE TABLE review_lines ({reference}, product varchar(20), score integer)",
            f"INSERT INTO customers {rows} i, 'Ann', (i & 3) > 0 FROM n WHERE i <= 16384",
            f"INSERT INTO reviews {rows} i, (i & 16383) + 1, i & 511, (i & 3) + 1, (i & 1) > 0, '{text}', "
            f"'[\"fit\"]', {times[kind]} FROM n",
            f"INSERT INTO review_tags {rows} i, 'big' FROM n",
            f"INSERT INTO review_lines {rows} i, 'a', (i & 3) + 1 FROM n",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    monkeypatch.setenv("FEEDBACK_ETL_KEY", KEY)
    monkeypatch.setenv("FEEDBACK_ETL_DATABASE_URL", url)
    start, days = time.perf_counter(), ("--days", "-1")
    for command in (("init", "--yes"), ("preview", *days), ("export", *days, "--json")):
        run = feedback_etl(*command)
        assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["exported_records"] == 75_000
    assert time.perf_counter() - start < 60


def test_default_tables_need_no_declaration(here: Here, sqlite_database: Database) -> None:
    """Which is said, since their lists and ages are in other tables."""
    lines = here("init", sqlite_database.url, "--yes").err.splitlines()
    assert "default    these are the default tables, which are read with lists and ages without a declaration" in lines
