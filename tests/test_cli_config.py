"""`feedback-etl config` prints the active settings and their sources, and no secret."""

import json
from pathlib import Path

import pseudonym_keys
import pytest
from processes import feedback_etl

from feedback_etl.privacy.keys import Key
from feedback_etl.settings.model import Settings

CANARY = "canary-4711"
KEY = f"{CANARY}-{pseudonym_keys.KEY}"


def shown(*arguments: str, **env: str) -> dict[str, dict[str, object]]:
    """Return what it prints as JSON."""
    done = feedback_etl("config", "--json", *arguments, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert CANARY not in done.stdout
    settings: dict[str, dict[str, object]] = json.loads(done.stdout)
    return settings


def test_every_setting_is_printed_with_its_source() -> None:
    """Command line, variable, file or default; the key by its id."""
    Path("feedback-etl.toml").write_text("k = 5\nconnect_timeout = 3\noutput_dir = 'file'\n")
    env = {"FEEDBACK_ETL_CONNECT_TIMEOUT": "4", "FEEDBACK_ETL_KEY": KEY}
    settings = shown("--output", "flag", **env)
    assert settings.keys() == {*Settings.model_fields, "key", "settings_file"}
    assert settings["settings_file"]["value"] == str(Path("feedback-etl.toml").absolute())
    assert settings["output_dir"] == {"value": "flag", "from": "the command line"}
    assert settings["connect_timeout"] == {"value": 4.0, "from": "FEEDBACK_ETL_CONNECT_TIMEOUT"}
    assert settings["k"] == {"value": 5, "from": "feedback-etl.toml"}
    assert settings["max_suppressed"] == {"value": 1.0, "from": "default"}
    assert settings["key"] == {"value": Key(KEY).id, "from": "the environment (FEEDBACK_ETL_KEY)"}


def test_database_credentials_are_not_printed() -> None:
    """Neither user nor password, in any part of the URL."""
    url = f"postgresql://{CANARY}:{CANARY}@db.internal/app?password={CANARY}"
    assert shown(DATABASE_URL=url)["database_url"] == {
        "value": "PostgreSQL at db.internal, database app",
        "from": "DATABASE_URL",
    }
    assert shown(DATABASE_URL=CANARY)["database_url"]["value"] == "an invalid URL"


def test_settings_as_a_table() -> None:
    """One line for each setting; without a key, the command that creates one."""
    done = feedback_etl("config")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Setting", "Value", "From"]
    assert len(lines) == len(Settings.model_fields) + 3
    assert ["output_dir", '"ml/feedback_training"', "default"] in [line.split() for line in lines]
    assert "feedback-etl keys new" in lines[-2]
    assert lines[-1].split() == ["settings_file", "working", "directory"]


SCHEMA = """
[ratings.stars]
min = 1
max = 5
[columns.country]
role = "quasi_identifier"
"""


@pytest.mark.parametrize(
    ("file", "names", "origin"),
    [
        (SCHEMA, ["country"], "the declared schema"),
        (f"quasi_identifiers = ['stars']\n{SCHEMA}", ["stars"], "feedback-etl.toml"),
        ("quasi_identifiers = ['age_range']", ["age_range"], "feedback-etl.toml"),
        (SCHEMA.replace("max = 5", "max = 0"), None, "The rating stars needs a `min` below its `max`."),
    ],
)
def test_quasi_identifiers_are_those_of_an_export(file: str, names: list[str] | None, origin: str) -> None:
    """Those of the declared schema instead of the default ones."""
    Path("feedback-etl.toml").write_text(file)
    printed = shown()["quasi_identifiers"]
    assert printed["value"] == names
    assert str(printed["from"]).startswith(origin)
