"""`extract_select`: a custom query cannot leave its subquery, or is refused."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from databases import new_mysql_database
from hypothesis import assume, example, given
from hypothesis import strategies as st

from feedback_etl.database.custom_query import extract_select
from feedback_etl.errors import UsageError

ALL = ("postgresql", "mysql", "sqlite", "duckdb")

ACCEPTED = [
    "SELECT 1",
    "  SELECT 1  ",
    "SELECT (1 + (2)) AS a, count(*) FROM (SELECT 1) AS q",
    "WITH q AS (SELECT 1 AS a) SELECT a FROM q",
    "SELECT ')' AS a, '(' AS b, ';' AS c, '--' AS d, '/*' AS e",
    "SELECT 'it''s' AS a, '' AS b, '''' AS c",
    'SELECT 1 AS ")", 2 AS ";", 3 AS "a""b", 4 AS "it\'s"',
    "SELECT ':y' AS a, '100%' AS b, 'a%%b' AS c",
    "SELECT 1 -- ) ; ' \" a comment\n + 2",
    "-- at the beginning: it's\nSELECT 1",
    "SELECT 1 /* ) ; ' \" */ + 2 /**/ /***/",
    "SELECT 1 -- at the end",
    "SELECT 1 AS line_\nWHERE line_e = 'x'",
    "SELECT 'ünï' AS é, '日本' AS 日本, '😀' AS b",
]
ENDS = [";", " ; ", ";\n", ";;", "; -- done", ";\n-- it's done; really (\n", "; /* ' */ ;", "\n;\n"]

REFUSED = [
    "",
    " \n\t ",
    ";",
    "-- nothing but words",
    "/* nothing */ ; -- more of it",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE canary",
    "; SELECT 1",
    "SELECT (1; 2)",
    "SELECT 1) q; DROP TABLE canary; --",
    "SELECT 1) q, (SELECT 2",
    ") SELECT (1",
    "SELECT (1",
    "SELECT 1)",
    "SELECT 'a",
    "SELECT 'a'' ",
    'SELECT 1 AS "a',
    "SELECT 1 /* never closed",
    "SELECT 1; /* never closed",
    "SELECT 1 /*/",
    "SELECT 'a\x00b'||1, \x00",
    "SELECT \ud800",
]


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("query", ACCEPTED)
def test_single_closed_statement_is_accepted_unchanged(dialect: str, query: str) -> None:
    """Quotes, comments, casts, percent signs and backslashes are unchanged."""
    assert extract_select(dialect, query) == query.strip()


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite", "duckdb"])
@pytest.mark.parametrize("query", ["SELECT 1 AS a ESCAPE '\\'", "SELECT 'C:\\' AS a"])
def test_backslash_is_an_escape_on_mysql_only(dialect: str, query: str) -> None:
    """On MySQL the string would continue."""
    assert extract_select(dialect, query) == query
    with pytest.raises(UsageError, match="must be one SELECT"):
        extract_select("mysql", query)


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("end", ENDS)
def test_trailing_semicolon_is_removed(dialect: str, end: str) -> None:
    """Semicolons, and comments after them."""
    assert extract_select(dialect, f"SELECT 1{end}") == "SELECT 1"


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("query", REFUSED)
def test_anything_but_one_closed_statement_is_refused(dialect: str, query: str) -> None:
    """Empty text, second statements, and brackets, quotes or comments that are not balanced."""
    with pytest.raises(UsageError, match="must be one SELECT"):
        extract_select(dialect, query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT E'it\\'s )' AS a",
        "SELECT e'\\\\' AS a, 'b'",
        "SELECT E'a''b' AS a",
        "SELECT date'2025-10-25' AS a",
        "SELECT $$ ) ; ' $$ AS a, $tag$ $$ ) $other$ $tag$ AS b, $é$)$é$ AS c",
        "SELECT 'a'\n'b)' AS a",
        "SELECT a::int, b[1], c->>'d', e @> '{}' FROM t",
        "SELECT U&'d\\0061t\\+000061' AS a, B'1' AS b, X'1F' AS c",
    ],
)
def test_postgresql_quoting_is_accepted(query: str) -> None:
    """Backslash escapes after E, dollar quotes, casts and arrays."""
    assert extract_select("postgresql", query) == query


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("SELECT 1 AS a$$ ) q; DROP TABLE canary; --$$", id="dollars end a name"),
        pytest.param("SELECT 1 AS 😀$$ ) q; DROP TABLE canary; --$$", id="dollars end a name of any character"),
        pytest.param("SELECT 1 -- a comment\r) q; DROP TABLE canary; --", id="a carriage return ends a comment"),
        pytest.param("SELECT E'a'\n'\\'' ) q; DROP TABLE canary; --'", id="an E string goes on in the next line"),
        pytest.param("SELECT E'a' -- c\n '\\'' ) q; DROP TABLE canary; --'", id="... behind a comment"),
        pytest.param("SELECT $1$ ) q; DROP TABLE canary; --$1$", id="a parameter is no dollar quote"),
        pytest.param("SELECT '\\' ) q; DROP TABLE canary; --'", id="no escape without an E"),
        pytest.param("SELECT E'\\' ) q; DROP TABLE canary; --", id="an E string left open"),
        pytest.param("SELECT $$ ) q; DROP TABLE canary; --", id="a dollar quote left open"),
        pytest.param("SELECT $a$ $b$ ) q", id="a dollar quote closed by another's tag"),
        pytest.param("SELECT 1 /* /* */ ) q; DROP TABLE canary; -- */", id="comments nest"),
        pytest.param("SELECT 1 /* /* nested */ */", id="nested comments, even closed"),
        pytest.param("SELECT '`' AS a, `' ) q; DROP TABLE canary; --`", id="a backtick quotes nothing"),
    ],
)
def test_ambiguous_text_is_refused_on_postgresql(query: str) -> None:
    """Each of these would end the subquery under a simpler lexer."""
    with pytest.raises(UsageError, match="must be one SELECT"):
        extract_select("postgresql", query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS [a ) ; ']",
        "SELECT 1 AS `a ) ``; '`",
        "SELECT 1 /* /* ) */",
        "SELECT 1 -- \r ' ( \n",
        "SELECT $a, :b",
    ],
)
def test_sqlite_quoting_is_accepted(query: str) -> None:
    """Names in brackets and backticks; comments that do not nest and go on to the line feed."""
    assert extract_select("sqlite", query) == query.strip()


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("SELECT e'\\' ) q; DROP TABLE canary; --'", id="a backslash escapes nothing"),
        pytest.param("SELECT $$ ) q; DROP TABLE canary; --$$", id="dollars quote nothing"),
        pytest.param("SELECT 1 AS ['] ) q; DROP TABLE canary; --'", id="a quote in a name in brackets"),
        pytest.param("SELECT 1 AS `'` ) q; DROP TABLE canary; --'", id="a quote in a name in backticks"),
        pytest.param("SELECT 1 AS [a", id="a bracket left open"),
        pytest.param("SELECT 1 AS `a", id="a backtick left open"),
        pytest.param("SELECT 1 -- \r ' \n ) q; DROP TABLE canary; -- '", id="a comment goes on to the line feed"),
    ],
)
def test_ambiguous_text_is_refused_on_sqlite(query: str) -> None:
    """Each of these would end the subquery under PostgreSQL's lexer."""
    with pytest.raises(UsageError, match="must be one SELECT"):
        extract_select("sqlite", query)


@pytest.mark.parametrize(
    "query",
    [
        r"SELECT 'it\'s )' AS a",
        r'SELECT "it\"s )" AS a, "b""("',
        r"SELECT '\\' AS a, 'b'",
        "SELECT `a ) ``; ' \\` FROM t",
        "SELECT 1 # ) ; ' a comment\n + 2",
        "SELECT 1 --\t) ; '\n + 2",
        "SELECT 1 --\n",
        "SELECT 5--3",
        "SELECT N'a', _latin1'b', x'1F', b'01', @a, @@time_zone, @'b )'",
        "SELECT 'a' 'b)'",
        "SELECT 'for update' AS `lock in share mode` -- for share",
    ],
)
def test_mysql_quoting_is_accepted(query: str) -> None:
    """Backslash escapes in both quotes, names in backticks, three kinds of comments."""
    assert extract_select("mysql", query) == query.strip()


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("SELECT '\\' ) q; DROP TABLE canary; -- ", id="a backslash keeps the string open"),
        pytest.param("SELECT '\\\\' ) q; DROP TABLE canary; -- '", id="two do not"),
        pytest.param("SELECT `\\` ) q; DROP TABLE canary; -- `", id="nor does one in a name"),
        pytest.param("SELECT \\' ) q; DROP TABLE canary; -- '", id="a backslash outside of all quotes"),
        pytest.param("SELECT 1 --) q; DROP TABLE canary", id="without a blank it is no comment"),
        pytest.param("SELECT 1 # '\n ) q; DROP TABLE canary; # '", id="a comment ends with its line"),
        pytest.param("SELECT 1 -- ' \n ) q; DROP TABLE canary; -- '", id="so does one of dashes"),
        pytest.param("SELECT 1 /*! ) q; DROP TABLE canary */", id="what is in such a comment is obeyed"),
        pytest.param("SELECT 1 /*!50000 + 1 */", id="also with a version"),
        pytest.param("SELECT 1 /*M! + 1 */", id="and in MariaDB's own"),
        pytest.param("SELECT /*+ SET_VAR(sql_mode = 'ANSI_QUOTES') */ 1", id="a hint may change the meaning of quotes"),
        pytest.param("SELECT 1 /* /* */ ) q */", id="comments that could nest"),
        pytest.param("SELECT $$ ) q; DROP TABLE canary; -- $$", id="dollars quote nothing"),
        pytest.param('SELECT "a', id="a double quote left open"),
        pytest.param("SELECT `a", id="a backtick left open"),
    ],
)
def test_ambiguous_text_is_refused_on_mysql(query: str) -> None:
    """Each of these would end the subquery under another lexer."""
    with pytest.raises(UsageError, match="must be one SELECT"):
        extract_select("mysql", query)


@pytest.mark.parametrize("lock", ["FOR UPDATE", "for\n update nowait", "LOCK IN SHARE MODE", "FOR/**/SHARE"])
def test_locking_query_is_refused_on_mysql(lock: str) -> None:
    """MySQL locks rows in read-only transactions too."""
    with pytest.raises(UsageError, match="must not lock rows"):
        extract_select("mysql", f"SELECT * FROM (SELECT a FROM t {lock}) AS q")


# What follows runs what was accepted, in ways that do obey a second statement.

Run = Callable[[str], list[object]]


@pytest.fixture(scope="module")
def postgres(postgres_url: str) -> Iterator[Run]:
    """Execute statements as one simple query in a session that may write; "canary" is a table."""
    url = sa.make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE canary (a int)")
        yield lambda sql: [row[0] for row in connection.execute(sql.encode())]
        connection.execute("DROP TABLE canary")


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Run]:
    """The same on SQLite, where a script may hold several statements."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE canary (a int)")

        def run(sql: str) -> list[object]:
            connection.executescript(sql)
            return [row[0] for row in connection.execute(sql)]

        yield run
        connection.execute("DROP TABLE canary")


@pytest.fixture(scope="module")
def mysql(mysql_admin: sa.Engine) -> Iterator[Run]:
    """The same on MySQL, with several statements at once allowed."""
    with new_mysql_database(mysql_admin) as database:
        url = sa.make_url(database)
        several = {"client_flag": pymysql.constants.CLIENT.MULTI_STATEMENTS, "autocommit": True}
        with (
            pymysql.connect(
                host=url.host or "",
                port=url.port or 0,
                user=url.username,
                password=url.password or "",
                database=url.database,
                **several,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET sql_mode = ''")
            cursor.execute("CREATE TABLE canary (a int)")

            def run(sql: str) -> list[object]:
                cursor.execute(sql)
                rows = [row[0] for row in cursor.fetchall()]
                while cursor.nextset():
                    pass
                return rows

            yield run


TEXTS = st.text(
    st.one_of(st.sampled_from("'\"\\$;()-/*[]`e \n\r%:"), st.characters(codec="utf-8", exclude_characters="\0"))
)
PLAIN: list[Callable[[str], str]] = [
    lambda text: "'" + text.replace("'", "''") + "'",
    lambda text: "/*" + text.replace("/*", "").replace("*/", "").strip("/*") + "*/ 'a comment'",
    lambda text: "--" + text.replace("\n", " ").replace("\r", " ") + "\n 'a comment'",
]
OF_POSTGRES: list[Callable[[str], str]] = [
    *PLAIN,
    lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'",
    lambda text: "$tag$" + text + "$tag$",
]


@given(text=TEXTS, quoted=st.sampled_from(OF_POSTGRES))
def test_any_quoted_text_is_unchanged_on_postgresql(postgres: Run, text: str, quoted: Callable[[str], str]) -> None:
    """Quoted in each of PostgreSQL's ways, it comes back as it was from the subquery."""
    query = extract_select("postgresql", f"SELECT {quoted(text)} AS a;")
    expected = "a comment" if quoted in PLAIN[1:] else text
    assert postgres(f"SELECT a FROM ({query}\n) AS q") == [expected]


@given(text=TEXTS, quoted=st.sampled_from(PLAIN))
def test_any_quoted_text_is_unchanged_on_sqlite(sqlite: Run, text: str, quoted: Callable[[str], str]) -> None:
    """Quoted in each of SQLite's ways, it comes back as it was from the subquery."""
    query = extract_select("sqlite", f"SELECT {quoted(text)} AS a;")
    expected = "a comment" if quoted in PLAIN[1:] else text
    assert sqlite(f"SELECT a FROM ({query}\n) AS q") == [expected]


def with_backslashes(text: str) -> str:
    return text.replace("\\", "\\\\")


OF_MYSQL: list[Callable[[str], str]] = [
    lambda text: PLAIN[0](with_backslashes(text)),
    *PLAIN[1:],
    lambda text: '"' + with_backslashes(text).replace('"', '\\"') + '"',
    lambda text: "'" + with_backslashes(text).replace("'", "\\'") + "'",
    lambda text: "#" + text.replace("\n", " ") + "\n 'a comment'",
]


@given(text=TEXTS, quoted=st.sampled_from(OF_MYSQL))
def test_any_quoted_text_is_unchanged_on_mysql(mysql: Run, text: str, quoted: Callable[[str], str]) -> None:
    """Quoted in each of MySQL's ways, it comes back as it was from the subquery."""
    written = quoted(text)
    written = f"-- {written[2:]}" if written.startswith("--") else written
    assume(not written.startswith(("/*!", "/*+", "/*M!")))
    query = extract_select("mysql", f"SELECT {written} AS a;")
    expected = "a comment" if written.endswith("'a comment'") and text != "a comment" else text
    assert mysql(f"SELECT a FROM ({query}\n) AS q") == [expected]


PIECES = ["'", "''", "'x'", "\\", "\\'", "E'", "E'x'", " ", "\n", "\r", "--", "/*", "*/", "$$", "$a$", "a$$", "é$$"]
PIECES += ['"', "`", "[", "]", "(", ")", ";", " AS a", "1", ",", "||", "e"]
ATTACK = ") AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 --"
ATTACKS = st.tuples(st.lists(st.sampled_from(PIECES), max_size=6), st.lists(st.sampled_from(PIECES), max_size=3)).map(
    lambda around: f"SELECT 1 {''.join(around[0])} {ATTACK}{''.join(around[1])}"
)


@given(query=ATTACKS)
@example("SELECT 1 AS a$$ ) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 --$$")
@example("SELECT 1 -- \r) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 --")
@example("SELECT E'x'\n'\\'' ) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 --'")
def test_no_accepted_query_runs_a_second_statement_on_postgresql(postgres: Run, query: str) -> None:
    """With any text around an attack, it is refused, or the table still exists."""
    with contextlib.suppress(UsageError, psycopg.Error):
        postgres(f"SELECT * FROM ({extract_select('postgresql', query)}\n) AS feedback LIMIT 0")
    assert postgres("SELECT count(*) FROM canary") == [0]


@given(query=ATTACKS)
@example("SELECT e'\\' FROM canary ) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 --'")
@example("SELECT 1 AS ['] ) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 --'")
def test_no_accepted_query_runs_a_second_statement_on_sqlite(sqlite: Run, query: str) -> None:
    """With any text around an attack, it is refused, or the table still exists."""
    with contextlib.suppress(UsageError, sqlite3.Error):
        sqlite(f"SELECT * FROM ({extract_select('sqlite', query)}\n) AS feedback LIMIT 0")
    assert sqlite("SELECT count(*) FROM canary") == [0]


OF_MYSQL_TOO = [*PIECES, "#", "-- ", "/*!", "/*M!", "\t", '"x"', "`x`"]
MYSQL_ATTACKS = st.tuples(st.lists(st.sampled_from(OF_MYSQL_TOO), max_size=6), st.lists(st.sampled_from(PIECES))).map(
    lambda around: f"SELECT 1 {''.join(around[0])} {ATTACK} {''.join(around[1][:3])}"
)


@given(query=MYSQL_ATTACKS)
@example("SELECT '\\' AS a, ') AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 -- ")
@example("SELECT 1 --\x01) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 -- ")
@example("SELECT 1 --) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 -- ")
@example("SELECT 1 /*!) AS q; DROP TABLE canary; SELECT * FROM (SELECT 1 */")
def test_no_accepted_query_runs_a_second_statement_on_mysql(mysql: Run, query: str) -> None:
    """With any text around an attack, it is refused, or the table still exists."""
    with contextlib.suppress(UsageError, pymysql.MySQLError):
        mysql(f"SELECT * FROM ({extract_select('mysql', query)}\n) AS feedback LIMIT 0")
    assert mysql("SELECT count(*) FROM canary") == [0]
