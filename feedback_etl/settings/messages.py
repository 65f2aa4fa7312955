"""Names of settings, and messages about missing, unknown and invalid settings; no message contains a value."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel

PREFIX = "FEEDBACK_ETL_"
"""The prefix of all environment variables."""
KEY_VARIABLE = "FEEDBACK_ETL_KEY"
KEY_FILE_VARIABLE = "FEEDBACK_ETL_KEY_FILE"

NO_DATABASE = (
    "No database is configured. Set FEEDBACK_ETL_DATABASE_URL (or pass --database-url), for example "
    "postgresql://user@host/app or sqlite:////path/to/app.db. `feedback-etl demo` requires no database."
)
NO_KEY = (
    "No pseudonym key is configured, so ids would not be protected. Create one with `feedback-etl keys new` and keep "
    f"it; in a container, mount it and set {KEY_FILE_VARIABLE}. (--unkeyed uses plain SHA-256, which anyone who can "
    "list the ids can invert.)"
)

_HINTS = dict.fromkeys(
    ("source.item_id", "source.item"), ' (declare what was rated as [columns.NAME] with role = "item")'
)
"""Where other settings are than a user may think."""

_SERVICE_LINK = re.compile(
    rf"{PREFIX}([A-Z0-9_]+_)?"
    r"(SERVICE_HOST=\S+|SERVICE_PORT(_[A-Z0-9_]+)?=\d+|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://\S+"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp)|PORT=\d+|ADDR=\S+))"
)
"""A variable that Kubernetes sets for a Service named feedback-etl or feedback-etl-NAME, as NAME=VALUE."""


def describe_error(
    location: Iterable[str | int], message: str, names: Iterable[str], flags: Mapping[str, object]
) -> str:
    """Convert an error of Pydantic to a clause that contains the name of the setting but not its value.

    The name of an option of the command line is quoted with backticks.

    Args:
        location: The path of the setting, as in `ValidationError.errors()`.
        message: Pydantic's message, which begins with "Input" or "Extra inputs", or is "Field required".
        names: The names of the settings of its table.
        flags: The values that options of the command line give, by the names of settings.
    """
    name = ".".join(map(str, location)).removeprefix(PREFIX.lower())
    if message.startswith("Extra"):
        return describe_unknown(name, name.rpartition(".")[2], names) + _HINTS.get(name, "")
    if message == "Field required":
        return f"{name} is missing"
    return message.replace("Input", name if flags.get(name) is None else f"`{name}`", 1)


def describe_unknown(shown_name: str, name: str, names: Iterable[str]) -> str:
    """Return a clause about an unknown setting, with the most similar known names if there are any."""
    near = get_close_matches(name, list(names), 3, 0.6)
    return f"{shown_name} is not a setting" + (f" (did you mean {' or '.join(near)}?)" if near else "")


def list_keys(model: "type[BaseModel]", location: Iterable[str | int]) -> list[str]:
    """Return the names of the settings of a table; none if its names are free, or if there is no such table."""
    kind: Any = model
    for key in location:
        fields = getattr(kind, "model_fields", {})
        kind = get_args(kind)[1] if get_origin(kind) is dict else fields[key].annotation if key in fields else None
        if get_origin(kind) in (Union, UnionType):
            kind = next(option for option in get_args(kind) if option is not NoneType)
    return list(getattr(kind, "model_fields", {}))


def list_unknown_variables(environment: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return the variables with the prefix that are not settings, except those of tests and of Kubernetes."""
    variables = {f"{PREFIX}{name.upper()}" for name in names}
    prefixed = sorted(name for name in environment if name.upper().startswith(PREFIX))
    return [
        name
        for name in prefixed
        if name.upper() not in variables
        and not name.upper().startswith(f"{PREFIX}TEST_")
        and not _SERVICE_LINK.fullmatch(f"{name}={environment[name]}")
    ]
