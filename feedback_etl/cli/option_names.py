"""Names of options in messages, as they are typed."""

import re
from functools import cache
from typing import Any

from typer import Typer
from typer.main import get_command

RENAMED = {
    "database": "--database-url",
    "user_ids": "--user-ids-file",
    "analysis_ids": "--analysis-ids-file",
}
"""Options of commands whose names in the library are others."""


def name_options(message: str, app: object) -> str:
    """Replace the names of the library's options, which its messages quote with backticks, by those of an app.

    >>> name_options("Pass `database`; `age_edges` must increase.", app=None)
    'Pass --database-url; `age_edges` must increase.'
    """
    return re.sub("`([a-z_]+)`", lambda quoted: _list_names(app).get(quoted[1], quoted[0]), message)


@cache
def _list_names(app: object) -> dict[str, str]:
    """Return the options of an app's commands by the names of their parameters, and the renamed ones."""
    command: Any = get_command(app) if isinstance(app, Typer) else None
    commands = [command, *getattr(command, "commands", {}).values()] if command else []
    parameters = [parameter for command in commands for parameter in command.params]
    return {
        parameter.name: parameter.opts[0] for parameter in parameters if parameter.param_type_name == "option"
    } | RENAMED
