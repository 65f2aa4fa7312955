"""The commands of the pseudonym key."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feedback_etl.cli.console import print_data, tell
from feedback_etl.errors import KeyMissingError

if TYPE_CHECKING:
    from feedback_etl.privacy.keys import Key
    from feedback_etl.settings import Settings

keys_app = typer.Typer(
    help="Make and look up the pseudonym key.", epilog="Example: feedback-etl keys show", no_args_is_help=True
)


@keys_app.command("new", epilog="Example: feedback-etl keys new --file /run/secrets/feedback_key")
def keys_new(
    file: Annotated[
        Path | None, typer.Option(help="Where to write it; the user's own key unless given.", metavar="FILE")
    ] = None,
) -> None:
    """Make a pseudonym key in a file that only its owner can read."""
    from feedback_etl.privacy.keys import write_key
    from feedback_etl.settings import KEY_FILE_VARIABLE, default_key_path

    path = file or default_key_path()
    key = write_key(path)
    print_data(f"key {key.id} written to {path}")
    tell(
        "Keep a copy in a safe place: whoever holds it can recompute pseudonyms, and without it new exports no "
        "longer fit the old ones."
    )
    if file:
        tell(f"To use it: export {KEY_FILE_VARIABLE}={shlex.quote(str(file.absolute()))}")


@keys_app.command("show", epilog="Example: feedback-etl keys show")
def keys_show() -> None:
    """Print the id of the key in force and its place, never the key."""
    from feedback_etl.settings import find_key

    key, place = find_key()
    print_data(f"key {key.id} from {place}")


@keys_app.command("list", epilog="Example: feedback-etl keys list")
def keys_list() -> None:
    """Print the ids of the key in force and of the retired ones."""
    from feedback_etl.privacy.keys import read_retired_keys
    from feedback_etl.settings import find_key, retired_folder

    with suppress(KeyMissingError):
        key, place = find_key()
        print_data(f"{key.id}  in force  {place}")
    for key, path in read_retired_keys(retired_folder()):
        print_data(f"{key.id}  retired   {path}")


@keys_app.command("retire", epilog="Example: feedback-etl keys retire")
def keys_retire(
    file: Annotated[
        Path | None, typer.Option(help="Which key; the user's own key unless given.", metavar="FILE")
    ] = None,
) -> None:
    """Use a key for erasure and audit only from now on."""
    from feedback_etl.privacy.keys import retire_key
    from feedback_etl.settings import default_key_path, retired_folder

    path = file or default_key_path()
    key, place = retire_key(path, retired_folder() or path.parent / "retired")
    print_data(f"key {key.id} is retired: {place}")
    tell("Exports refuse it; erase and audit verify still use it. A new one: feedback-etl keys new")
    if path.exists():
        tell(f"{path} could not be removed: take it away, so that nothing uses it.")


def key_for_export(settings: "Settings") -> "Key":
    """The configured key; the first export on a terminal makes one. Elsewhere it would be lost with its container."""
    from feedback_etl.privacy.keys import write_key
    from feedback_etl.settings import default_key_path, key_in_force

    try:
        return key_in_force(settings)
    except KeyMissingError:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
    path = default_key_path()
    key = write_key(path)
    tell(f"There was no pseudonym key; made one in {path} (id {key.id}). Keep a copy of it in a safe place.")
    return key
