"""The manifest of an export: what it holds, how it was made, and that it is complete. It is named last."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from feedback_etl.errors import ExportFileError
from feedback_etl.exports.layout import REJECTED_FOLDER, manifest_path
from feedback_etl.storage.base import STATE_FOLDER

SCHEMA_VERSION = 1


@dataclass
class DataFile:
    """Describe a file of an export.

    Attributes:
        path: In the folder.
        kind: "pairs", "rejected" or "rows" (digests of what was read).
        rows: How many it holds.
        bytes: Its size.
        sha256: Its digest, 64 hex characters.
        becoming: Size, digest and rows of the file that is about to take its place; empty when nothing is under way.
        etag: Of an object, what its store calls this content; "" in a folder.
    """

    path: str
    kind: str
    rows: int
    bytes: int
    sha256: str
    becoming: dict[str, Any] = field(default_factory=dict)
    etag: str = ""


@dataclass
class Manifest:
    """Describe an export.

    Attributes:
        stem: What its files are named after.
        mode: "full", "incremental", "classic" or "adopted"; "abandoned" takes the place of an export that never came.
        created_at: The time of the export, ISO 8601 in UTC; its age.
        run: Which run made it, as in the audit log.
        window: The half-open window, ISO 8601 in UTC; None where it is open, or unknown.
        settings: Options that determine its rows and their form; equal options have equal `settings_digest`.
        statistics: The figures of the run.
        columns: Of the pairs, in order.
        files: Its files; those that were pruned have none.
        key_id: Which key made the pseudonyms; None for the unkeyed form.
        scheme: How they were made.
        source: The kind of database; neither host nor credentials.
        tools: Versions.
        audit_head: The MAC of the audit record before it.
        chain: Of an incremental export, how the next one goes on; see `chain.Chain`.
        consent: The columns by which people were left out; none where nothing recorded consent.
        risk: How many people share each combination of quasi-identifiers; `stale` when people left since.
        erased_rows: Rows that were erased from its files since.
        pruned_at: When its files were removed; "" while they are there.
        version: Which content of its object was read, in an object store; not a part of it.
    """

    stem: str
    mode: str
    created_at: str
    run: str
    window: list[str | None]
    settings: dict[str, Any]
    statistics: dict[str, Any]
    columns: list[str]
    files: list[DataFile]
    key_id: str | None
    scheme: str
    source: str
    tools: dict[str, str]
    audit_head: str
    chain: dict[str, Any] = field(default_factory=dict)
    consent: list[str] = field(default_factory=list)
    risk: dict[str, Any] = field(default_factory=dict)
    erased_rows: int = 0
    pruned_at: str = ""
    schema_version: int = SCHEMA_VERSION
    version: Any = field(default=None, compare=False, repr=False)

    @property
    def settings_digest(self) -> str:
        """Return a digest that is equal for exports with equal settings."""
        return hash_settings(self.settings)

    @property
    def overridden(self) -> dict[str, str]:
        """Return the functions that the application overrode, by name; see `overrides.Overrides`."""
        return dict(self.settings.get("overridden", {}))

    @property
    def pseudonyms(self) -> str | None:
        """Return the key id, or the application's function, that made the pseudonyms; None if unkeyed.

        No key recomputes pseudonyms of an application's own function, so no person can be found there by id.
        """
        return self.overridden.get("hash_id", self.key_id)

    def to_json(self) -> str:
        """Return the text of the manifest file."""
        return json.dumps(self.to_dict() | {"settings_digest": self.settings_digest}, indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as values that JSON can represent."""
        content = {name: value for name, value in asdict(self).items() if name != "version"}
        for file in content["files"]:
            if not file["etag"]:
                del file["etag"]
        return content

    def all(self, kind: str) -> list[DataFile]:
        """Return the files of a kind in the order of their rows; a partitioned export has many."""
        return [file for file in self.files if file.kind == kind]

    def file(self, kind: str) -> DataFile | None:
        """Return the first file of a kind, or None."""
        return next(iter(self.all(kind)), None)

    @property
    def data(self) -> str:
        """Return the path of the file of pairs, or of the folder of their parts; "" if there is none."""
        pairs = self.file("pairs")
        return pairs.path.split("/")[0] if pairs else ""

    @property
    def rows(self) -> int:
        """Return the number of training pairs."""
        return sum(file.rows for file in self.all("pairs"))


def hash_settings(settings: dict[str, Any]) -> str:
    """Return a digest of settings: 16 hex characters."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def parse_manifest(content: bytes, path: str) -> Manifest:
    """Parse the content of a manifest file.

    Raises:
        ExportFileError: It is none, or of a newer version of this package.
    """
    try:
        values = json.loads(content.decode())
        values.pop("settings_digest")
        files = [DataFile(**file) for file in values.pop("files")]
        manifest = Manifest(**values, files=files)
        is_one = _is_valid(manifest) and path.split("/")[-1] == manifest_path(manifest.stem)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        is_one = False
    if not is_one:
        raise ExportFileError(f"{path} is no manifest that this version understands; nothing was changed.")
    if manifest.schema_version != SCHEMA_VERSION:
        raise ExportFileError(f"{path} was written by another version of feedback_etl; nothing was changed.")
    return manifest


def _is_valid(manifest: Manifest) -> bool:
    """Return whether a manifest can be acted upon; above all, whether its files are its own."""
    texts = (manifest.stem, manifest.mode, manifest.run, manifest.audit_head, manifest.pruned_at, manifest.source)
    times = [manifest.created_at, *(end for end in manifest.window if end)]
    chain = manifest.chain
    objects = (manifest.settings, manifest.statistics, chain, manifest.risk)
    return (
        all(isinstance(text, str) for text in texts)
        and not manifest.stem.startswith(".")
        and isinstance(manifest.key_id, str | None)
        and all(isinstance(name, str) for name in manifest.overridden.values())
        and manifest.version is None
        and len(manifest.window) == 2
        and all(datetime.fromisoformat(time).tzinfo is None for time in times)
        and all(isinstance(each, dict) for each in objects)
        and (not chain or (isinstance(chain["number"], int) and all(len(each) == 3 for each in chain["counted"])))
        and all(_is_inside(file, manifest.stem) for file in manifest.files)
    )


def _is_inside(file: DataFile, stem: str) -> bool:
    """Return whether a file is in a folder of this export; parts are in folders named after the stem.

    It has to be of this export by its name: nothing else is to be removed or rewritten by a manifest.
    """
    *folders, name = file.path.split("/")
    own = {
        (): name == stem or name.startswith(f"{stem}."),
        (REJECTED_FOLDER,): name == f"{stem}_rejected.csv",
        (STATE_FOLDER,): name == f"{stem}.rows",
        (stem,): name.startswith("part-"),
        (REJECTED_FOLDER, stem): name.startswith("part-"),
    }
    return own.get(tuple(folders), False) and "\0" not in name and isinstance(file.rows, int)
