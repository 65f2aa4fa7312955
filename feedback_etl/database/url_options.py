"""The options of a database URL: which one its driver does not know or cannot use, and where such a setting belongs."""

import re

import sqlalchemy as sa

from feedback_etl.errors import UsageError

_BELONGS = {
    "(current_?)?schema|search_path": "the schema of the tables is db_schema in the settings (FEEDBACK_ETL_DB_SCHEMA)",
    "pgbouncer|connection_limit|max_overflow|(pool|statement_cache|prepared_statement)_?.*": "it is for the "
    "application's pool of connections; leave it out here",
    "(use_?)?(ssl|tls).*": "TLS is sslmode=require, verify-ca or verify-full on PostgreSQL and ssl-mode=REQUIRED, "
    "VERIFY_CA or VERIFY_IDENTITY on MySQL",
}
"""Options of other drivers (as regular expressions), and where they belong."""

_ELSEWHERE = "options of other drivers are left out here"
_OF_SQLITE = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"}
_OF_SQLITE_URIS = {"mode", "cache", "vfs", "psow", "nolock", "immutable", "modeof"}

_UNKNOWN = "invalid connection option|unexpected keyword|unrecognized configuration|as a global option"
_UNUSABLE = (
    "bad value for|invalid (port number|integer value|[a-z_]+ value:|literal)|not true/false|Failed to cast value|"
    "non-integer port|port arguments|could not convert string"
)

_ONE_HOST = "The database URL names several hosts, which only PostgreSQL's can; name one of them."
_SEVERAL_HOSTS = "Several hosts are written postgresql://user:password@/name?host=one:5432&host=two:5432."
_LIST_OF_HOSTS = re.compile(r"(?P<scheme>\w+)(\+\w+)?://([^@/?#]*@)?[\w.:-]+(,[\w.:-]+)+([/?].*)?")


def explain_hosts(text: str) -> str | None:
    """Explain a URL that cannot be parsed since it lists hosts with their ports; None where it is something else."""
    if not (hosts := _LIST_OF_HOSTS.fullmatch(text)):
        return None
    return f"The database URL is no URL. {_SEVERAL_HOSTS}" if hosts["scheme"].startswith("postgres") else _ONE_HOST


def check_options(url: sa.URL) -> None:
    """Refuse options that a driver would ignore silently, or fail at without naming them.

    Raises:
        UsageError: An option is given more than once, SQLite does not know it, or there are several hosts of MySQL's.
    """
    backend = url.get_backend_name()
    lists = {"host", "port"} if backend == "postgresql" else set()
    if not lists and ("," in (url.host or "") or not isinstance(url.query.get("host", ""), str)):
        raise UsageError(_ONE_HOST)
    for name, value in url.query.items():
        if not isinstance(value, str) and name not in lists:
            raise UsageError(f"The database URL gives {_in_words([name], url)} more than once; give it once.")
        if backend == "sqlite" and name not in (_OF_SQLITE | (_OF_SQLITE_URIS if "uri" in url.query else set())):
            raise _unknown(name, url)


def explain_option(url: sa.URL, error: BaseException) -> UsageError | None:
    """Explain the error of a driver that does not know an option of the URL or cannot use its value; else None."""
    text = str(getattr(error, "orig", None) or error)
    name = next((name for name in url.query if re.search(rf"\b{re.escape(name)}\b", text)), None)
    if "multihost" in text:
        return UsageError(f"The database URL names its hosts in two ways. {_SEVERAL_HOSTS}")
    if re.search(_UNKNOWN, text):
        return _unknown(name, url)
    is_of_driver = isinstance(error, AttributeError | TypeError | sa.exc.ArgumentError)
    if re.search(_UNUSABLE, text) or (is_of_driver and url.query):
        names = [name] if name else [*url.query]
        return UsageError(f"The database URL has a value for {_in_words(names, url)} that its driver cannot use.")
    return None


def _unknown(name: str | None, url: sa.URL) -> UsageError:
    belongs = next((where for sign, where in _BELONGS.items() if re.fullmatch(sign, _snake(name or ""))), _ELSEWHERE)
    names = [name] if name else [*url.query]
    return UsageError(f"The database URL has {_in_words(names, url)}, which its driver does not know: {belongs}.")


def _snake(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).replace("-", "_").lower()


def _in_words(names: list[str], url: sa.URL) -> str:
    """Name options, unless they may be a part of a password whose special characters are not encoded."""
    texts = [text for option, values in url.normalized_query.items() for text in (option, *values)]
    password = _snake(url.password or "")
    is_encoded = "@" not in "".join(texts) and not any(_snake(name) in password for name in names)
    if not (names and is_encoded and all(re.fullmatch("[A-Za-z][A-Za-z0-9_.-]{0,40}", name) for name in names)):
        return "an option"
    return f"the option{'s' * (len(names) > 1)} {' or '.join(names)}"
