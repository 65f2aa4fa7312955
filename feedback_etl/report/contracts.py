"""Contracts, generated from the models: the JSON Schema of a row, and the SQL of the source tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback_etl.columns import AGE_EDGES, ExtraColumn
from feedback_etl.database import tables
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.errors import explain_write_errors
from feedback_etl.storage.posix import replace_private_file, temporary_path
from feedback_etl.transform.age_hierarchy import is_generalized
from feedback_etl.transform.row_schema import row_schema


def contracts(extra_columns: Sequence[ExtraColumn] = (), age_edges: Sequence[int] = AGE_EDGES) -> dict[str, str]:
    """Return the text of every contract by file name, for exports with these columns and age ranges."""
    return {
        "training_pair.schema.json": json.dumps(row_schema(extra_columns, age_edges), indent=2) + "\n",
        **{f"source.{name}.sql": tables.application_schema_sql(name) for name in tables.DIALECTS},
    }


def manifest_schema(manifest: Manifest) -> dict[str, Any]:
    """Return the JSON Schema of a row of an export, as its manifest describes it."""
    edges, generalized = manifest.settings.get("age_edges", AGE_EDGES), is_generalized(manifest.settings)
    return row_schema(manifest.extra_columns, edges, manifest.overridden, generalized=generalized)


def write_contracts(
    folder: Path, extra_columns: Sequence[ExtraColumn] = (), age_edges: Sequence[int] = AGE_EDGES
) -> list[Path]:
    """Write every contract to a folder, which is created if missing; existing files are replaced.

    Raises:
        ExportFileError: A contract cannot be written.
    """
    written = []
    with explain_write_errors(folder, "Name another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contracts(extra_columns, age_edges).items():
            replace_private_file(folder / name, temporary_path(folder, name), text.encode(), is_public=True)
            written.append(folder / name)
    return written
