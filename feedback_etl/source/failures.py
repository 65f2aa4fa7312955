"""What to tell of a statement that failed: never what the database says, since that can hold rows' values."""

import re

from feedback_etl.errors import SourceError

_REASONS = {
    "statement timeout": "it took longer than the server's statement_timeout allows",
    "lock timeout|locked": "another program holds a lock on the database",
    "user request": "somebody cancelled it",
    "permission denied": "this user may not read all of the tables",
    "read-only transaction|before any query": "it would write, and nothing here may write",
    "terminating connection|[Cc]losed|connection reset|kind: Io": "the connection was lost",
    "division by zero": "it divides by zero in some row",
    "invalid input syntax|out of range|malformed": "a value of some row cannot be converted as it asks",
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
