"""Contracts, generated from the models: the JSON Schema of rows, and the SQL of the source tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback_etl.database import tables
from feedback_etl.records.manifest import Manifest
from feedback_etl.report.bundled_files import list_bundled, write_files
from feedback_etl.schema.classic import CLASSIC_SCHEMA
from feedback_etl.schema.column_types import ExtraColumn
from feedback_etl.schema.feedback_columns import Rating
from feedback_etl.schema.model import FeedbackSchema
from feedback_etl.transform.age_hierarchy import is_generalized
from feedback_etl.transform.row_schema import build_item_row_schema, build_row_schema

EXAMPLES = ("custom_model.py", "reader.postgresql.sql")
"""Bundled files that are written as they are."""


def build_contracts(schema: FeedbackSchema = CLASSIC_SCHEMA) -> dict[str, str]:
    """Return the text of every contract by file name, for exports of this schema."""
    return {
        "training_pair.schema.json": json.dumps(build_row_schema(schema), indent=2) + "\n",
        **{
            f"items.{rating.name}.schema.json": json.dumps(build_item_row_schema(rating, schema), indent=2) + "\n"
            for rating in schema.items
        },
        **{f"source.{name}.sql": tables.render_application_schema(name) for name in tables.DIALECTS},
    }


def build_manifest_schema(manifest: Manifest) -> dict[str, Any]:
    """Return the JSON Schema of a row of an export, as its manifest describes it."""
    return build_row_schema(manifest.schema, manifest.overridden, generalized=is_generalized(manifest.settings))


def build_manifest_item_schema(manifest: Manifest) -> dict[str, Any]:
    """Return the JSON Schema of an item row of an export that has some, as its manifest describes it."""
    return build_item_row_schema(Rating(**manifest.settings["items"]), manifest.schema, manifest.overridden)


def write_contracts(
    folder: Path,
    extra_columns: Sequence[ExtraColumn] = (),
    age_edges: Sequence[int] | None = None,
    schema: FeedbackSchema = CLASSIC_SCHEMA,
) -> list[Path]:
    """Write every contract to a folder, which is created if missing; existing files are replaced.

    Raises:
        ExportFileError: A contract cannot be written.
    """
    texts = build_contracts(schema.with_options(extra_columns, age_edges))
    examples = {path.name: path.read_bytes() for path in list_bundled("schemas", "*.*") if path.name in EXAMPLES}
    return write_files({name: text.encode() for name, text in texts.items()} | examples, folder)
