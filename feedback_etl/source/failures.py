"""What to tell of a statement that failed: never what the database says, since that can hold rows' values."""

import re

from feedback_etl.errors import SourceError

_REASONS = {
    "statement timeout": "it took longer than the server's statement_timeout allows",
    "due to transaction timeout": "it took longer than the server's transaction_timeout allows",
    "max_statement_time|maximum statement execution": "it took longer than the server's max_statement_time allows",
    "lock timeout|locked|Lock wait timeout": "another program holds a lock on the database",
    "user request|execution was interrupted": "somebody cancelled it",
    "permission denied|command denied": "this user may not read all of the tables",
    "read-only (transaction|mode)|READ ONLY|before any query": "it would write, and nothing here may write",
    "snapshot": "the server does not know the snapshot that all read: the connection that held it was lost, or this is "
    "another server",
    "terminating connection|[Cc]losed|connection reset|kind: Io": "the connection was lost",
    "Lost connection|gone away|was killed|CodecError|IoError": "the connection was lost",
    "division by zero": "it divides by zero in some row",
    "invalid input syntax|out of range|malformed|Conversion": "a value of some row cannot be converted as it asks",
}
"""Signs in the texts of drivers (as regular expressions), and what they mean in our words."""


def reason_for(error: BaseException) -> str:
    """Why a statement failed while it read rows, in words of ours."""
    error = getattr(error, "orig", None) or error
    reason = next((reason for sign, reason in _REASONS.items() if re.search(sign, str(error))), None)
    state = getattr(error, "sqlstate", None)
    return reason or f"it failed while it read rows ({f'SQLSTATE {state}' if state else type(error).__name__})"


def stopped(reason: str) -> SourceError:
    """The error for a statement that failed for a reason."""
    return SourceError(f"The database stopped the query: {reason}. Nothing was exported.")


_ABOUT_THE_STATEMENT = {"0A", "21", "3D", "42"}
"""Classes of SQLSTATE: not supported, rows or columns that do not fit, no database named, names, syntax and rights."""


def refused(error: BaseException) -> SourceError:
    """The error for a statement that the database does not understand or allow: in its words, if they hold no value."""
    told = _in_its_words(getattr(error, "orig", None) or error)
    if not told:
        return stopped(reason_for(error))
    return SourceError(f"The database refuses the query: {told.rstrip('.')}.")


def _in_its_words(error: BaseException) -> str:
    state, number = getattr(error, "sqlstate", None), next(iter(error.args), None)
    if (state or "42")[:2] not in _ABOUT_THE_STATEMENT or "Conversion" in type(error).__name__:
        return ""
    if isinstance(number, int):  # MySQL's, which shows lines of the query
        told = " ".join(str(error.args[-1]).split()) if state else ""
        return re.sub("You have an error in your SQL syntax;.* right syntax to use", "syntax error", told)
    return (getattr(getattr(error, "diag", None), "message_primary", None) or str(error)).splitlines()[0]
