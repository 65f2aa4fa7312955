"""Find the position in a user's query at which a database refuses it.

The query is executed as a subquery (`empty_query_select`), and the positions that databases report are in that
statement. PostgreSQL reports an offset, DuckDB and MySQL an excerpt, and SQLite only the text that it refuses.
"""

import re
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from feedback_etl.database.connect import DatabaseConnection
from feedback_etl.database.custom_query import blank_quoted, describe_position, extract_select
from feedback_etl.database.driver_errors import unwrap_error
from feedback_etl.database.empty_selects import empty_query_select
from feedback_etl.database.statements import execute

_EXCERPT = re.compile(r"\nLINE (\d+): (.*)\n( *)\^")
"""DuckDB's: the number of the line, a part of the line, and a caret below it."""

_NEAR = re.compile(r"near '(.*)' at line (\d+)$", re.DOTALL)
"""MySQL's: the text from the error on, and the number of its line."""

_REFUSED_TEXT = re.compile(r'near "(.+)": syntax error|unrecognized token: "(.+)"', re.DOTALL)
"""SQLite's: the text that it cannot parse."""

_UNKNOWN_NAME = re.compile(
    r"no such (?:column|table|function): (?:\w+\.)*(\w+)"
    r"|Unknown column '(?:[^']*\.)?([^'.]+)'|Table '(?:[^']*\.)?([^'.]+)' doesn't exist"
    r"|FUNCTION \S*?(\w+) does not exist"
)
"""SQLite's and MySQL's: a name that does not exist."""


def locate_error(source: DatabaseConnection, query: str, error: BaseException) -> str:
    """Return where a database refuses a query, in brackets: file, line and column, as far as they are known."""
    error = unwrap_error(error)
    select, statement = extract_select(source.dialect, query), empty_query_select(source.dialect, query)
    offset = _find_offset(source, select, statement, error)
    if offset is None:
        return describe_position(query, None)
    in_select = min(max(offset - statement.index(select), 0), len(select))
    return describe_position(query, in_select + len(query) - len(query.lstrip()))


def _find_offset(source: DatabaseConnection, select: str, statement: str, error: Any) -> int | None:
    """Return the offset of an error in the statement; None if the database reports none, or an ambiguous one."""
    text = str(error.args[-1]) if error.args else ""
    if position := getattr(getattr(error, "diag", None), "statement_position", None):
        return int(position) - 1
    if excerpt := _EXCERPT.search(text):
        return _find_excerpt(statement, excerpt)
    if near := _NEAR.search(text):
        line_start = _find_line_start(statement, int(near[2]))
        rest = near[1].removesuffix("...").lstrip()
        return max(statement.find(rest, line_start), line_start) if rest else len(statement)
    if refused := _REFUSED_TEXT.fullmatch(text):
        return _find_refused_text(source, select, refused[1] or refused[2], text)
    if unknown := _UNKNOWN_NAME.search(text):
        name = re.escape(next(filter(None, unknown.groups())))
        offsets = [match.start() for match in re.finditer(rf"\b{name}\b", blank_quoted(source.dialect, select))]
        return statement.index(select) + offsets[0] if len(offsets) == 1 else None
    return None


def _find_line_start(statement: str, number: int) -> int:
    return sum(len(line) + 1 for line in statement.split("\n")[: number - 1])


def _find_excerpt(statement: str, excerpt: re.Match[str]) -> int | None:
    """Return the offset of the caret below an excerpt, which may begin and end with an ellipsis."""
    lines = statement.split("\n")
    if int(excerpt[1]) > len(lines):  # of a view that the query reads
        return None
    line_start, line = _find_line_start(statement, int(excerpt[1])), lines[int(excerpt[1]) - 1]
    text = excerpt[2].removeprefix("...").removesuffix("...")
    at = line.find(text) - excerpt[2].startswith("...") * len("...")
    caret = len(excerpt[3]) - len(f"LINE {excerpt[1]}: ")
    return line_start + at + caret if text in line else line_start


def _find_refused_text(source: DatabaseConnection, select: str, refused: str, message: str) -> int:
    """Return the offset of the first text that SQLite refuses: where it ends, the query up to there is refused too.

    A query that is cut off before is merely incomplete. SQLite only parses the statements.
    """
    head = empty_query_select(source.dialect, select).partition(select)[0]
    word_end = r"(?!\w)" if re.match(r"\w", refused[-1]) else ""
    for match in re.finditer(rf"{re.escape(refused)}{word_end}", select):
        try:
            execute(source, f"EXPLAIN {head}{select[: match.end()]}").close()
        except SQLAlchemyError as error:
            if str(unwrap_error(error)) == message:
                return len(head) + match.start()
    return len(head) + len(select)
