"""Describe the exports of a folder as Croissant 1.0, the ML metadata format (https://mlcommons.org/croissant).

The JSON-LD in `croissant.json` contains digests and sizes of the files from their manifests, and the columns with their
types. It contains no rows, and nothing that the manifests do not contain.
"""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from feedback_etl.database.window import parse_window
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.plurals import pluralize
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.report.contracts import build_manifest_item_schema, build_manifest_schema
from feedback_etl.schema.classic import is_classic
from feedback_etl.schema.model import SUBJECT_HASH
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.location import open_storage, require_storage
from feedback_etl.training.committed_export import CommittedExport, may_share_pairs
from feedback_etl.training.export_catalog import build_no_export_error
from feedback_etl.transform.row_schema import TIME

CROISSANT = "croissant.json"

_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS},
}
_TYPES = {"string": "sc:Text", "integer": "sc:Integer", "number": "sc:Float", "boolean": "sc:Boolean"}
_TYPES["array"] = _TYPES["string"]
"""Lists are of texts; in CSV each is the text of a JSON array."""

_FORMATS: dict[str, str | list[str]] = {
    ".csv": "text/csv",
    ".gz": ["text/csv", "application/gzip"],
    ".zst": ["text/csv", "application/zstd"],
    ".parquet": "application/x-parquet",
}
_DESCRIPTION = (
    "Feedback on recommendations, pseudonymised by feedback_etl: one row for each feedback. It is personal data in the "
    "sense of the GDPR, and not for the public."
)
_SENSITIVE = ["Age, as a range", "Health: conditions of the skin that were detected", "Pseudonyms of people's analyses"]
_ROLE_DESCRIPTIONS = {
    "identifier": "Pseudonyms",
    "quasi_identifier": "What others may know of a person",
    "sensitive": "Declared as sensitive",
    "free_text": "FREE TEXT, which can contain anything",
}
_OVERLAP_NOTE = (
    " The windows of these exports overlap, so files can repeat rows of others: scan_training of feedback_etl "
    "reads each row once."
)


def build_croissant(folder: object, exports: Sequence[Manifest]) -> dict[str, Any]:
    """Describe the exports of a folder, with one record set for each file, since columns can differ.

    Raises:
        ExportFileError: No export has files; the message counts pruned exports.
    """
    files = [
        (manifest, file)
        for manifest in exports
        if not manifest.pruned_at
        for file in (*manifest.all("pairs"), *manifest.all("items"))
    ]
    if not files:
        raise build_no_export_error(folder, pruned=len(exports))
    manifests = [manifest for manifest, file in files if file.kind == "pairs"]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": "feedback_training",
        "description": _DESCRIPTION + (_OVERLAP_NOTE if _may_repeat(manifests) else ""),
        "dateCreated": manifests[0].created_at,
        "datePublished": manifests[-1].created_at,
        "isLiveDataset": True,
        "rai:personalSensitiveInformation": _list_sensitive(manifests),
        "distribution": [_describe_file(file) for _, file in files],
        "recordSet": [_describe_records(manifest, file) for manifest, file in files],
    }


def _may_repeat(exports: Sequence[Manifest]) -> bool:
    """Return whether two of the exports can contain the same rows."""
    storage = open_storage(".")  # all are in one storage
    committed = {manifest.stem: CommittedExport.from_manifest(storage, manifest) for manifest in exports}
    return any(may_share_pairs(*pair) for pair in combinations(committed.values(), 2))


def _list_sensitive(exports: Sequence[Manifest]) -> list[str]:
    """List the personal and sensitive data, extra columns included."""
    columns = dict.fromkeys(column for manifest in exports for column in manifest.declared_columns)
    descriptions = {SUBJECT_HASH: "Pseudonyms of people"}
    extra = [
        descriptions.get(column, f"{_ROLE_DESCRIPTIONS[column.role]}: column {column.name}")
        for column in columns
        if column.role in _ROLE_DESCRIPTIONS
    ]
    classic = _SENSITIVE if any(is_classic(manifest.schema) for manifest in exports) else _SENSITIVE[-1:]
    return [*classic, *extra]


def _describe_file(file: DataFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": _FORMATS[Path(file.path).suffix],
        "sha256": file.sha256,
    }


def _describe_records(manifest: Manifest, file: DataFile) -> dict[str, Any]:
    name = _name_part(file.path) if "/" in file.path else manifest.stem
    is_items = file.kind == "items"
    schema = (build_manifest_item_schema if is_items else build_manifest_schema)(manifest)["properties"]
    rows = pluralize(file.rows, "row") + (f" of items ({manifest.items})" if is_items else "")
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{rows} of {parse_window(manifest.window) or 'an unknown window'}.",
        "field": [
            _describe_field(name, file.path, column, schema.get(column, {}))
            for column in (schema if is_items else manifest.columns)
        ],
    }


def _name_part(path: str) -> str:
    """Return the path of a part without its suffix."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.split('.')[0]}"


def _describe_field(stem: str, path: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    one_of = f" One of {', '.join(filter(None, schema['enum']))}." if "enum" in schema else ""
    return {
        "@type": "cr:Field",
        "@id": f"{stem}/{name}",
        "name": name,
        "description": schema.get("description", "Not a column of the contract.") + one_of,
        "dataType": _find_data_type(schema),
        **({"repeated": True} if _find_json_type(schema) == "array" and ".parquet" in path else {}),
        "source": {"fileObject": {"@id": path}, "extract": {"column": name}},
    }


def _find_data_type(schema: dict[str, Any]) -> str:
    """Return the type of a column; times are recognised by their pattern, since JSON has no type for them."""
    if schema.get("pattern") == TIME:
        return "sc:DateTime"
    return _TYPES[_find_json_type(schema)]


def _find_json_type(schema: dict[str, Any]) -> str:
    types: str | Sequence[str] = schema.get("type", "string")
    return types if isinstance(types, str) else types[0]


def write_croissant(folder: str | Path) -> Path | str:
    """Write the description of a folder's exports to its `croissant.json` (0600), replacing an existing one.

    In an object store it is an object; its URL is returned.

    Raises:
        UsageError: The folder does not exist.
        ExportFileError: There are no exports, a manifest cannot be read, or the file cannot be written.

    >>> from feedback_etl import export_feedback
    >>> from feedback_etl.demo.sample import sample_database
    >>> from feedback_etl.privacy.keys import generate_key
    >>> with sample_database() as url:
    ...     _ = export_feedback(url, days_back=90, key=generate_key(), output_dir="described")
    >>> json.loads(write_croissant("described").read_text())["@type"]
    'sc:Dataset'
    """
    storage = open_storage(folder)
    require_storage(storage)
    text = json.dumps(build_croissant(storage, list_exports(storage).exports), indent=2, ensure_ascii=False) + "\n"
    with explain_write_errors(storage, "Name another folder."):
        storage.overwrite(CROISSANT, text.encode())
    return storage.local_path(CROISSANT) or storage.uri(CROISSANT)
