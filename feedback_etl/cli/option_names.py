"""Names of options in messages, as they are typed."""

import re
from functools import cache

RENAMED = {
    "days_back": "--days",
    "min_feedback_fields": "--min-fields",
    "output_dir": "--output",
    "for_sharing": "--share",
    "user_ids": "--user-ids-file",
    "analysis_ids": "--analysis-ids-file",
}
"""Options of commands whose names in the library are others."""


def name_options(message: str) -> str:
    """Replace the names of the library's options, which its messages quote with backticks, by those of the commands.

    >>> name_options("`days_back` must be 1 or more; `age_edges` must increase.")
    '--days must be 1 or more; `age_edges` must increase.'
    """
    return re.sub("`([a-z_]+)`", lambda quoted: _list_names().get(quoted[1], quoted[0]), message)


@cache
def _list_names() -> dict[str, str]:
    """Return the options of all commands by the names of their parameters, and the renamed ones."""
    from typer.main import get_group

    from feedback_etl.cli.app import app

    parameters = (parameter for command in get_group(app).commands.values() for parameter in command.params)
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    return {option.name: option.opts[0] for option in options} | RENAMED
