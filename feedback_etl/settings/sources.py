"""The sources of settings: the command line, the environment, the settings file."""

import os
from collections.abc import Mapping, Sequence

from feedback_etl.settings.file import SettingsFile, read_settings_file
from feedback_etl.settings.messages import PREFIX


def describe_source(location: Sequence[str | int], flags: Mapping[str, object]) -> str:
    """Return the variable, or the file and the line, of an invalid setting in brackets; "" for a flag."""
    keys = [str(key) for key in location]
    keys[0] = keys[0].removeprefix(PREFIX.lower())
    file = read_settings_file()
    match find_source(keys[0], flags, file):
        case "the command line":
            return ""
        case source if source == str(file.path):
            return f" ({file.locate(*keys)})"
        case source:
            return f" ({source})"


def find_source(name: str, flags: Mapping[str, object], file: SettingsFile) -> str:
    """Return the source of the active value of a setting, in words."""
    variables = {variable.upper() for variable, value in os.environ.items() if value}
    names = [f"{PREFIX}{name.upper()}", *(["DATABASE_URL"] if name == "database_url" else [])]
    if flags.get(name) is not None:
        return "the command line"
    if variable := next((variable for variable in names if variable in variables), None):
        return variable
    return str(file.path) if name in file.values else "default"
