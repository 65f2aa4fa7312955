"""Settings: a flag comes before the environment, the environment before the settings file, that before the default.

This is the only module that reads the environment. The settings file is `feedback-etl.toml`, or the table
`[tool.feedback-etl]` of `pyproject.toml`, in the working directory.
"""

import os
import re
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from feedback_etl.columns import AGE_EDGES, QUASI_IDENTIFIERS, ColumnType, ExtraColumn, Role
from feedback_etl.errors import KeyMissingError, KeyUnusableError, UsageError
from feedback_etl.option_keywords import ExportKeywords
from feedback_etl.options import ExportOptions, OutputOptions, PrivacyOptions, ReadOptions, option_names
from feedback_etl.privacy.k_anonymity import MAX_K
from feedback_etl.privacy.keys import Key, is_retired, read_key
from feedback_etl.settings_file import read_settings_file
from feedback_etl.transform.expressions import age_ranges

_PREFIX = "FEEDBACK_ETL_"
KEY_VARIABLE = "FEEDBACK_ETL_KEY"
KEY_FILE_VARIABLE = "FEEDBACK_ETL_KEY_FILE"

NO_DATABASE = (
    "No database is configured. Set FEEDBACK_ETL_DATABASE_URL (or pass --database-url), for example "
    "postgresql://user@host/app or sqlite:////path/to/app.db; `feedback-etl demo` needs none."
)
NO_KEY = (
    "There is no pseudonym key, so ids would not be protected. Make one with `feedback-etl keys new` and keep it; "
    f"in a container, mount it and set {KEY_FILE_VARIABLE}. (--unkeyed writes plain SHA-256, which anybody who can "
    "list the ids can invert.)"
)


class ColumnSettings(BaseModel):
    """A column that a `--query` yields beside the canonical ones: `[columns.NAME]`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    role: Role
    type: ColumnType = "text"


class Settings(BaseSettings):
    """What can be configured; each field is `FEEDBACK_ETL_<NAME>` in the environment and `<name>` in the file."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("feedback_etl_database_url", "database_url")
    )
    db_schema: str | None = None
    allow_row_security: bool = Field(False, description="read only what row-level security shows")
    query: Path | None = Field(None, description="file with a SELECT instead of the default tables")
    output_dir: Path = Path(OutputOptions.output_dir)
    connect_timeout: float = Field(ReadOptions.connect_timeout, gt=0, le=60, description="seconds for the database")
    read_timeout: float = Field(ReadOptions.read_timeout, gt=0, description="seconds without a row until reading fails")
    batch_size: int = Field(ReadOptions.batch_size, gt=0, description="rows per batch")
    lock_timeout: float = Field(OutputOptions.lock_timeout, ge=0, description="seconds to wait for a used folder")
    timestamp_precision: Literal["exact", "minute", "hour", "day"] = PrivacyOptions.timestamp_precision
    k: int | None = Field(None, ge=1, le=MAX_K, description="people who share their quasi-identifiers, at least")
    on_small_class: Literal["suppress", "fail"] = PrivacyOptions.on_small_class
    max_suppressed: float = Field(PrivacyOptions.max_suppressed, ge=0, le=1, description="share of rows, at most")
    quasi_identifiers: tuple[str, ...] = QUASI_IDENTIFIERS
    age_edges: tuple[int, ...] = AGE_EDGES
    columns: dict[str, ColumnSettings] = Field({}, description="what a query yields beside the canonical columns")
    row_model: str | None = Field(None, description="a pandera model that batches have to satisfy, as file.py:Model")
    retention_days: int | None = Field(None, ge=1, description="how long exports are kept")
    controller: str | None = Field(None, description="who answers for the processing, for its record")
    contact: str | None = None
    purpose: str | None = None
    legal_basis: str | None = None
    recipients: str | None = None
    opt_in_column: str = ReadOptions.opt_in_column
    opt_out_column: str = ReadOptions.opt_out_column
    key_file: Path | None = None
    retired_keys: Path | None = Field(None, description="folder of keys that serve erasure and audit only")

    @field_validator("age_edges")
    @classmethod
    def _rising(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        age_ranges(edges)
        return edges

    @property
    def extra_columns(self) -> list[ExtraColumn]:
        """The declared columns, in their order."""
        return [ExtraColumn(name, column.role, column.type) for name, column in self.columns.items()]

    def to_options(self, **keywords: Unpack[ExportKeywords]) -> ExportOptions:
        """Return the options of an export: those given by name, and these settings for all others.

        Raises:
            UsageError: The query file or the model cannot be read, or options exclude each other.
        """
        from feedback_etl.database.custom_query import read_query_file
        from feedback_etl.transform.model_loader import load_model

        configured: dict[str, Any] = {name: getattr(self, name) for name in option_names() if hasattr(self, name)}
        if self.query and "query" not in keywords:
            configured["query"] = read_query_file(self.query)
        if self.row_model and "row_model" not in keywords:
            configured["row_model"] = load_model(self.row_model)
        return ExportOptions.from_keywords(**configured | dict(keywords))

    def require_database_url(self) -> str:
        """Return the URL of the database, with its password.

        Raises:
            UsageError: None is configured.
        """
        if self.database_url is None:
            raise UsageError(NO_DATABASE)
        return self.database_url.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the settings file."""
        from pydantic_settings import InitSettingsSource

        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=read_settings_file().values)


def load_settings(**flags: Any) -> Settings:
    """The settings in force; flags that are None do not count.

    Raises:
        UsageError: A setting is unknown or has a value that is not allowed.
    """
    faults = [_unknown(variable, variable.removeprefix(_PREFIX).lower()) for variable in _unknown_variables()]
    try:
        found = Settings(**{name: value for name, value in flags.items() if value is not None})
    except SettingsError as error:
        name = next((each for each in Settings.model_fields if f'"{each}"' in str(error)), "")
        example = '["age_range", "timeframe"]'
        faults.append(f"{_PREFIX}{name.upper()} is a list or a table, in the environment as JSON, such as {example}")
    except ValidationError as error:
        faults = [_fault(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors()] + faults
    if faults:
        raise UsageError(f"The settings are wrong: {'; '.join(faults)}. There are: {', '.join(Settings.model_fields)}.")
    return found


def _fault(name: str, told: str) -> str:
    """What pydantic says of a setting, as a sentence with its name and without its value."""
    name = name.removeprefix("feedback_etl_")
    return _unknown(name, name) if told.startswith("Extra") else told.replace("Input", name, 1)


def _unknown(given: str, name: str) -> str:
    near = get_close_matches(name, Settings.model_fields, 1, 0.75)
    return f"{given} is not a setting" + (f" (do you mean {near[0]}?)" if near else "")


_SERVICE_LINK = re.compile(
    rf"{_PREFIX}([A-Z0-9_]+_)?"
    r"(SERVICE_HOST=\S+|SERVICE_PORT(_[A-Z0-9_]+)?=\d+|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://\S+"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp)|PORT=\d+|ADDR=\S+))"
)
"""A variable that Kubernetes injects for a Service called feedback-etl, or feedback-etl-NAME, with its value."""


def _unknown_variables() -> list[str]:
    """List variables with our prefix that nothing reads, but for those of the tests and of Kubernetes."""
    known = {KEY_VARIABLE, KEY_FILE_VARIABLE, *(f"{_PREFIX}{name.upper()}" for name in Settings.model_fields)}
    ours = sorted(name for name in os.environ if name.upper().startswith(_PREFIX))
    return [
        name
        for name in ours
        if name.upper() not in known
        and not name.upper().startswith(f"{_PREFIX}TEST_")
        and not _SERVICE_LINK.fullmatch(f"{name}={os.environ[name]}")
    ]


def origins(**flags: Any) -> dict[str, str]:
    """Where the value in force of each setting comes from; flags that are None do not count."""
    given, path, values = {name.upper() for name, value in os.environ.items() if value}, *read_settings_file()
    found = {}
    for name in Settings.model_fields:
        variables = [f"{_PREFIX}{name.upper()}", *(["DATABASE_URL"] if name == "database_url" else [])]
        if flags.get(name) is not None:
            found[name] = "the command line"
        elif variable := next((each for each in variables if each in given), None):
            found[name] = variable
        else:
            found[name] = str(path) if name in values else "default"
    return found


class FoundKey(NamedTuple):
    """A key and where it was found."""

    key: Key
    place: str


def default_key_path() -> Path:
    """Return the key in the user's configuration directory: `$XDG_CONFIG_HOME` or `~/.config`, `feedback-etl/key`.

    Raises:
        KeyMissingError: The user has no home folder, as in some containers, or HOME is a folder of another user's.
    """
    try:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "feedback-etl")
        folder.stat()
    except RuntimeError:
        raise KeyMissingError(NO_KEY) from None
    except PermissionError:
        raise KeyMissingError(
            f"{NO_KEY} This user may not look for {folder}: do HOME and XDG_CONFIG_HOME fit it?"
        ) from None
    except OSError:  # it is not there yet, or a key cannot be
        pass
    return folder / "key"


def retired_folder(settings: Settings | None = None) -> Path | None:
    """Where retired keys are: the settings' `retired_keys`, or `retired` beside the user's own key.

    None where nothing is configured and the user has no home folder, or none that this user may enter.
    """
    with suppress(KeyMissingError):
        return (settings or load_settings()).retired_keys or default_key_path().parent / "retired"
    return None


def key_in_force(settings: Settings | None = None) -> Key:
    """The key for exports: the configured one, which must not be retired.

    Raises:
        KeyMissingError: There is none.
        KeyUnusableError: It cannot be used, or is retired.
    """
    key, place = find_key(settings)
    folder = retired_folder(settings)
    if is_retired(key, folder):
        raise KeyUnusableError(
            f"The key {key.id} from {place} is retired: it serves erasure and audit only. Configure another one "
            "(feedback-etl keys new)."
        )
    return key


def find_key(settings: Settings | None = None) -> FoundKey:
    """The configured key: FEEDBACK_ETL_KEY_FILE, FEEDBACK_ETL_KEY, the settings' `key_file`, the user's own.

    Raises:
        KeyMissingError: There is none.
        KeyUnusableError: The first one found cannot be used; no other is tried.
    """
    if named := os.environ.get(KEY_FILE_VARIABLE):
        return FoundKey(read_key(Path(named)), f"{named} ({KEY_FILE_VARIABLE})")
    if text := os.environ.get(KEY_VARIABLE):
        return FoundKey(Key(text), f"the environment ({KEY_VARIABLE})")
    settings = settings or load_settings()
    if settings.key_file is not None:
        return FoundKey(read_key(settings.key_file), f"{settings.key_file} (key_file in the settings)")
    path = default_key_path()
    try:
        path.lstat()
    except FileNotFoundError:
        raise KeyMissingError(NO_KEY) from None
    except OSError:  # `read_key` says what is wrong
        pass
    return FoundKey(read_key(path), str(path))
