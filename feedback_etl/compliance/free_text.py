"""Find free text in the columns of exports."""

from collections.abc import Iterator, Sequence

import polars as pl

from feedback_etl.compliance.data_files import ExportContents
from feedback_etl.compliance.item import Finding
from feedback_etl.compliance.processing import FREE_TEXT
from feedback_etl.compliance.remedies import Remedies

MAX_LABEL_LENGTH = 60
"""Characters; longer texts are no labels."""

MIN_ROWS = 20
"""Rows with a value from which a column whose values mostly differ is free text."""


def find_free_texts(export: ExportContents, remedies: Remedies) -> Iterator[Finding]:
    """Yield the columns that contain free text without being declared as such.

    These are timeframe and the declared columns of type text and role "insensitive" or "sensitive", if a value is
    longer than `MAX_LABEL_LENGTH`, or more than half of at least `MIN_ROWS` values differ.
    """
    declared = {
        name
        for name, role, kind in export.manifest.settings.get("extra_columns", [])
        if role in ("insensitive", "sensitive") and kind == "text"
    }
    names = [name for name in export.texts if name in declared | {"timeframe"} and name != "image_url"]
    counts = export.rows.select(pl.col(names).count()).collect() if names else pl.DataFrame()
    for name in names:
        values, rows = export.texts[name], int(counts[name][0])
        is_long = bool((values.str.len_chars() > MAX_LABEL_LENGTH).any())
        if is_long or (rows >= MIN_ROWS and len(values) > rows / 2):
            remedy = f'set role = "{FREE_TEXT}" in [columns.{name}], or leave the column out of the query'
            clause = f"{export.path.name} contains free text in {name}"
            yield Finding(clause, f"{remedy}\n{remedies.replace(export.manifest)}")


def find_declared_free_texts(exports: Sequence[ExportContents]) -> list[Finding]:
    """Return the columns that are declared as free text, which may contain names and other ids."""
    names = {
        name
        for export in exports
        for name, role, _ in export.manifest.settings.get("extra_columns", [])
        if role == FREE_TEXT
    }
    return [Finding(f"FREE TEXT in {name}, which may contain anything that people wrote") for name in sorted(names)]
