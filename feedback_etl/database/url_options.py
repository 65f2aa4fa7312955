"""Explain options of a database URL that its driver does not know or cannot use."""

import re

import sqlalchemy as sa

from feedback_etl.errors import UsageError

_HINTS = {
    "(current_?)?schema|search_path": "the schema of the tables is db_schema in the settings (FEEDBACK_ETL_DB_SCHEMA)",
    "pgbouncer|connection_limit|max_overflow|(pool|statement_cache|prepared_statement)_?.*": "it is for the "
    "application's pool of connections; omit it here",
    "(use_?)?(ssl|tls).*": "TLS is sslmode=require, verify-ca or verify-full on PostgreSQL and ssl-mode=REQUIRED, "
    "VERIFY_CA or VERIFY_IDENTITY on MySQL",
}
"""Patterns of options of other drivers, and their replacements."""

_DEFAULT_HINT = "omit options of other drivers"
_SQLITE_OPTIONS = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"}
_SQLITE_URI_OPTIONS = {"mode", "cache", "vfs", "psow", "nolock", "immutable", "modeof"}

_UNKNOWN = "invalid connection option|unexpected keyword|unrecognized configuration|as a global option"
_UNUSABLE = (
    "bad value for|invalid (port number|integer value|[a-z_]+ value:|literal)|not true/false|Failed to cast value|"
    "non-integer port|port arguments|could not convert string"
)

_ONE_HOST = "The database URL names several hosts, which only PostgreSQL's can; name one of them."
_SEVERAL_HOSTS = "Several hosts are written postgresql://user:password@/name?host=one:5432&host=two:5432."
_LIST_OF_HOSTS = re.compile(r"(?P<scheme>\w+)(\+\w+)?://([^@/?#]*@)?[\w.:-]+(,[\w.:-]+)+([/?].*)?")


def explain_hosts(text: str) -> str | None:
    """Explain a URL that cannot be parsed because it lists hosts with their ports; None for other URLs."""
    if not (hosts := _LIST_OF_HOSTS.fullmatch(text)):
        return None
    return f"The database URL is not valid. {_SEVERAL_HOSTS}" if hosts["scheme"].startswith("postgres") else _ONE_HOST


def check_options(url: sa.URL) -> None:
    """Refuse options that a driver would ignore silently, or fail at without a name.

    Raises:
        UsageError: An option is given more than once, SQLite does not know it, or MySQL has several hosts.
    """
    backend = url.get_backend_name()
    lists = {"host", "port"} if backend == "postgresql" else set()
    if not lists and ("," in (url.host or "") or not isinstance(url.query.get("host", ""), str)):
        raise UsageError(_ONE_HOST)
    options = _SQLITE_OPTIONS | (_SQLITE_URI_OPTIONS if "uri" in url.query else set())
    for name, value in url.query.items():
        if not isinstance(value, str) and name not in lists:
            raise UsageError(f"The database URL gives {_name_options([name], url)} more than once; give it once.")
        if backend == "sqlite" and name not in options:
            raise _build_unknown_option_error(name, url)


def explain_option(url: sa.URL, error: BaseException) -> UsageError | None:
    """Explain the error of a driver that does not know or cannot use an option of the URL; None for other errors."""
    text = str(getattr(error, "orig", None) or error)
    name = next((name for name in url.query if re.search(rf"\b{re.escape(name)}\b", text)), None)
    if "multihost" in text:
        return UsageError(f"The database URL names its hosts in two ways. {_SEVERAL_HOSTS}")
    if re.search(_UNKNOWN, text):
        return _build_unknown_option_error(name, url)
    is_raised_by_driver = isinstance(error, AttributeError | TypeError | sa.exc.ArgumentError)
    if re.search(_UNUSABLE, text) or (is_raised_by_driver and url.query):
        names = [name] if name else [*url.query]
        return UsageError(f"The database URL has a value for {_name_options(names, url)} that its driver cannot use.")
    return None


def _build_unknown_option_error(name: str | None, url: sa.URL) -> UsageError:
    hint = next((hint for pattern, hint in _HINTS.items() if re.fullmatch(pattern, _snake(name or ""))), _DEFAULT_HINT)
    names = [name] if name else [*url.query]
    return UsageError(f"The database URL has {_name_options(names, url)}, which its driver does not know: {hint}.")


def _snake(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").lower()


def _name_options(names: list[str], url: sa.URL) -> str:
    """Name options, unless they may be a part of a password that is not percent-encoded."""
    texts = [text for option, values in url.normalized_query.items() for text in (option, *values)]
    password = _snake(url.password or "")
    is_encoded = "@" not in "".join(texts) and not any(_snake(name) in password for name in names)
    if not (names and is_encoded and all(re.fullmatch("[A-Za-z][A-Za-z0-9_.-]{0,40}", name) for name in names)):
        return "an option"
    return f"the option{'s' * (len(names) > 1)} {' or '.join(names)}"
