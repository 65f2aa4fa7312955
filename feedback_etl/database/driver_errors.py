"""What to tell of a statement that failed: never what the database says, since that can hold rows' values."""

import re

from feedback_etl.errors import SourceError

_REASONS = {
    "conflict with recovery": "the server is a standby and replayed changes to rows that the query still needed; run "
    "it again, read from the primary, or set hot_standby_feedback = on on the standby",
    r"decode to UTF-8 column '(\w+)'": "the text of {0} is not valid UTF-8 in some row; correct it there, or leave {0} "
    "out with a --query (NULL AS {0})",
    "decode to UTF-8|invalid byte sequence|[Ii]nvalid utf-?8": "the "
    "text of some column is not valid UTF-8 in some row; correct it there",
    r"Illegal mix of collations \((\w+),\w+\) and \((\w+),\w+\)": "it compares text of the collations {0} and {1}, "
    "which in the default tables means ids of two tables; give both tables one collation (ALTER TABLE ... CONVERT TO "
    "CHARACTER SET utf8mb4 COLLATE ...), or write the join with COLLATE in a --query",
    "Illegal mix of collations": "it compares text of several collations; name one with COLLATE in a --query",
    "statement timeout": "it took longer than the server's statement_timeout allows",
    "due to transaction timeout": "it took longer than the server's transaction_timeout allows",
    "max_statement_time|maximum statement execution": "it took longer than the server's max_statement_time allows",
    "lock timeout|locked|Lock wait timeout": "another program holds a lock on the database",
    "user request|execution was interrupted": "somebody cancelled it",
    "row-level security policy": "row-level security would hide rows from this user (--allow-row-security permits it)",
    "permission denied|command denied": "this user may not read all of the tables",
    "read-only (transaction|mode)|READ ONLY|before any query": "it would write, and nothing here may write",
    "snapshot": "the server does not know the snapshot that all read: the connection that held it was lost, or this is "
    "another server",
    "terminating connection|[Cc]losed|connection reset|kind: Io": "the connection was lost",
    "Lost connection|gone away|was killed|CodecError|IoError": "the connection was lost",
    "No space left|temp_file_limit|Disk full": "the server has no disk space left to sort the rows",
    "division by zero": "it divides by zero in some row",
    "invalid input syntax|out of range|malformed|Conversion": "a value of some row cannot be converted as it asks",
}
"""Signs in the texts of drivers (as regular expressions), and what they mean in our words.

What a group matches is repeated: names of columns and collations only.
"""


def reason_for(error: BaseException) -> str:
    """Why a statement failed while it read rows, in words of ours."""
    error = getattr(error, "orig", None) or error
    found = ((re.search(sign, str(error)), reason) for sign, reason in _REASONS.items())
    reason = next((reason.format(*match.groups()) for match, reason in found if match), None)
    state = getattr(error, "sqlstate", None)
    return reason or f"it failed while it read rows ({f'SQLSTATE {state}' if state else type(error).__name__})"


def stopped(reason: str) -> SourceError:
    """The error for a statement that failed for a reason."""
    return SourceError(f"The database stopped the query: {reason}. Nothing was exported.")


_ABOUT_THE_STATEMENT = {"0A", "21", "3D", "42"}
"""Classes of SQLSTATE: not supported, rows or columns that do not fit, no database named, names, syntax and rights."""


def refused(error: BaseException, role: str = "") -> SourceError:
    """The error for a statement that the database does not understand or allow: in its words, if they hold no value.

    Args:
        error: The driver's, or SQLAlchemy's about it.
        role: Who reads (PostgreSQL), as an identifier.
    """
    if is_of_row_security(error):
        return _rows_hidden(error, role)
    told = _in_its_words(getattr(error, "orig", None) or error)
    if not told:
        return stopped(reason_for(error))
    return SourceError(f"The database refuses the query: {told.rstrip('.')}.")


def is_of_row_security(error: BaseException) -> bool:
    """Whether PostgreSQL refused a query because row-level security would hide rows; in any language of the server."""
    error = getattr(error, "orig", None) or error
    routine = getattr(getattr(error, "diag", None), "source_function", None)
    return routine == "check_enable_rls" or "row-level security policy" in str(error)


def _rows_hidden(error: BaseException, role: str) -> SourceError:
    text = str(getattr(error, "orig", None) or error)
    table = re.search(r"""["«»„“]\s*(.+?)\s*["«»”“]""", text)
    return SourceError(
        f"Row-level security hides rows of {table[1] if table else 'a table'} from the role {role}: an export could "
        f"lack rows, and contain people who have opted out. Let the role read every row (ALTER ROLE {role} "
        "BYPASSRLS), or read only what its policies show (--allow-row-security; erase --not-in-database never does)."
    )


def _in_its_words(error: BaseException) -> str:
    state, number = getattr(error, "sqlstate", None), next(iter(error.args), None)
    if (state or "42")[:2] not in _ABOUT_THE_STATEMENT or "Conversion" in type(error).__name__:
        return ""
    if isinstance(number, int):  # MySQL's, which shows lines of the query
        told = " ".join(str(error.args[-1]).split()) if state else ""
        return re.sub("You have an error in your SQL syntax;.* right syntax to use", "syntax error", told)
    return (getattr(getattr(error, "diag", None), "message_primary", None) or str(error)).splitlines()[0]
