"""The command that prints the active settings."""

import json
from typing import TYPE_CHECKING, Any

from feedback_etl.cli.console import print_json
from feedback_etl.cli.options import JsonOutput, OutputFolder, load_command_settings
from feedback_etl.cli.tables import print_table
from feedback_etl.errors import FeedbackError

if TYPE_CHECKING:
    from feedback_etl.settings.model import Settings


def print_settings(output: OutputFolder = None, as_json: JsonOutput = False) -> None:
    """Print the active settings and the source of each value.

    Precedence: command line, environment, settings file, default. Of the database only the location is printed, and of
    the key only the id. The last line names the settings file that was read.
    """
    from feedback_etl.settings.file import read_settings_file
    from feedback_etl.settings.model import find_sources

    settings = load_command_settings(output)
    sources = find_sources(output_dir=output)
    values = {name: {"value": value, "from": sources[name]} for name, value in _redact(settings).items()}
    values["quasi_identifiers"] = _describe_quasi_identifiers(settings, sources["quasi_identifiers"])
    values["key"] = _describe_key(settings)
    file = read_settings_file()
    values["settings_file"] = {"value": str(file.path.absolute()) if file.values else None, "from": "working directory"}
    if as_json:
        print_json(values)
        return
    rows = [
        (name, None if setting["value"] is None else json.dumps(setting["value"], ensure_ascii=False), setting["from"])
        for name, setting in values.items()
    ]
    print_table(["Setting", "Value", "From"], rows)


def _redact(settings: "Settings") -> dict[str, Any]:
    """Return all settings as JSON values, without the user and the password of the database."""
    from feedback_etl.storage.location import open_storage

    values = settings.model_dump(mode="json")
    values["output_dir"] = str(open_storage(settings.output_dir))
    if settings.database_url is not None:
        values["database_url"] = _describe_database(settings.database_url.get_secret_value())
    return values


def _describe_database(url: str) -> str:
    """Return the location of a database in words, without user and password."""
    from feedback_etl.database.urls import describe_url, parse_url

    try:
        return describe_url(parse_url(url))
    except FeedbackError:
        return "an invalid URL"


def _describe_quasi_identifiers(settings: "Settings", source: str) -> dict[str, Any]:
    """Return the quasi-identifiers of an export, declared ones too; or the reason why there are none."""
    try:
        names = settings.effective_quasi_identifiers
    except FeedbackError as error:
        return {"value": None, "from": str(error)}
    if names == settings.quasi_identifiers:
        return {"value": names, "from": source}
    is_set = "quasi_identifiers" in settings.model_fields_set
    return {"value": names, "from": f"{source} and the declared columns" if is_set else "the declared schema"}


def _describe_key(settings: "Settings") -> dict[str, Any]:
    """Return the id and the location of the active key, or the reason why there is none."""
    from feedback_etl.settings.keys import find_active_key, find_key

    try:
        key = find_active_key(settings)
        return {"value": key.id, "from": find_key(settings).location}
    except FeedbackError as error:
        return {"value": None, "from": str(error)}
