"""The command that tells which settings are in force."""

import json
from typing import TYPE_CHECKING, Any

from feedback_etl.cli.console import print_data
from feedback_etl.cli.folder import AsJson, Output, settings_for
from feedback_etl.errors import FeedbackError

if TYPE_CHECKING:
    from feedback_etl.settings import Settings


def config(output: Output = None, as_json: AsJson = False) -> None:
    """Print the settings in force, and where each value comes from.

    A flag comes before the environment, the environment before the settings file, that before the default. Of the
    database only its place is shown, and of the key its id.
    """
    from feedback_etl.settings import origins

    settings = settings_for(output)
    places = origins(output_dir=output)
    shown = {name: {"value": value, "from": places[name]} for name, value in _values(settings).items()}
    shown["key"] = _key(settings)
    if as_json:
        print_data(json.dumps(shown))
        return
    for name, found in shown.items():
        value = "" if found["value"] is None else json.dumps(found["value"], ensure_ascii=False)
        print_data(f"{name:<20} {value:<44} {found['from']}")


def _values(settings: "Settings") -> dict[str, Any]:
    """All settings as JSON can hold them; of a URL no user and no password."""
    from feedback_etl.storage.base import open_storage

    values = settings.model_dump(mode="json")
    values["output_dir"] = str(open_storage(settings.output_dir))
    if settings.database_url is not None:
        values["database_url"] = _place(settings.database_url.get_secret_value())
    return values


def _place(url: str) -> str:
    from feedback_etl.database.urls import describe_url, parse_url

    try:
        return describe_url(parse_url(url))
    except FeedbackError:
        return "a URL that cannot be understood"


def _key(settings: "Settings") -> dict[str, Any]:
    """The id of the key in force."""
    from feedback_etl.settings import find_key, key_in_force

    try:
        key = key_in_force(settings)
        return {"value": key.id, "from": find_key(settings).place}
    except FeedbackError as error:
        return {"value": None, "from": str(error)}
