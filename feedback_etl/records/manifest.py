"""The manifest of an export describes its files and proves that they are complete. It is published last."""

import json
from dataclasses import asdict, field
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass

from feedback_etl.errors import ExportFileError
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.records.canonical_json import compute_mac, hash_settings, load_unique
from feedback_etl.records.layout import is_path_of_export, manifest_path
from feedback_etl.records.manifest_fields import (
    STRICT,
    Increment,
    Limits,
    Replacement,
    RiskSummary,
    Settings,
    Time,
    or_empty,
)
from feedback_etl.schema.classic import list_declared_columns
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.schema.record import read_schema

SCHEMA_VERSION = 1
ADOPTED = "adopted"
"""The mode of an export whose file existed before its manifest."""
COUNTED_KINDS = ("pairs", "rejected", "pending")
"""The kinds of files whose rows are counted; the others are not data, but serve later runs."""
ABANDONED = "abandoned"
"""The mode of an abort marker: a manifest that prevents an export from committing under its name."""


@dataclass(config=STRICT)
class DataFile:
    """Describe a file of an export.

    Attributes:
        path: The path in the folder.
        kind: "pairs", "items" (the rated items of the pairs), "rejected", "links" (the analysis of each row); of the
            state of a series "rows" (digests of the rows that were read), "pending" and "members".
        rows, bytes, sha256: The number of rows, the size, and the digest as 64 hex characters.
        becoming: The rows, size and digest of the content that is about to replace it; empty if there is none.
        etag: The ETag of an object; "" in a folder.
    """

    path: str
    kind: str
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str
    becoming: Annotated[dict[str, Any], or_empty(Replacement)] = field(default_factory=dict)
    etag: str = ""

    @property
    def versions(self) -> list[tuple[int, str]]:
        """Return the size and the digest of the file, and those of its announced replacement."""
        replacement = [(self.becoming["bytes"], self.becoming["sha256"])] if self.becoming else []
        return [(self.bytes, self.sha256), *replacement]


@dataclass(config=STRICT)
class Manifest:
    """Describe an export.

    Attributes:
        stem: The beginning of the names of its files.
        mode: "full", "incremental", "classic" or "adopted"; "abandoned" marks an export that was aborted.
        created_at: The time of the export, ISO 8601 in UTC, from which its age is counted.
        run: The id of the run in the audit log.
        window: The half-open window, ISO 8601 in UTC; None where it is open or unknown.
        settings: The options that determine its rows; equal options have equal `settings_digest`.
        statistics: The figures of the run.
        columns: The columns of the pairs, in order.
        files: The files; a pruned export keeps their descriptions.
        key_id: The id of the key of the pseudonyms; None for the unkeyed form.
        scheme: The algorithm of the pseudonyms.
        source: The kind of database, without host and credentials.
        tools: The versions of the libraries.
        audit_head: The MAC of the audit record before it.
        chain: The state of an incremental series; see `Increment`.
        consent: The consent columns that filtered the rows; none where consent is not recorded.
        risk: The measured k and its quasi-identifiers; `stale` after rows were erased.
        erased_rows: The number of rows that were erased from its files.
        pruned_at: The time at which its files were removed; "" before.
        limits: The options that weaken or strengthen an export, but do not identify a series: `formulas`, `strict`,
            `max_rejected`, `row_model`, `max_suppressed`, `allow_overlap`; empty where they were not recorded.
        revision: How often it was replaced; audit records name it, so that an older one is detected.
        signed_by, mac: The id of a key, and its MAC over all other fields, 64 hex characters; None and "" if unsigned.
        version: The version of the file that was read; not a part of it.
    """

    stem: str
    mode: str
    created_at: Time
    run: str
    window: Annotated[list[Time | None], Field(min_length=2, max_length=2)]
    settings: Annotated[dict[str, Any], or_empty(Settings)]
    statistics: dict[str, Any]
    columns: list[str]
    files: list[DataFile]
    key_id: str | None
    scheme: str
    source: str
    tools: dict[str, str]
    audit_head: str
    chain: Annotated[dict[str, Any], or_empty(Increment)] = field(default_factory=dict)
    consent: list[str] = field(default_factory=list)
    risk: Annotated[dict[str, Any], or_empty(RiskSummary)] = field(default_factory=dict)
    erased_rows: NonNegativeInt = 0
    pruned_at: str = ""
    limits: Annotated[dict[str, Any], or_empty(Limits)] = field(default_factory=dict)
    revision: NonNegativeInt = 0
    signed_by: str | None = None
    mac: str = ""
    schema_version: int = SCHEMA_VERSION
    version: Any = field(default=None, init=False, compare=False, repr=False)

    @model_validator(mode="after")
    def _require_own_files(self) -> Self:
        """Refuse files of others, which must not be removed or rewritten by this manifest."""
        if self.stem.startswith(".") or not all(is_path_of_export(file.path, self.stem) for file in self.files):
            raise ValueError("a manifest names files of its own export alone")
        return self

    @property
    def settings_digest(self) -> str:
        """Return a digest that is equal for exports with equal settings."""
        return hash_settings(self.settings)

    @property
    def schema(self) -> FeedbackSchema:
        """Return the schema of the pairs."""
        return read_schema(self.settings)

    @property
    def declared_columns(self) -> tuple[ExtraColumn, ...]:
        """Return the columns of the pairs that were declared, beside those of the classic schema."""
        return list_declared_columns(self.schema)

    @property
    def overridden(self) -> dict[str, str]:
        """Return the functions that the application overrode, by name; see `overrides.Overrides`."""
        return dict(self.settings.get("overridden", {}))

    @property
    def recipient(self) -> str:
        """Return the recipient of a shared export; "" for others."""
        return str(self.settings.get("recipient", ""))

    @property
    def items(self) -> str:
        """Return the name of the exported item ratings; "" if there are none."""
        return str(self.settings.get("items", {}).get("name", ""))

    @property
    def pseudonyms(self) -> str | None:
        """Return what made the pseudonyms in the data: those of exports with an equal one can be compared."""
        return f"{self.lookup_key} for {self.recipient}" if self.recipient else self.lookup_key

    @property
    def lookup_key(self) -> str | None:
        """Return the key id, or the application's function, by which analyses are found; None if unkeyed.

        In a shared export they are found by its links. No key recomputes pseudonyms of an application's own function,
        so no person can be found there by id.
        """
        return self.overridden.get("hash_id", self.key_id)

    def sign(self, key: Key | None) -> None:
        """Sign the manifest as it is now; without a key it becomes unsigned."""
        self.signed_by = get_key_id(key)
        self.mac = self.compute_mac(key) if key else ""

    def compute_mac(self, key: Key | None) -> str:
        """Compute the MAC over all fields but `mac` and `version`: 64 hex characters."""
        return compute_mac("manifest", self.to_dict(), key)

    def to_json(self) -> str:
        """Return the text of the manifest file."""
        return json.dumps(self.to_dict() | {"settings_digest": self.settings_digest}, indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as values that JSON can represent."""
        content = {name: value for name, value in asdict(self).items() if name != "version"}
        if not self.limits:  # else MACs of earlier versions would not match
            del content["limits"]
        for file in (file for file in content["files"] if not file["etag"]):
            del file["etag"]
        return content

    def all(self, kind: str) -> list[DataFile]:
        """Return the files of a kind in the order of their rows; a partitioned export has many."""
        return [file for file in self.files if file.kind == kind]

    @property
    def data(self) -> str:
        """Return the path of the file of pairs, or of the folder of their parts; "" if there is none."""
        return next((file.path.split("/")[0] for file in self.all("pairs")), "")

    @property
    def rows(self) -> int:
        """Return the number of training pairs."""
        return sum(file.rows for file in self.all("pairs"))


def parse_manifest(content: bytes, path: str) -> Manifest:
    """Parse the content of a manifest file.

    Raises ExportFileError if it is none, or of a newer version of this package.
    """
    try:
        values = load_unique(content)
        digest = values.pop("settings_digest")
        if isinstance(values["files"], list):
            values["files"] = [DataFile(**file) for file in values["files"]]
        parsed = Manifest(**values)
        manifest = parsed if parsed.settings_digest == digest else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # ValidationError is a ValueError
        manifest = None
    if manifest is None or path.split("/")[-1] != manifest_path(manifest.stem):
        raise ExportFileError(f"{path} is not a manifest that this version understands; nothing was changed.")
    if manifest.schema_version != SCHEMA_VERSION:
        raise ExportFileError(f"{path} was written by another version of feedback_etl; nothing was changed.")
    return manifest
