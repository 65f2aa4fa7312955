r"""A user's own query: is it one statement that stays inside the brackets that are put around it?

This guards against accidents and cuts no corner: where a database's lexer might read a text otherwise than the patterns
here, the text is refused. What the database itself refuses stands behind it: our transactions are read-only, and in a
subquery of SQLite a write is a syntax error.
"""

import re

from feedback_etl.errors import UsageError

# What a name goes on with, so that what follows begins nothing new: in a$$ and é$$ no text is quoted.
_NAME = r"[\w$\x80-\U0010ffff]"
_STRING = r"'(?:[^']|'')*+'"
_QUOTED_NAME = r'"(?:[^"]|"")*+"'
_COMMENT = {
    "postgresql": r"--[^\n\r]*+ | /\*(?:(?!/\*).)*?\*/",  # nested ones are refused
    # Without a blank after it, -- is minus minus; what /*! /*M! and /*+ begin is obeyed, and refused.
    "mysql": r"--(?=[\x00-\x20\x7f]|\Z)[^\n]*+ | \#[^\n]*+ | /\*(?![!+]|M!)(?:(?!/\*).)*?\*/",
    "sqlite": r"--[^\n]*+ | /\*.*?\*/",
}
_QUOTED = {
    # After E'...' a string on the next line goes on with backslashes as escapes: refused.
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
_TOKEN = {
    dialect: re.compile(
        rf"""{_QUOTED[dialect]} | {_COMMENT[dialect]} | (?P<open>\() | (?P<close>\)) | (?P<end>;)
        | (?P<bad>{_NOT_CLOSED[dialect]} | [\x00\ud800-\udfff])""",
        re.VERBOSE | re.DOTALL,
    )
    for dialect in _QUOTED
}
_NOTHING = {
    dialect: re.compile(rf"(?:\s | ; | {comment})*+", re.VERBOSE | re.DOTALL) for dialect, comment in _COMMENT.items()
}


_LOCKS = re.compile(r"\b(for\s+(update|share)|lock\s+in\s+share\s+mode)\b", re.IGNORECASE)
"""What MySQL obeys in a read-only transaction too: it would keep the application from writing."""


def extract_select(dialect: str, sql: str) -> str:
    """The query without a closing semicolon, when it stays inside the brackets that are put around it.

    Raises:
        UsageError: It is empty, holds a second statement, its brackets, quotes or comments are not closed, or it would
            lock rows of MySQL.
    """
    dialect = "postgresql" if dialect == "duckdb" else dialect  # whose lexer it has
    end = _end_of_statement(dialect, sql)
    if end is None or _NOTHING[dialect].fullmatch(sql[:end]) or not _NOTHING[dialect].fullmatch(sql[end:]):
        raise UsageError("The query must be one SELECT: no semicolon inside, every bracket, quote and comment closed.")
    if dialect == "mysql" and _LOCKS.search(_TOKEN[dialect].sub(_unquoted, sql[:end])):
        raise UsageError("The query must not lock rows (FOR UPDATE, LOCK IN SHARE MODE): others could not write them.")
    return sql[:end].strip()


def _unquoted(token: re.Match[str]) -> str:
    return token[0] if token["open"] or token["close"] else " "


def _end_of_statement(dialect: str, sql: str) -> int | None:
    """Where the first statement ends; None if something in it is not closed or could be read in two ways."""
    depth = 0
    for token in _TOKEN[dialect].finditer(sql):
        depth += bool(token["open"]) - bool(token["close"])
        if depth < 0 or token["bad"]:
            return None
        if token["end"]:
            return None if depth else token.start()
    return None if depth else len(sql)
