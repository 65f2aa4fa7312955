"""The pseudonym key that the environment, the settings or the user's configuration directory name."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from feedback_etl.errors import KeyMissingError, KeyUnusableError
from feedback_etl.privacy.keys import Key, read_key
from feedback_etl.privacy.retired_keys import is_retired
from feedback_etl.settings.messages import KEY_FILE_VARIABLE, KEY_VARIABLE, NO_KEY
from feedback_etl.settings.model import Settings, load_settings


class LocatedKey(NamedTuple):
    """A key and its location, in words."""

    key: Key
    location: str


def default_key_path() -> Path:
    """Return the path of the user's own key: `feedback-etl/key` in `$XDG_CONFIG_HOME` or `~/.config`.

    Raises:
        KeyMissingError: The user has no home directory, as in some containers, or HOME belongs to another user.
    """
    try:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "feedback-etl")
        folder.stat()
    except RuntimeError:
        raise KeyMissingError(NO_KEY) from None
    except PermissionError:
        raise KeyMissingError(f"{NO_KEY} This user may not access {folder}: check HOME and XDG_CONFIG_HOME.") from None
    except OSError:  # it does not exist yet, or cannot exist
        pass
    return folder / "key"


def find_retired_folder(settings: Settings | None = None) -> Path | None:
    """Return the folder of retired keys: the setting `retired_keys`, or `retired` beside the user's own key.

    None if nothing is configured and the user has no home directory, or may not access it.
    """
    with suppress(KeyMissingError):
        return (settings or load_settings()).retired_keys or default_key_path().parent / "retired"
    return None


def find_active_key(settings: Settings | None = None) -> Key:
    """Return the key for exports: the configured key, which must not be retired.

    Raises:
        KeyMissingError: No key is configured.
        KeyUnusableError: The key is invalid or retired.
    """
    key, location = find_key(settings)
    if is_retired(key, find_retired_folder(settings)):
        use = "is retired and serves erasure and audit only. Create another with `feedback-etl keys new --file FILE`."
        raise KeyUnusableError(f"The key {key.id} from {location} {use}")
    return key


def find_key(settings: Settings | None = None) -> LocatedKey:
    """Return the first configured key, and its location.

    In this order: FEEDBACK_ETL_KEY_FILE, FEEDBACK_ETL_KEY, the setting `key_file`, the file of `default_key_path`.

    Raises:
        KeyMissingError: No key is configured.
        KeyUnusableError: The first key found is invalid; no other is tried.
    """
    if named := os.environ.get(KEY_FILE_VARIABLE):
        return LocatedKey(read_key(Path(named)), f"{named} ({KEY_FILE_VARIABLE})")
    if text := os.environ.get(KEY_VARIABLE):
        return LocatedKey(Key(text), f"the environment ({KEY_VARIABLE})")
    settings = settings or load_settings()
    if settings.key_file is not None:
        return LocatedKey(read_key(settings.key_file), f"{settings.key_file} (key_file in the settings)")
    path = default_key_path()
    try:
        path.lstat()
    except FileNotFoundError:
        raise KeyMissingError(NO_KEY) from None
    except OSError:  # `read_key` raises the error with its reason
        pass
    return LocatedKey(read_key(path), str(path))
