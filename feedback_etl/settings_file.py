"""The settings file in the working directory: `feedback-etl.toml`, or `[tool.feedback-etl]` of `pyproject.toml`."""

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from feedback_etl.errors import UsageError

SETTINGS_FILE = "feedback-etl.toml"


class SettingsFile(NamedTuple):
    """The path and the values of a settings file; the values are empty if the file does not exist."""

    path: Path
    values: dict[str, Any]


def read_settings_file() -> SettingsFile:
    """Read the settings file; ignore a pyproject.toml without `[tool.feedback-etl]`.

    Raises:
        UsageError: A file exists, or may exist, and cannot be read; its settings would be ignored silently.
    """
    path = Path(SETTINGS_FILE)
    if (content := _read(path)) is not None:
        return SettingsFile(path, _parse_toml(path, content))
    path = Path("pyproject.toml")
    content = _read(path)
    if content is None or b"feedback-etl" not in content:
        return SettingsFile(path, {})
    tool = _parse_toml(path, content).get("tool")
    values = tool.get("feedback-etl", {}) if isinstance(tool, dict) else {}
    if not isinstance(values, dict):
        raise UsageError("In pyproject.toml, tool.feedback-etl must be a table: [tool.feedback-etl].")
    return SettingsFile(path, values)


def _read(path: Path) -> bytes | None:
    """Return the content of a file, or None if it does not exist."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not path.is_symlink():
            return None
        reason = "it is a dangling symbolic link"
    except OSError as error:
        reason = str(error.strerror)
    raise UsageError(
        f"The settings file {path} in the working directory cannot be read: {reason}. Make it readable, or run the "
        "command in another directory."
    )


def _parse_toml(path: Path, content: bytes) -> dict[str, Any]:
    """Parse the content of a settings file."""
    with suppress(ValueError):  # the error may contain a line of the file, so it is not chained
        return tomllib.loads(content.decode())
    raise UsageError(f"The settings file {path} is not valid TOML.")
