r"""Check that a custom query is one statement that cannot end the subquery that contains it.

This guards against accidents. A text that a database's lexer might read differently from the patterns here is refused.
The database is the second line of defence: all transactions are read-only, and in a subquery of SQLite a write is a
syntax error.
"""

import re
from functools import cache
from pathlib import Path

from feedback_etl.errors import UsageError

# Characters that continue a name: in a$$ and é$$ no quoted text begins.
_NAME = r"[\w$\x80-\U0010ffff]"
_STRING = r"'(?:[^']|'')*+'"
_QUOTED_NAME = r'"(?:[^"]|"")*+"'
_COMMENT = {
    "postgresql": r"--[^\n\r]*+ | /\*(?:(?!/\*).)*?\*/",  # nested comments are refused
    # Without a blank after it, -- is minus minus. MySQL executes comments that begin with /*! /*M! or /*+: refused.
    "mysql": r"--(?=[\x00-\x20\x7f]|\Z)[^\n]*+ | \#[^\n]*+ | /\*(?![!+]|M!)(?:(?!/\*).)*?\*/",
    "sqlite": r"--[^\n]*+ | /\*.*?\*/",
}
_QUOTED = {
    # A string on the line after E'...' continues it, with backslashes as escapes: refused.
    "postgresql": rf"""(?<!{_NAME})[eE](?>'(?:[^'\\]|\\.|'')*')(?!(?:\s|--[^\n\r]*)*')
        | {_STRING} | {_QUOTED_NAME}
        | (?<!{_NAME})\$(?P<tag>(?:(?!\d)[\w\x80-\U0010ffff]+)?)\$.*?\$(?P=tag)\$""",
    "mysql": r"""'(?:[^'\\]|\\.|'')*+' | "(?:[^"\\]|\\.|"")*+" | `(?:[^`]|``)*+`""",
    "sqlite": rf"{_STRING} | {_QUOTED_NAME} | `(?:[^`]|``)*+` | \[[^\]]*\]",
}
_NOT_CLOSED = {
    "postgresql": rf"""['"] | /\* | (?<!{_NAME})[eE]' | (?<!{_NAME})\$(?!\d)""",
    "mysql": r"""['"`\\] | /\*""",
    "sqlite": r"""['"`\[] | /\*""",
}


@cache
def _compile_token(dialect: str) -> re.Pattern[str]:
    """Return the pattern of a token: a quoted text or name, a comment, a bracket, a semicolon, or an error."""
    return re.compile(
        rf"""{_QUOTED[dialect]} | {_COMMENT[dialect]} | (?P<open>\() | (?P<close>\)) | (?P<end>;)
        | (?P<bad>{_NOT_CLOSED[dialect]} | [\x00\ud800-\udfff])""",
        re.VERBOSE | re.DOTALL,
    )


@cache
def _compile_nothing(dialect: str) -> re.Pattern[str]:
    """Return the pattern of blanks, comments and semicolons."""
    # not (?:...)*+, which Python before 3.11.5 ends within a comment that is not closed
    return re.compile(rf"(?>\s | ; | {_COMMENT[dialect]})*", re.VERBOSE | re.DOTALL)


_LOCKS = re.compile(r"\b(for\s+(update|share)|lock\s+in\s+share\s+mode)\b", re.IGNORECASE)
"""Clauses that MySQL executes in a read-only transaction too, and that would keep the application from writing."""


class QueryText(str):
    """The text of a query, with the name of the file that contains it."""

    file: str = ""


def describe_offset(text: str, offset: int) -> str:
    """Return the line and the column of a character of a text, for messages.

    >>> describe_offset("SELECT\\n  a", 9)
    'line 2, column 3'
    """
    line_start = text.rfind("\n", 0, offset) + 1
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - line_start + 1}"


def describe_position(sql: str, offset: int | None) -> str:
    """Return the position of a character of a query in brackets, for messages: file, line and column, if known."""
    file = [sql.file] if isinstance(sql, QueryText) and sql.file else []
    position = [*file, *([] if offset is None else [describe_offset(sql, offset)])]
    return f" ({', '.join(position)})" if position else ""


def extract_select(dialect: str, sql: str) -> str:
    """Return a query without its closing semicolon, if it is one statement that a subquery can contain.

    Raises:
        UsageError: The query is empty, contains a second statement, has brackets, quotes or comments that are not
            closed, or would lock rows of MySQL. The message points into the text.
    """
    dialect = _choose_lexer(dialect)
    end = _find_end(dialect, sql)
    if _compile_nothing(dialect).fullmatch(sql[:end]):
        raise _build_syntax_error(sql, None)
    rest = _compile_nothing(dialect).match(sql, end)
    if rest is not None and rest.end() < len(sql):
        raise _build_syntax_error(sql, rest.end())
    if dialect == "mysql" and (lock := _LOCKS.search(blank_quoted(dialect, sql[:end]))):
        raise UsageError(
            "The query must not lock rows (FOR UPDATE, LOCK IN SHARE MODE): others could not write them"
            f"{describe_position(sql, lock.start())}."
        )
    return sql[:end].strip()


def blank_quoted(dialect: str, sql: str) -> str:
    """Return a query of the same length with blanks for what is quoted and for comments."""
    return _compile_token(_choose_lexer(dialect)).sub(
        lambda token: token[0] if token["open"] or token["close"] else " " * len(token[0]), sql
    )


def _choose_lexer(dialect: str) -> str:
    return "postgresql" if dialect == "duckdb" else dialect  # DuckDB has PostgreSQL's lexer


def _build_syntax_error(sql: str, offset: int | None) -> UsageError:
    return UsageError(
        "The query must be one SELECT: no semicolon inside, every bracket, quote and comment closed"
        f"{describe_position(sql, offset)}."
    )


def normalize_query(dialect: str, sql: str) -> str:
    """Return a query without comments, its closing semicolon, and white space that makes no difference.

    Queries with equal results of this function yield the same rows. A query that `extract_select` refuses is returned
    as it is.

    >>> normalize_query("postgresql", "SELECT a, 'x  -- y' FROM t  -- all of them")
    "SELECT a,'x  -- y' FROM t"
    """
    try:
        select = extract_select(dialect, sql)
    except UsageError:
        return sql
    quoted = list[str]()

    def set_aside(token: re.Match[str]) -> str:
        if token["open"] or token["close"]:
            return token[0]
        if token[0][0] in "-/#":  # a comment
            return " "
        quoted.append(token[0])
        return f"\0{len(quoted) - 1}\0"  # no query contains this character

    text = _compile_token(_choose_lexer(dialect)).sub(set_aside, select)
    text = re.sub(" ?([(),]) ?", r"\1", re.sub(r"[ \t\n\r\f\v]+", " ", text)).strip()
    return re.sub("\0([0-9]+)\0", lambda number: quoted[int(number[1])], text)


def _find_end(dialect: str, sql: str) -> int:
    """Return the end of the first statement.

    Raises:
        UsageError: Something in the statement is not closed, or is ambiguous.
    """
    brackets = list[int]()
    for token in _compile_token(dialect).finditer(sql):
        if token["open"]:
            brackets.append(token.start())
        elif token["bad"] or (token["close"] and not brackets):
            raise _build_syntax_error(sql, token.start())
        elif token["close"]:
            brackets.pop()
        elif token["end"]:
            if brackets:
                break
            return token.start()
    if brackets:
        raise _build_syntax_error(sql, brackets[-1])
    return len(sql)


def read_query_file(path: Path) -> QueryText:
    """Return the text of a query file, with the name of the file.

    Raises:
        UsageError: The file does not exist, or cannot be read as UTF-8 text.
    """
    try:
        if not path.is_file():
            raise UsageError(f"There is no query file {path}.")
        query = QueryText(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"The query file {path} cannot be read as UTF-8 text.") from None
    query.file = str(path)
    return query
