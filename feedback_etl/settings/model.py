"""Settings, by precedence: command line, environment, settings file, default.

`settings` is the only package that reads the environment. The settings file is `feedback-etl.toml`, or the table
`[tool.feedback-etl]` of `pyproject.toml`, in the working directory.
"""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from feedback_etl.errors import UsageError
from feedback_etl.options.export import ExportOptions, list_option_names
from feedback_etl.options.keywords import DatabaseKeywords, ExportKeywords
from feedback_etl.options.output import OutputOptions
from feedback_etl.options.privacy import PrivacyOptions
from feedback_etl.options.read import ReadOptions
from feedback_etl.privacy.anonymity_policy import MAX_K
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.declaration import (
    ColumnTable,
    Declaration,
    DedupTable,
    ListTable,
    RatingTable,
    declare_schema,
)
from feedback_etl.schema.feedback_columns import AGE_EDGES
from feedback_etl.schema.item_declaration import ItemSettings
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.source import SourceTable
from feedback_etl.schema.source_declaration import SourceSettings
from feedback_etl.settings.file import read_settings_file, read_trusted_query, require_trusted_model
from feedback_etl.settings.messages import (
    NO_DATABASE,
    PREFIX,
    describe_error,
    describe_unknown,
    list_keys,
    list_unknown_variables,
)
from feedback_etl.settings.sources import describe_source, find_source
from feedback_etl.transform.expressions import age_ranges

DECLARATIONS = frozenset({"items"})
"""Settings that declare what an option of the same name selects."""


class Settings(BaseSettings):
    """All settings; each field is `FEEDBACK_ETL_<NAME>` in the environment and `<name>` in the settings file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("feedback_etl_database_url", "database_url")
    )
    db_schema: str | None = None
    allow_row_security: bool = Field(False, description="read only the rows that row-level security shows")
    query: Path | None = Field(None, description="file with a SELECT instead of the default tables")
    source: SourceSettings | None = Field(None, description="table or query that contains the feedback")
    output_dir: Path = Path(OutputOptions.output_dir)
    connect_timeout: float = Field(ReadOptions.connect_timeout, gt=0, le=60, description="seconds to connect")
    read_timeout: float = Field(ReadOptions.read_timeout, gt=0, description="seconds to wait for the next row")
    batch_size: int = Field(ReadOptions.batch_size, gt=0, description="rows per batch")
    cursor: str = OutputOptions.cursor
    lock_timeout: float = Field(OutputOptions.lock_timeout, ge=0, description="seconds to wait for a locked folder")
    timestamp_precision: Literal["exact", "minute", "hour", "day", "week", "month", "quarter"] = (
        PrivacyOptions.timestamp_precision
    )
    pseudonym_length: int = Field(PrivacyOptions.pseudonym_length, ge=16, le=32, multiple_of=16, description="16 or 32")
    k: int | None = Field(None, ge=1, le=MAX_K, description="minimum number of people in an equivalence class")
    on_small_class: Literal["suppress", "generalize", "fail"] = PrivacyOptions.on_small_class
    max_suppressed: float = Field(PrivacyOptions.max_suppressed, ge=0, le=1, description="maximum suppressed share")
    l: int | None = Field(None, ge=1, le=MAX_K, description="minimum different answers in a class")  # noqa: E741
    t: float | None = Field(None, ge=0, le=1, description="maximum distance of the answers in a class from all")
    hierarchies: dict[str, dict[str, list[str]]] = Field({}, description="coarser values by column and value")
    quasi_identifiers: tuple[str, ...] = CLASSIC_SCHEMA.quasi_identifiers
    age_edges: tuple[int, ...] = AGE_EDGES
    min_age_range: int = Field(PrivacyOptions.min_age_range, ge=1, description="minimum width of an age range in years")
    ratings: dict[str, RatingTable] = Field({}, description="ratings of a declared schema")
    lists: dict[str, ListTable] = Field({}, description="lists of a declared schema")
    columns: dict[str, ColumnTable] = Field({}, description="other columns, or extra columns that the query yields")
    items: dict[str, ItemSettings] = Field({}, description="ratings of several items in one feedback")
    dedup: DedupTable | None = Field(None, description="what identifies a feedback of a declared schema")
    formulas: Literal["escape", "reject", "allow"] = Field(
        OutputOptions.formulas, description="texts in CSV that spreadsheets would run"
    )
    row_model: str | None = Field(None, description="pandera model that batches must also satisfy, as file.py:Model")
    lineage: str | None = Field(None, description="server or file for OpenLineage events, or openlineage")
    lineage_hosts: bool = Field(OutputOptions.lineage_hosts, description="name hosts in OpenLineage events")
    retention_days: int | None = Field(None, ge=1, description="retention period of exports in days")
    controller: str | None = Field(None, description="controller of the processing, for the record of processing")
    contact: str | None = None
    purpose: str | None = None
    legal_basis: str | None = None
    recipients: str | None = None
    transfers: str | None = Field(None, description="transfers to third countries, or none, for the record")
    data_protection_officer: str | None = Field(None, description="name or address of the officer, for the record")
    opt_in_column: str = ReadOptions.opt_in_column
    opt_out_column: str = ReadOptions.opt_out_column
    key_file: Path | None = None
    retired_keys: Path | None = Field(None, description="folder of keys for erasure and audit only")

    @field_validator("age_edges")
    @classmethod
    def _validate_age_edges(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        age_ranges(edges)
        return edges

    @cached_property
    def declaration(self) -> Declaration:
        """The declared schema, by default the classic one.

        Raises:
            UsageError: A name, a scale or the key of the declaration is invalid.
        """
        return declare_schema(self.ratings, self.lists, self.columns, self.dedup, self.items)

    @property
    def extra_columns(self) -> tuple[ExtraColumn, ...]:
        """The extra columns, in the order of the settings file."""
        return self.declaration.schema.extra_columns

    @property
    def feedback_schema(self) -> FeedbackSchema:
        """The declared schema without extra columns."""
        return self.declaration.schema.with_extra_columns(())

    @property
    def effective_quasi_identifiers(self) -> tuple[str, ...]:
        """The quasi-identifiers: the configured ones or those of the schema, and those among the extra columns."""
        is_set = "quasi_identifiers" in self.model_fields_set
        names = self.quasi_identifiers if is_set else self.feedback_schema.quasi_identifiers
        extra = (column.name for column in self.extra_columns if column.role == "quasi_identifier")
        return tuple(dict.fromkeys((*names, *extra)))

    def to_options(self, **keywords: Unpack[ExportKeywords]) -> ExportOptions:
        """Return the options of an export: those given by name, and these settings for all others.

        Raises:
            UsageError: The query file or the model cannot be read, an option is invalid, or options exclude each other.
        """
        from feedback_etl.transform.model_loader import load_model

        given = {*self.model_fields_set, "extra_columns"} - DECLARATIONS
        configured: dict[str, Any] = {name: getattr(self, name) for name in list_option_names() if name in given}
        configured["schema"] = self.feedback_schema
        if self.query and "query" not in keywords:
            configured["query"] = read_trusted_query(self.query)
        configured["source"] = None if keywords.get("query") else self._source_table
        if configured["source"] is not None:
            self._require_pseudonyms()
        if self.row_model and "row_model" not in keywords:
            require_trusted_model(self.row_model)
            configured["row_model"] = load_model(self.row_model)
        return ExportOptions.from_keywords(**configured | dict(keywords))

    def _require_pseudonyms(self) -> None:
        """Raise UsageError if an id of the declared source would be exported as it is."""
        if self.source is None:
            return
        tables: dict[str, Any] = {"ratings": self.ratings, "lists": self.lists, "columns": self.columns}
        self.source.require_pseudonyms(tables, f"columns.{self.feedback_schema.item}")
        self.source.require_no_ids(self.items)

    @property
    def _source_table(self) -> SourceTable | None:
        """The declared source; None for the default tables and for a query that yields the raw columns."""
        if self.source is None:
            return None
        declared = self.declaration
        return self.source.to_source(declared.source_columns, declared.elements, declared.items, read_trusted_query)

    def to_database_keywords(self) -> DatabaseKeywords:
        """Return the options that describe the database; raises UsageError if the query file cannot be read."""
        keywords: Any = {name: getattr(self, name) for name in DatabaseKeywords.__annotations__}
        keywords["query"] = read_trusted_query(self.query) if self.query else None
        keywords["source"] = self._source_table
        return cast("DatabaseKeywords", keywords)

    def require_database_url(self) -> str:
        """Return the URL of the database, with its password.

        Raises:
            UsageError: No database is configured.
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
        """Return the sources by precedence: flags, the environment, the settings file."""
        from pydantic_settings import InitSettingsSource

        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=read_settings_file().values)


def load_settings(**flags: Any) -> Settings:
    """Return the active settings; flags that are None are ignored.

    Raises:
        UsageError: A setting is unknown or its value is invalid; the message lists all problems.
    """
    names = list(Settings.model_fields)
    variables = list_unknown_variables(os.environ, [*names, "key"])
    problems = [describe_unknown(variable, variable.removeprefix(PREFIX).lower(), names) for variable in variables]
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except SettingsError as error:
        name = next((name for name in names if f'"{name}"' in str(error)), "")
        example = json.dumps(CLASSIC_SCHEMA.quasi_identifiers[::2])
        problems.append(f"{PREFIX}{name.upper()} must be a list or a table in JSON, for example {example}")
    except ValidationError as error:
        problems = [
            describe_error(entry["loc"], entry["msg"], list_keys(Settings, entry["loc"][:-1]), flags)
            + describe_source(entry["loc"], flags)
            for entry in error.errors()
        ] + problems
    if problems:
        is_listed = any("is not a setting" in problem and "did you mean" not in problem for problem in problems)
        hint = " Remove unknown settings: `feedback-etl config` then lists all settings." if is_listed else ""
        raise UsageError(f"The settings are invalid: {'; '.join(problems)}.{hint}")
    return settings


def find_sources(**flags: Any) -> dict[str, str]:
    """Return the source of each setting's active value, in words; flags that are None are ignored."""
    file = read_settings_file()
    return {name: find_source(name, flags, file) for name in Settings.model_fields}
