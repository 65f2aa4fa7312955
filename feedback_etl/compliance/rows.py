"""Tests of the rows of exports."""

from collections.abc import Sequence

import polars as pl

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import ExportContents, explain_unknown_pseudonyms, find_problems, hash_by_key
from feedback_etl.compliance.free_text import (
    find_declared_free_texts,
    find_distinct_numbers,
    find_free_texts,
    find_scattered_free_texts,
)
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.compliance.remedies import SET_DATABASE
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.errors import ExportFileError
from feedback_etl.exports.adoption import UNKNOWN_SCHEME
from feedback_etl.plurals import pluralize
from feedback_etl.records.manifest import DataFile, Manifest
from feedback_etl.schema.model import IMAGE_URL
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import PSEUDONYM_LENGTH, hash_id
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN

GUESSED_IDS = 1_000_000
"""Integers from 0 that an attacker tries first."""

_IMAGE = r"(?i)^[a-z0-9]+://|\.(jpe?g|png|webp|heic|gif)\b"


def check_columns(context: CheckContext) -> ChecklistItem:
    """Test that files have only columns of the contract, and free text only where it is declared."""
    exports, remedies = context.files, context.remedies

    def find_problem(export: ExportContents) -> str:
        unknown = [name for name in export.columns if name not in _list_contract_columns(export.manifest)]
        return f"has unknown columns {', '.join(unknown)}" if unknown else ""

    problems = find_problems(exports, find_problem, remedies)
    problems += [finding for export in exports for finding in find_free_texts(export, remedies)]
    problems += find_scattered_free_texts(exports, remedies)
    passed = f"{pluralize(len(exports), 'file')} with columns of the contract only."
    if declared := {column.name for export in exports for column in export.manifest.schema.extra_columns}:
        passed = f"{passed} Extra columns: {', '.join(sorted(declared))}."
    untested = [*find_declared_free_texts(exports), *find_distinct_numbers(exports)]
    return build_item("columns", problems, passed=passed, untested=untested)


def check_pseudonyms(context: CheckContext) -> ChecklistItem:
    """Test that no pseudonym is the plain hash of an id that an attacker knows or guesses."""
    exports = context.files
    own_ids = pl.Series("id", [*context.application.users, *context.application.analyses], dtype=pl.String)
    guessed = pl.select(pl.int_range(GUESSED_IDS).cast(pl.String).alias("id")).to_series()
    ids_tried = pl.concat([own_ids, guessed]).to_frame()
    plain = ids_tried.select(hash_id("id", unkeyed=True)).to_series().implode()
    published = ids_tried.select(hash_id("id", key=DEMO_KEY, domain="analysis_id")).to_series().implode()

    def find_problem(export: ExportContents) -> str:
        if malformed := int((~export.pseudonyms.str.contains(PSEUDONYM_PATTERN)).sum()):
            return f"has {pluralize(malformed, 'malformed pseudonym')}"
        if export.without_analysis:
            return f"has {export.without_analysis:,} rows without a pseudonym"
        if count := int(export.pseudonyms.is_in(plain).sum()):
            return f"has {count:,} plain hashes of ids"
        count = int(export.analyses.str.slice(0, PSEUDONYM_LENGTH).is_in(published).sum())
        return f"has {count:,} pseudonyms of the published demo key" if count else ""

    own = [export for export in exports if "hash_id" in export.manifest.overridden]
    testable = [
        export
        for export in exports
        if "hash_id" not in export.manifest.overridden or export.manifest.scheme == UNKNOWN_SCHEME
    ]
    untested = [Finding(f"{export.path.name}, {explain_unknown_pseudonyms(export.manifest)}") for export in own]
    if context.database is None:
        untested.append(Finding("the ids of the application, no database is configured", SET_DATABASE))
    passed = (
        f"No pseudonym is the plain hash of {len(own_ids):,} ids of the application or of 0 to {GUESSED_IDS - 1:,}, or "
        "uses the published demo key."
    )
    return build_item(
        "pseudonyms",
        find_problems(testable, find_problem, context.remedies),
        passed=passed if testable else "",
        untested=untested,
    )


def check_images(context: CheckContext) -> ChecklistItem:
    """Test that image URLs are exported only if requested, and only of users who (still) agree."""
    exports, remedies = context.files, context.remedies
    agreed = hash_by_key(context.application.imaged, context.keys)

    def find_unrequested(export: ExportContents) -> list[Finding]:
        requested = {IMAGE_URL.name}.intersection(_list_contract_columns(export.manifest))
        names = [n for n, values in export.texts.items() if n not in requested and values.str.contains(_IMAGE).any()]
        remedy = remedies.replace_texts(export.manifest, names)
        clause = "contains URLs or names of images in"
        return [Finding(f"{file} {clause} {columns}", remedy) for file, columns in export.find_files(names)]

    problems, untested = [finding for export in exports for finding in find_unrequested(export)], []
    for export in (export for export in exports if not export.imaged.is_empty()):
        name, origin = export.path.name, export.manifest.lookup_key
        if context.database is None:
            untested.append(Finding(f"consent to the images in {name}, no database is configured", SET_DATABASE))
        elif "hash_id" in export.manifest.overridden:
            untested.append(Finding(f"consent to the images in {name}, {explain_unknown_pseudonyms(export.manifest)}"))
        elif origin not in agreed:
            clause = f"{name} contains images, and {explain_unknown_pseudonyms(export.manifest)}"
            problems.append(Finding(clause, remedies.pass_key()))
        elif withdrawn := int((~export.imaged.is_in(agreed[origin].implode())).sum()):
            clause = f"{name} contains images of {withdrawn:,} analyses whose users do not agree (any more)"
            problems.append(Finding(clause, remedies.replace(export.manifest)))
    return build_item("images", problems, passed="No image is from a user without opt-in.", untested=untested)


def check_contents(context: CheckContext) -> ChecklistItem:
    """Test that the data files and the lists of rejected rows exist and match their manifests."""
    storage, problems = context.storage, []
    for manifest in context.exports:
        files = [file for kind in ("pairs", "items", "rejected") for file in manifest.all(kind)]
        existing = storage.stat_files(file.path for file in files)
        missing = [file.path for file in files if file.path not in existing]
        changed = [file.path for file in files if file.path in existing and not _is_intact(storage, file)]
        for names, clause in ((missing, "missing"), (changed, "changed: it does not match its manifest")):
            problems += [Finding(f"{name} is {clause}", context.remedies.replace(manifest)) for name in names]
    exports = pluralize(len(context.exports), "export")
    passed = f"Files of {exports} and lists of rejected rows match their manifests."
    return build_item("contents", problems, passed=passed)


def _is_intact(storage: Storage, file: DataFile) -> bool:
    """Return whether a file is as its manifest describes it; a link never is, since its target can change."""
    try:
        return storage.stat_with_digest(file.path)[1] in (file.sha256, file.becoming.get("sha256"))
    except ExportFileError:
        return False


def check_duplicates(context: CheckContext) -> ChecklistItem:
    """Test that files have no duplicate pairs.

    Exports with truncated times, without a column of the key of [dedup], or of an application that recognises
    duplicates itself, cannot be tested.
    """
    exact, untested = [], []
    for export in context.files:
        if export.manifest.settings.get("timestamp_precision", "exact") != "exact":
            untested.append(Finding(f"{export.path.name}, whose times are truncated"))
        elif "pair_hash" in export.manifest.overridden:
            untested.append(Finding(f"{export.path.name}, whose application recognises duplicates itself"))
        elif not export.manifest.schema.has_whole_key:
            untested.append(Finding(f"{export.path.name}, which lacks a column of the key of [dedup]"))
        else:
            exact.append(export)

    def find_problem(export: ExportContents) -> str:
        return f"has {export.repeated:,} duplicate rows" if export.repeated else ""

    problems = find_problems(exact, find_problem, context.remedies)
    passed = f"No file has duplicates: {pluralize(len(exact), 'file')} with exact times." if exact else ""
    return build_item("duplicates", problems, passed=passed, untested=untested)


def _list_contract_columns(manifest: Manifest) -> Sequence[str]:
    return manifest.schema.training_columns
