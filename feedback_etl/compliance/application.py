"""Tests of the application's database, and of exports with its ids."""

import re
from collections.abc import Mapping, Sequence

import polars as pl

from feedback_etl.compliance.data_files import ExportContents, unknown_pseudonyms
from feedback_etl.compliance.item import ChecklistItem, build_item
from feedback_etl.database.lookups import ApplicationSummary
from feedback_etl.errors import FeedbackError
from feedback_etl.privacy.eraser import ErasureResult
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key, get_key_id
from feedback_etl.settings import Settings
from feedback_etl.storage.base import Storage
from feedback_etl.transform.expressions import hash_id


def check_index(found: ApplicationSummary) -> ChecklistItem:
    """Test that created_at has an index."""
    detail = f"created_at has {'no' if found.missing_index else 'an'} index."
    return ChecklistItem("index", not found.missing_index, detail, found.missing_index)


_CONSENT = re.compile(r"consent|einwillig|6\(1\)(lit\.?)?\(?a\)?|9\(2\)(lit\.?)?\(?a\)?|lit\.?a")
"""Wordings of a legal basis that is consent (GDPR, Articles 6(1)(a) and 9(2)(a)), without spaces."""


def check_consent(
    found: ApplicationSummary, files: Sequence[ExportContents], keys: Sequence[Key], settings: Settings
) -> ChecklistItem:
    """Test that consent is recorded, and that no export contains anyone who has withdrawn it.

    Consent need not be recorded if the record of processing names another legal basis.
    """
    if found.is_partial:
        detail = "Row-level security hides people from this role, who may have withdrawn (allow_row_security)."
        remedy = "run the check as a role with BYPASSRLS, without allow_row_security"
        return ChecklistItem("consent", False, detail, remedy)
    if found.consent:
        consenting = {*found.consenting}
        withdrawn = hash_by_key([analysis for analysis in found.analyses if analysis not in consenting], keys)
        problems = [problem for export in files if (problem := _find_withdrawn(export, withdrawn))]
        passed = f"Consent is recorded by {', '.join(found.consent)}, and no export contains anyone who has withdrawn."
        return build_item("consent", problems, passed=passed, remedy="feedback-etl erase --not-in-database")
    basis = "".join((settings.legal_basis or "").lower().split())
    if basis and not _CONSENT.search(basis):
        detail = "No column records consent, and the record of processing names another legal basis."
        return ChecklistItem("consent", True, detail)
    detail = f"Neither users nor profiles has a column {settings.opt_in_column} or {settings.opt_out_column}."
    remedy = "set opt_in_column, or legal_basis if feedback is used without consent"
    return ChecklistItem("consent", False, detail, remedy)


def _find_withdrawn(export: ExportContents, withdrawn: Mapping[str | None, pl.Series]) -> str:
    origin = export.manifest.pseudonyms
    if origin not in withdrawn:
        return f"{export.path.name} cannot be searched: {unknown_pseudonyms(export.manifest)}"
    analyses = int(export.analyses.is_in(withdrawn[origin].implode()).sum())
    return f"{export.path.name} contains {analyses:,} analyses of people who have withdrawn" if analyses else ""


def hash_by_key(analyses: Sequence[str], keys: Sequence[Key]) -> dict[str | None, pl.Series]:
    """Return the pseudonyms of analyses under each available key and without a key, by key id."""
    ids = pl.DataFrame({"analysis_id": analyses}, schema={"analysis_id": pl.String})
    known: list[Key | None] = [None, *keys]
    return {
        get_key_id(key): ids.select(hash_id("analysis_id", key=key, unkeyed=key is None)).to_series() for key in known
    }


def check_erasure(
    storage: Storage,
    exports: Sequence[ExportContents],
    found: ApplicationSummary,
    keys: Sequence[Key],
) -> ChecklistItem:
    """Test, with a dry run, that an erasure would find a person of the newest export."""
    newest = exports[-1]
    if newest.manifest.pseudonyms != newest.manifest.key_id:
        detail = f"{newest.path.name} cannot be searched: {unknown_pseudonyms(newest.manifest)}."
        return ChecklistItem("erasure", False, detail)
    key = next((key for key in keys if key.id == newest.manifest.key_id), None)
    if key is None and newest.manifest.key_id is not None:
        detail = f"The key {newest.manifest.key_id} is not available."
        return ChecklistItem("erasure", False, detail, "pass it with --key-file")
    analysis = _find_analysis(newest, found.analyses, key)
    if analysis is None:
        detail = f"No one in {newest.path.name} was found in the database: its key is another one, or all have left."
        remedy = "feedback-etl list; if the key is right, feedback-etl erase --not-in-database"
        return ChecklistItem("erasure", False, detail, remedy)
    try:
        result = erase(storage, analysis_ids=[analysis], keys=keys, dry_run=True)
    except FeedbackError as error:
        return ChecklistItem("erasure", False, str(error), "feedback-etl erase --dry-run")
    problems = _list_erasure_problems(result)
    passed = "A person in the newest export would be found, and all files were searched."
    return build_item("erasure", list(problems), passed=passed, remedy=", ".join(dict.fromkeys(problems.values())))


def _list_erasure_problems(result: ErasureResult) -> dict[str, str]:
    """Return the problems of a dry run, each with its remedy."""
    problems = {}
    if result.damaged:
        problems[f"Damaged: {', '.join(result.damaged)}"] = "feedback-etl list"
    if result.without_key:
        problems[f"Created with unavailable keys: {', '.join(result.without_key)}"] = "--key-file"
    if result.unmanaged:
        problems[f"Unmanaged files: {', '.join(path.name for path in result.unmanaged)}"] = "feedback-etl adopt"
    if result.not_inspected:
        problems[f"Files of no export: {result.summarize_not_inspected()}"] = "move these files out of the folder"
    if not result.rows:
        problems["A person in the newest export was not found"] = "feedback-etl list"
    return problems


def _find_analysis(export: ExportContents, analyses: Sequence[str], key: Key | None) -> str | None:
    """Return an analysis that an export contains."""
    ids = pl.DataFrame({"id": analyses}, schema={"id": pl.String})
    hashes = hash_id("id", key=key, domain="analysis_id", unkeyed=key is None)
    contained = ids.filter(hashes.is_in(export.analyses.implode()))["id"]
    return str(contained[0]) if len(contained) else None
