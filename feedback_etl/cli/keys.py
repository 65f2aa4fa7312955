"""Commands for pseudonym keys, and the keys that other commands use."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.command_group import option
from feedback_etl.cli.console import echo_command, echo_err, print_json, print_lines
from feedback_etl.cli.options import JsonOutput
from feedback_etl.cli.tables import print_table
from feedback_etl.errors import KeyMissingError

if TYPE_CHECKING:
    from feedback_etl.privacy.keys import Key
    from feedback_etl.settings.model import Settings

keys_app = typer.Typer(
    help="Create, show, list and retire pseudonym keys.",
    epilog="Example: feedback-etl keys show",
    no_args_is_help=True,
)
KeyFile = Annotated[Path | None, option("--file", "Key file.  [default: the key in the user's configuration]", "FILE")]


@keys_app.command("new", epilog="Example: feedback-etl keys new --file /run/secrets/feedback_key")
def create_key(file: KeyFile = None) -> None:
    """Create a pseudonym key in a file that only its owner can read."""
    from feedback_etl.privacy.keys import write_key
    from feedback_etl.settings.keys import default_key_path
    from feedback_etl.settings.messages import KEY_FILE_VARIABLE

    path = file or default_key_path()
    key = write_key(path)
    print_lines(f"key {key.id} written to {path}")
    echo_err(
        "Keep a copy in a safe place. Anyone who has the key can recompute pseudonyms; without it, new exports no "
        "longer match earlier ones."
    )
    if file:
        echo_command(f"To use it: export {KEY_FILE_VARIABLE}={shlex.quote(str(file.absolute()))}")


@keys_app.command("show", epilog="Example: feedback-etl keys show")
def show_key() -> None:
    """Print the id and the location of the active key.

    The key itself is never printed.
    """
    from feedback_etl.settings.keys import find_key

    key, location = find_key()
    print_lines(f"key {key.id} from {location}")


@keys_app.command("list", epilog="Example: feedback-etl keys list")
def list_keys(as_json: JsonOutput = False) -> None:
    """List the active key and retired keys by their ids."""
    from feedback_etl.privacy.retired_keys import read_retired_keys
    from feedback_etl.settings.keys import find_key, find_retired_folder

    keys = []
    with suppress(KeyMissingError):
        key, location = find_key()
        keys.append({"key": key.id, "state": "active", "location": location})
    for key, path in read_retired_keys(find_retired_folder()):
        keys.append({"key": key.id, "state": "retired", "location": str(path)})
    if as_json:
        print_json({"keys": keys})
    elif keys:
        print_table(["Key", "State", "Location"], [key.values() for key in keys])
    else:
        echo_err("There is no key. `feedback-etl keys new` creates one.")


@keys_app.command("retire", epilog="Example: feedback-etl keys retire")
def retire_key(file: KeyFile = None) -> None:
    """Retire a key, so that exports refuse it.

    Erasure and audit still use it.
    """
    from feedback_etl.privacy.retired_keys import retire_key as retire
    from feedback_etl.settings.keys import default_key_path, find_retired_folder

    path = file or default_key_path()
    key, retired_path = retire(path, find_retired_folder() or path.parent / "retired")
    print_lines(f"key {key.id} is retired: {retired_path}")
    echo_err("Exports refuse it; `erase` and `audit verify` still use it. Create a new key: feedback-etl keys new")
    if path.exists():
        echo_err(f"{path} could not be removed: remove it, so that nothing uses it.")


def resolve_export_key(settings: "Settings") -> "Key":
    """Return the active key; create one if there is none, none was retired and the command runs on a terminal.

    Elsewhere, as in a container, a new key would be lost after the run. After a retired key a new one is a decision:
    its pseudonyms match no earlier ones.

    Raises:
        KeyMissingError: No key is configured, and the command does not run on a terminal, or a key was retired.
        KeyUnusableError: The configured key is invalid or retired.
    """
    from feedback_etl.privacy.keys import write_key
    from feedback_etl.privacy.retired_keys import read_retired_keys
    from feedback_etl.settings.keys import default_key_path, find_active_key, find_retired_folder

    try:
        return find_active_key(settings)
    except KeyMissingError:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
    if read_retired_keys(find_retired_folder(settings)):
        raise KeyMissingError(
            "The key of earlier exports is retired, and there is no other. Create one (feedback-etl keys new); its "
            "pseudonyms match no earlier ones, so export into another folder (--output), or pass --allow-new-key."
        )
    path = default_key_path()
    key = write_key(path)
    echo_err(f"No pseudonym key existed; created one in {path} (id {key.id}). Keep a copy of it in a safe place.")
    return key


def find_optional_key(settings: "Settings") -> "Key | None":
    """Return the configured key, or None if there is none."""
    from feedback_etl.settings.keys import find_key

    try:
        return find_key(settings).key
    except KeyMissingError:
        return None


def list_available_keys(settings: "Settings", files: list[Path] | None) -> "list[Key]":
    """Return the configured key, the keys in `files` (--key-file) and the retired keys, in this order."""
    from feedback_etl.privacy.keys import read_key
    from feedback_etl.privacy.retired_keys import read_retired_keys
    from feedback_etl.settings.keys import find_retired_folder

    key = find_optional_key(settings)
    retired = [entry.key for entry in read_retired_keys(find_retired_folder(settings))]
    keys = [*([key] if key else []), *(read_key(file, accept_weak=True) for file in files or []), *retired]
    return list(dict.fromkeys(keys))
