"""Tests of the rows of exports."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import polars as pl

from feedback_etl.columns import AGE_EDGES, IMAGE_URL, training_columns
from feedback_etl.compliance.data_files import ExportContents, unknown_pseudonyms
from feedback_etl.compliance.item import ChecklistItem, build_item
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.exports.manifest import Manifest
from feedback_etl.plurals import pluralize
from feedback_etl.transform.expressions import age_ranges, hash_id
from feedback_etl.transform.identifiers import bounded, unbroken
from feedback_etl.transform.training_schema import PSEUDONYM_PATTERN

GUESSED_IDS = 1_000_000
"""Integers from 0 that an attacker tries first."""

MIN_RANGE_YEARS = 5
"""Width in years below which an age range reveals the age."""

MIN_ID_LENGTH = 6
"""Characters; shorter ids occur in texts by chance."""

_IDS_AT_ONCE = 200_000
_FORMS = (bounded, unbroken)
_IMAGE = r"(?i)^[a-z0-9]+://|\.(jpe?g|png|webp|heic|gif)\b"


def check_columns(exports: Sequence[ExportContents]) -> ChecklistItem:
    """Test that files have only columns of the contract."""

    def find_problem(export: ExportContents) -> str:
        unknown = [name for name in export.columns if name not in _contract_columns(export.manifest)]
        return f"has unknown columns {', '.join(unknown)}" if unknown else ""

    return _build_item_per_file(
        "columns", exports, find_problem, passed=f"{pluralize(len(exports), 'file')} with columns of the contract only."
    )


def check_pseudonyms(exports: Sequence[ExportContents], ids: Iterable[str]) -> ChecklistItem:
    """Test that no pseudonym is the plain hash of an id that an attacker knows or guesses."""
    known = pl.Series("id", list(ids), dtype=pl.String)
    guessed = pl.select(pl.int_range(GUESSED_IDS).cast(pl.String).alias("id")).to_series()
    ids_tried = pl.concat([known, guessed]).to_frame()
    plain = ids_tried.select(hash_id("id", unkeyed=True)).to_series().implode()
    published = ids_tried.select(hash_id("id", key=DEMO_KEY, domain="analysis_id")).to_series().implode()

    def find_problem(export: ExportContents) -> str:
        if "hash_id" in export.manifest.overridden:
            return f"cannot be tested: {unknown_pseudonyms(export.manifest)}"
        if malformed := int((~export.pseudonyms.str.contains(PSEUDONYM_PATTERN)).sum()):
            return f"has {malformed:,} values that are no pseudonyms"
        if export.without_analysis:
            return f"has {export.without_analysis:,} rows without a pseudonym"
        if found := int(export.pseudonyms.is_in(plain).sum()):
            return f"has {found:,} plain hashes of ids"
        found = int(export.analyses.is_in(published).sum())
        return f"has {found:,} pseudonyms of the published demo key" if found else ""

    passed = (
        f"No pseudonym is the plain hash of {len(known):,} ids of the application or of 0 to {GUESSED_IDS - 1:,}, or "
        "uses the published demo key."
    )
    return _build_item_per_file("pseudonyms", exports, find_problem, passed=passed)


def check_raw_ids(exports: Sequence[ExportContents], users: Iterable[str]) -> ChecklistItem:
    """Test that no text contains the id of a user, if ids are too long to occur by chance."""
    ids = list(dict.fromkeys(user for user in users if len(user) >= MIN_ID_LENGTH))
    id_frame = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    patterns = {form: id_frame.select(form("id")).to_series().drop_nulls().to_list() for form in _FORMS}
    names = {
        export.path: [
            name
            for name, values in export.texts.items()
            if any(_contains_any(values.to_frame().select(form(name)).to_series(), patterns[form]) for form in _FORMS)
        ]
        for export in exports
    }

    def find_problem(export: ExportContents) -> str:
        return f"contains ids of users in {', '.join(names[export.path])}" if names[export.path] else ""

    passed = f"No text contains one of {len(ids):,} ids of users of {MIN_ID_LENGTH} characters or more."
    if not ids:
        passed = (
            f"Not testable: no id of a user has {MIN_ID_LENGTH} characters or more, and shorter ones occur by chance."
        )
    options = "--hash-recommendation-id" if any("recommendation_id" in found for found in names.values()) else ""
    return _build_item_per_file("raw ids", exports, find_problem, passed=passed, options=options)


def _contains_any(texts: pl.Series, ids: Sequence[str]) -> bool:
    """Return whether one of the texts contains one of the ids."""
    batches = (list(ids[start : start + _IDS_AT_ONCE]) for start in range(0, len(ids), _IDS_AT_ONCE))
    return any(texts.str.contains_any(batch).any() for batch in batches)


def check_ages(exports: Sequence[ExportContents]) -> ChecklistItem:
    """Test that ages are ranges."""
    no_labels = pl.Series([], dtype=pl.String)

    def find_problem(export: ExportContents) -> str:
        labels = export.texts.get("age_range", no_labels)
        if "bucket_age" in export.manifest.overridden:
            return _find_ages(labels)
        edges = export.manifest.settings.get("age_edges", AGE_EDGES)
        ranges = list(age_ranges(edges).categories)
        if narrow := [f"{low}-{high}" for low, high in pairwise(edges) if high - low < MIN_RANGE_YEARS]:
            return f"has ranges of fewer than {MIN_RANGE_YEARS} years: {', '.join(narrow)}"
        return "" if labels.is_in(ranges).all() else "has ages that are no ranges"

    return _build_item_per_file(
        "ages", exports, find_problem, passed="Ages are ranges, or labels of the application that are no ages."
    )


def _find_ages(labels: pl.Series) -> str:
    """Return how many labels of the application are ages, or ranges of few years."""
    bounds = labels.str.extract_groups(r"^(\d+)(?:\s*-\s*(\d+))?$").struct.unnest().cast(pl.Float64)
    ages = int(bounds.select((pl.nth(0).is_not_null() & pl.nth(1).is_null()).sum()).item())
    narrow = int(bounds.select((pl.nth(1) - pl.nth(0) < MIN_RANGE_YEARS).sum()).item())
    if ages:
        return f"has {ages:,} labels that are ages"
    return f"has {narrow:,} ranges of fewer than {MIN_RANGE_YEARS} years" if narrow else ""


def check_images(exports: Sequence[ExportContents], agreed: Mapping[str | None, pl.Series]) -> ChecklistItem:
    """Test that image URLs are exported only if requested, and only of users who (still) agree.

    Args:
        exports: The contents of the exports.
        agreed: Pseudonyms of the analyses of users who agree, by key id.
    """

    def find_problem(export: ExportContents) -> str:
        requested = {IMAGE_URL.name}.intersection(_contract_columns(export.manifest))
        names = [n for n, values in export.texts.items() if n not in requested and values.str.contains(_IMAGE).any()]
        if names:
            return f"contains URLs or names of images in {', '.join(names)}"
        if export.imaged.is_empty():
            return ""
        if export.manifest.pseudonyms not in agreed:
            return f"contains images, and {unknown_pseudonyms(export.manifest)}"
        withdrawn = int((~export.imaged.is_in(agreed[export.manifest.pseudonyms].implode())).sum())
        return f"contains images of {withdrawn:,} analyses whose users do not agree (any more)" if withdrawn else ""

    return _build_item_per_file("images", exports, find_problem, passed="No image is from a user without opt-in.")


def check_contents(exports: Sequence[ExportContents]) -> ChecklistItem:
    """Test that files match their manifests."""

    def find_problem(export: ExportContents) -> str:
        matches = [
            export.storage.stat_with_digest(file.path)[1] in (file.sha256, file.becoming.get("sha256"))
            for file in export.files
        ]
        return "" if all(matches) else "does not match its manifest"

    return _build_item_per_file(
        "contents", exports, find_problem, passed=f"{pluralize(len(exports), 'file')} checked against manifests."
    )


def check_duplicates(exports: Sequence[ExportContents]) -> ChecklistItem:
    """Test that files have no duplicate pairs.

    Exports with truncated times, or of an application that recognises duplicates itself, cannot be tested.
    """
    exact = [
        export
        for export in exports
        if export.manifest.settings.get("timestamp_precision", "exact") == "exact"
        and "pair_hash" not in export.manifest.overridden
    ]

    def find_problem(export: ExportContents) -> str:
        return f"has {export.repeated:,} duplicate rows" if export.repeated else ""

    return _build_item_per_file(
        "duplicates", exact, find_problem, passed=f"No duplicates in {pluralize(len(exact), 'file')} with exact times."
    )


def _build_item_per_file(
    name: str,
    exports: Sequence[ExportContents],
    find_problem: Callable[[ExportContents], str],
    *,
    passed: str,
    options: str = "",
) -> ChecklistItem:
    """Build an item that is tested on every file; the remedy exports files with problems again."""
    problems = {export.path: problem for export in exports if (problem := find_problem(export))}
    files = " ".join(shlex.quote(str(path)) for path in problems)
    named = [f"{path.name} {problem}" for path, problem in problems.items()]
    return build_item(name, named, passed=passed, remedy=f"rm {files} && feedback-etl export {options}".strip())


def _contract_columns(manifest: Manifest) -> list[str]:
    extra_columns = manifest.settings.get("extra_columns", [])
    return [*training_columns(), *(name for name, *_ in extra_columns)]
