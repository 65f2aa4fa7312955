"""Describe the errors of database drivers in our own words: theirs may contain passwords and rows' values.

Imports nothing heavy, since the reader process imports this module when it starts.
"""

import re

from feedback_etl.errors import SourceError

CONNECTION_REASONS = {
    "timeout expired|timed out": "it did not answer in time (connect_timeout in the settings)",
    "refused": "the connection was refused; is the server running, and are host and port right",
    "resolve|translate host name|idna|Name or service|nodename": "there is no host of that name",
    'database ".*" does not exist|Unknown database': "there is no database of that name",
    'role ".*" does not exist': "there is no user of that name",
    "permission denied for database|Access denied .* to database": "this user may not connect to it",
    "password": "user or password is wrong or missing",
    "no pg_hba.conf entry": "the server does not accept this user from this host (pg_hba.conf)",
    "is not allowed to connect": "the server does not accept connections from this host",
    "too many|Too many": "the server has no connection left",
    "No such file": "there is no socket of that server",
    "could not open certificate file .* Permission denied": "this user may not read the driver's certificates; set "
    "HOME to the user's own folder (they are looked for in HOME/.postgresql), or name readable files (sslcert, sslkey)",
    "root certificate file .* does not exist": "the certificate of the authority is missing (sslrootcert, or "
    "HOME/.postgresql/root.crt)",
    "SSL|certificate|insecure transport": "the TLS settings do not match the server's, or it is not a {name} server",
    "closed the connection|Lost connection|Packet sequence|protocol version": "what answers there is not a {name} "
    "server",
    "starting up|shutting down|shutdown": "the server is starting or stopping",
    "transaction is aborted": "its transaction has failed; roll it back first",
    "is closed": "the connection is closed",
    "not a database": "it is not an SQLite database",
    "not a valid DuckDB|in-memory database in read-only": "it is not a DuckDB database",
    "locked|Conflicting lock": "another program holds a lock on it",
    "different configuration": "this program has it open for writing; give its engine instead of the URL",
    "readonly database": "SQLite has to write to the file or its folder first, which this user may not",
    "unable to open": "the file cannot be opened",
}
"""Patterns in the texts of drivers that cannot connect, and our reasons; `{name}` is the product's name."""

QUERY_REASONS = {
    "conflict with recovery": "the server is a standby and replayed changes to rows that the query still needed; run "
    "it again, read from the primary, or set hot_standby_feedback = on on the standby",
    r"decode to UTF-8 column '(\w+)'": "the text of {0} is not valid UTF-8 in some row; correct it there, or exclude "
    "{0} with a query (NULL AS {0}; --query, or that of [source])",
    "decode to UTF-8|invalid byte sequence|[Ii]nvalid utf-?8": "the text of some column is not valid UTF-8 in some "
    "row; correct it there",
    r"Illegal mix of collations \((\w+),\w+\) and \((\w+),\w+\)": "it compares text of the collations {0} and {1}, "
    "which in the default tables means ids of two tables; give both tables one collation (ALTER TABLE ... CONVERT TO "
    "CHARACTER SET utf8mb4 COLLATE ...), or write the join with COLLATE in a query (--query, or that of [source])",
    "Illegal mix of collations": "it compares text of several collations; name one with COLLATE in a query "
    "(--query, or that of [source])",
    "statement timeout": "it took longer than the server's statement_timeout allows",
    "due to transaction timeout": "it took longer than the server's transaction_timeout allows",
    "max_statement_time|maximum statement execution": "it took longer than the server's max_statement_time allows",
    "lock timeout|locked|Lock wait timeout": "another program holds a lock on the database",
    "user request|execution was interrupted": "it was cancelled by another session",
    "row-level security policy": "row-level security would hide rows from this user (--allow-row-security permits it)",
    "permission denied|command denied": "this user may not read all of the tables",
    "read-only (transaction|mode)|READ ONLY|before any query": "it would write, but all sessions are read-only",
    "snapshot": "the server does not know the snapshot that all connections share: the connection that exported it was "
    "lost, or this is another server",
    "(?i)too many (clients|connections)|connection slots|timed out waiting for connection": "the server has no "
    "connection left for the reader (an export has two at once)",
    "terminating connection|[Cc]losed|connection reset|kind: Io": "the connection was lost",
    "Lost connection|gone away|was killed|CodecError|IoError": "the connection was lost",
    "No space left|temp_file_limit|Disk full": "the server has no disk space left to sort the rows",
    "division by zero": "it divides by zero in some row",
    r"(?:source column |converting column \")(\w+)": "{0} has a value that cannot be converted in some row",
    r"CSV Error on Line: (\d+)": "line {0} of a CSV file has more or fewer fields than the first, or a quote that is "
    "not closed",
    "CSV Parser state machine": "a CSV file has a quote that is not closed, or lines that end in different ways",
    r"Malformed JSON in file .*? in (?:line|record/value) (\d+)": "line {0} of a file of JSON lines is not JSON",
    "invalid input syntax|out of range|malformed|Conversion": "a value of some row cannot be converted as requested",
}
"""Patterns in the texts of drivers that fail while they read, and our reasons.

A reason repeats only what the groups of its pattern match: names of columns and collations.
"""

_STATEMENT_CLASSES = {"0A", "21", "3D", "42"}
"""SQLSTATE classes of errors about the statement itself: unsupported features, cardinality, no database, and names,
syntax and privileges. Only these errors contain no value."""


def unwrap_error(error: BaseException) -> BaseException:
    """Return the driver's error that an error of SQLAlchemy wraps, or the error itself."""
    return getattr(error, "orig", None) or error


def get_connection_reason(error: BaseException, product: str) -> str:
    """Return why a connection failed; `product` is the database's name, such as PostgreSQL."""
    reason = _find_reason(CONNECTION_REASONS, unwrap_error(error), name=product)
    return reason or f"the driver reports {type(error).__name__}"


def get_query_reason(error: BaseException) -> str:
    """Return why a statement failed while it read rows."""
    error = unwrap_error(error)
    state = getattr(error, "sqlstate", None)
    unknown = f"it failed while it read rows ({f'SQLSTATE {state}' if state else type(error).__name__})"
    return _find_reason(QUERY_REASONS, error) or unknown


def _find_reason(reasons: dict[str, str], error: BaseException, **names: str) -> str | None:
    text = str(error)
    matches = ((re.search(pattern, text, re.DOTALL), reason) for pattern, reason in reasons.items())
    return next((reason.format(*match.groups(), **names) for match, reason in matches if match), None)


def build_query_error(reason: str) -> SourceError:
    """Return the error for a statement that failed while it read rows."""
    return SourceError(f"The database stopped the query: {reason}. Nothing was exported.")


def build_invalid_query_error(error: BaseException, role: str = "", position: str = "") -> SourceError:
    """Return the error for a statement that the database rejects, in the database's words if they contain no value.

    Args:
        error: The driver's, or SQLAlchemy's about it.
        role: The role that reads (PostgreSQL), as an identifier.
        position: The position of the error in the user's query, in brackets.
    """
    error = unwrap_error(error)
    if is_row_security_error(error):
        return _build_row_security_error(error, role)
    message = _quote_message(error)
    if not message:
        return build_query_error(get_query_reason(error))
    return SourceError(f"The database refuses the query: {message.rstrip('.')}{position}.")


def is_row_security_error(error: BaseException) -> bool:
    """Return whether PostgreSQL refused a query because row-level security would hide rows, in any language."""
    error = unwrap_error(error)
    routine = getattr(getattr(error, "diag", None), "source_function", None)
    return routine == "check_enable_rls" or "row-level security policy" in str(error)


def _build_row_security_error(error: BaseException, role: str) -> SourceError:
    table = re.search(r"""["«»„“]\s*(.+?)\s*["«»”“]""", str(error))
    return SourceError(
        f"Row-level security hides rows of {table[1] if table else 'a table'} from the role {role}: an export could "
        f"lack rows, and contain people who have opted out. Let the role read every row (ALTER ROLE {role} "
        "BYPASSRLS), or read only what its policies show (--allow-row-security; erase --not-in-database never does)."
    )


def _quote_message(error: BaseException) -> str:
    """Return the first line of the database's message; "" if it may contain a value."""
    state, number = getattr(error, "sqlstate", None), next(iter(error.args), None)
    if (state or "42")[:2] not in _STATEMENT_CLASSES or "Conversion" in type(error).__name__:
        return ""
    if isinstance(number, int):  # MySQL's message quotes lines of the query
        message = " ".join(str(error.args[-1]).split()) if state else ""
        return re.sub("You have an error in your SQL syntax;.*", "syntax error", message)
    return (getattr(getattr(error, "diag", None), "message_primary", None) or str(error)).splitlines()[0]
