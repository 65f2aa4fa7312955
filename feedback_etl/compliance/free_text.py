"""Find free text in the columns of exports."""

from collections.abc import Collection, Iterator, Sequence

import polars as pl

from feedback_etl.compliance.data_files import ExportContents
from feedback_etl.compliance.item import Finding
from feedback_etl.compliance.processing import FREE_TEXT
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.privacy.column_inspector import MAX_DISTINCT, MIN_VALUES, PERSONAL_ITEMS
from feedback_etl.privacy.contact_details import find_contact_details
from feedback_etl.schema.model import IMAGE_URL

_HASH = "--hash-recommendation-id"

MAX_LABEL_LENGTH = 60
"""Characters; longer texts are not labels."""


def find_free_texts(export: ExportContents, remedies: Remedies) -> Iterator[Finding]:
    """Yield the columns that contain free text without being declared as such.

    These are the columns of type text that are neither identifiers nor declared free text, if a text is longer than
    `MAX_LABEL_LENGTH` or contains contact or account details, or if texts are mostly distinct, by the limits of exports
    (`privacy.column_inspector`); the lists, if they contain contact or account details; and items, if they contain
    e-mail addresses or IBANs, since codes of articles look like telephone numbers, and an article can be a URL.
    """
    declared = _list_labels(export)
    schema = export.manifest.schema
    own = {column.name for column in {*schema.columns} - {*export.manifest.declared_columns}}
    names = [name for name in export.texts if name in {*declared, *own, *schema.list_names}]
    counts = export.rows.select(pl.col(names).count()).collect() if names else pl.DataFrame()
    items = [
        item
        for item in (*schema.item_columns, export.manifest.items)
        if item in export.texts and _has_contact_details(export.texts[item], PERSONAL_ITEMS)
    ]
    commands = remedies.replace_texts(export.manifest, items)
    for name in names:
        texts = export.texts[name]
        is_label = name not in schema.list_names
        if _has_contact_details(texts) or (is_label and _is_free_text(texts, int(counts[name][0]))):
            remedy = f'set role = "{FREE_TEXT}" in [columns.{name}], or {remedies.leave_out(name)}'
            if name not in declared:
                remedy = f"correct {name} in {remedies.data}, or {remedies.select_others}"
            yield Finding(f"{export.path.name} contains free text in {name}", f"{remedy}\n{commands}")
    for file, item in export.find_files(items):
        way = f"correct {item} in {remedies.data}" if export.manifest.items else f"pseudonymise {item} with {_HASH}"
        first = f"{way}, or {remedies.select_others}\n" if item in schema.item_columns else ""
        yield Finding(f"{file} contains contact or account details in {item}", first + commands)


def find_scattered_free_texts(exports: Sequence[ExportContents], remedies: Remedies) -> Iterator[Finding]:
    """Yield the declared columns whose texts are mostly distinct over all files, though not in any of them.

    A row that several exports contain is counted once.
    """
    labels = {export.path: _list_labels(export) for export in exports}
    for name in sorted({name for names in labels.values() for name in names}):
        files = [export for export in exports if name in labels[export.path] and name in export.columns]
        if any(_is_free_text(export.texts[name], _count(export, name)) for export in files):
            continue  # `find_free_texts` yields it
        key = files[-1].manifest.schema.pair_key
        rows = pl.concat([export.rows.select(*key, name).drop_nulls(name) for export in files]).unique(key)
        values, distinct = rows.select(pl.len(), pl.col(name).n_unique().alias("distinct")).collect().row(0)
        if values >= MIN_VALUES and distinct > values * MAX_DISTINCT:
            clause = f"{len(files)} files together contain free text in {name}: {distinct:,} of {values:,} are distinct"
            remedy = f'set role = "{FREE_TEXT}" in [columns.{name}], or {remedies.leave_out(name)}'
            yield Finding(clause, "\n".join([remedy, *(remedies.replace(export.manifest) for export in files)]))


def find_distinct_numbers(exports: Sequence[ExportContents]) -> Iterator[Finding]:
    """Yield the declared columns of whole numbers that are mostly distinct: they may be ids or telephone numbers."""
    for export in exports:
        for name, role, kind in export.manifest.declared_columns:
            if role == "identifier" or kind not in ("integer", "number") or name not in export.texts:
                continue
            numbers = export.texts[name].cast(pl.Float64, strict=False)
            distinct, rows = int((numbers == numbers.round()).sum()), _count(export, name)
            if rows >= MIN_VALUES and distinct > rows * MAX_DISTINCT:
                clause = (
                    f"{name} of {export.path.name}, {distinct:,} different numbers in {rows:,} rows, which may be ids"
                )
                yield Finding(clause, f'set role = "identifier" in [columns.{name}] if they are')


def _list_labels(export: ExportContents) -> list[str]:
    """Return the declared text columns that may contain labels only."""
    return [
        name
        for name, role, kind in export.manifest.declared_columns
        if role not in ("identifier", FREE_TEXT) and kind == "text" and name != IMAGE_URL.name
    ]


def _count(export: ExportContents, name: str) -> int:
    return int(export.rows.select(pl.col(name).count()).collect().item())


def _is_free_text(texts: pl.Series, rows: int) -> bool:
    """Return whether distinct texts of this number of rows are free text."""
    if rows >= MIN_VALUES and len(texts) > rows * MAX_DISTINCT:
        return True
    return bool((texts.str.len_chars() > MAX_LABEL_LENGTH).any())


def _has_contact_details(texts: pl.Series, kinds: Collection[str] | None = None) -> bool:
    """Return whether a text contains details of some kinds, of all by default."""
    details = find_contact_details(texts.name).items()
    has_details = pl.any_horizontal(has_detail for kind, has_detail in details if kinds is None or kind in kinds)
    return bool(texts.to_frame().select(has_details.any()).item())


def find_declared_free_texts(exports: Sequence[ExportContents]) -> list[Finding]:
    """Return the columns that are declared as free text, which may contain names and other ids."""
    names = {name for export in exports for name, role, _ in export.manifest.declared_columns if role == FREE_TEXT}
    return [Finding(f"FREE TEXT in {name}, which may contain anything that people wrote") for name in sorted(names)]
