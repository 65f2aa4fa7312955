"""The settings file in the working directory: `feedback-etl.toml`, or `[tool.feedback-etl]` of `pyproject.toml`.

A settings file can select code (a row model), the pseudonym key and weaker limits. It is therefore used only if it
belongs to this user or to root, and no other user can write to it.
"""

import grp
import os
import pwd
import re
import shlex
import stat
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from feedback_etl.database.custom_query import QueryText, describe_offset, read_query_file
from feedback_etl.errors import UsageError

SETTINGS_FILE = "feedback-etl.toml"

_POSITION = re.compile(r"\(at (line \d+, column \d+)\)$")
"""The position at the end of a message of `tomllib`, which may quote the file before it; none at the end of a file."""


class SettingsFile(NamedTuple):
    """The path, the values and the text of a settings file; values and text are empty if the file does not exist."""

    path: Path
    values: dict[str, Any]
    text: str = ""

    def locate(self, *keys: str) -> str:
        """Return the file and the line of a setting, for messages; the line is that at which the setting begins."""
        lines = self.text.splitlines(keepends=True)
        keys = keys if self.path.name == SETTINGS_FILE else ("tool", "feedback-etl", *keys)
        line = 0
        for number in range(1, len(lines) + 1):
            with suppress(tomllib.TOMLDecodeError):  # the lines end within a value
                values: Any = tomllib.loads("".join(lines[:number]))
                for key in keys:
                    values = values.get(key) if isinstance(values, dict) else None
                if values is not None:
                    return f"{self.path}, line {line + 1}"
                line = number
        return str(self.path)


def read_settings_file() -> SettingsFile:
    """Read the settings file; ignore a pyproject.toml without `[tool.feedback-etl]`.

    Raises:
        UsageError: A settings file exists, or may exist, but cannot be read or trusted. Ignoring it would silently
            ignore its settings.
    """
    path = Path(SETTINGS_FILE)
    if (file := _read(path)) is not None:
        _require_trusted(path, file.status)
        return SettingsFile(path, *_parse_toml(path, file.content))
    path = Path("pyproject.toml")
    file = _read(path)
    if file is None or b"feedback-etl" not in file.content:
        return SettingsFile(path, {})
    project, text = _parse_toml(path, file.content)
    tool = project.get("tool")
    values = tool.get("feedback-etl", {}) if isinstance(tool, dict) else {}
    if not isinstance(values, dict):
        raise UsageError("In pyproject.toml, tool.feedback-etl must be a table: [tool.feedback-etl].")
    if values:
        _require_trusted(path, file.status)
    return SettingsFile(path, values, text)


class _File(NamedTuple):
    content: bytes
    status: os.stat_result


def _read(path: Path) -> _File | None:
    """Return the content and the status of a file, or None if it does not exist."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                return _File(file.read(), status)
            reason = "it is not a regular file"
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


def require_trusted_model(name: str) -> None:
    """Require that the file of a row model, which is code, is trusted as a settings file is; a module is not tested.

    Raises:
        UsageError: Another user owns the file or can write to it.
    """
    path = Path(name.rpartition(":")[0])
    with suppress(OSError):  # reported when the model is loaded
        if path.suffix == ".py":
            _require_trusted(path, path.stat(), "row model")


def read_trusted_query(path: Path) -> QueryText:
    """Return the text of a query file, which decides what is read, if it is trusted as a settings file is.

    Raises:
        UsageError: Another user owns the file or can write to it, or it cannot be read.
    """
    with suppress(OSError):  # reported when the file is read
        _require_trusted(path, path.stat(), "query file")
    return read_query_file(path)


def _require_trusted(path: Path, status: os.stat_result, kind: str = "settings file") -> None:
    """Raise if another user owns the file, or the link to it, or can write to it."""
    if not {status.st_uid, path.lstat().st_uid} <= {os.geteuid(), 0}:
        raise UsageError(
            f"The {kind} {path} belongs to another user, so it is not used. Take ownership of it, or run the command "
            "in another directory."
        )
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid)):
        fix = shlex.join(["chmod", "go-w", str(path)])
        raise UsageError(f"Other users can write to the {kind} {path}, so it is not used. Fix it: {fix}")


def _is_private_group(group: int) -> bool:
    """Return whether a group is the private group of this user: one of the same name without other members."""
    try:
        return grp.getgrgid(group).gr_name == pwd.getpwuid(os.geteuid()).pw_name and not grp.getgrgid(group).gr_mem
    except KeyError:  # a container's user may have no name
        return False


def _parse_toml(path: Path, content: bytes) -> tuple[dict[str, Any], str]:
    """Return the values and the text of a settings file.

    Raises:
        UsageError: The file is not TOML. The message contains the position, but nothing of the file.
    """
    try:
        text = content.decode().replace("\r\n", "\n")
        return tomllib.loads(text), text
    except UnicodeDecodeError as error:
        valid = content[: error.start].decode()
        position = f"{describe_offset(valid, len(valid))}, which is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        position = next(iter(_POSITION.findall(str(error))), describe_offset(text, len(text)))
    raise UsageError(f"The settings file {path} is not valid TOML (at {position}).")
