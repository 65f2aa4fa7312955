"""Tests of the application's database, and of exports with its ids."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import ExportContents, explain_unknown_pseudonyms, hash_by_key
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.compliance.remedies import Remedies
from feedback_etl.errors import FeedbackError
from feedback_etl.exports.adoption import UNKNOWN_SCHEME
from feedback_etl.privacy.eraser import ErasureResult
from feedback_etl.privacy.erasure import erase
from feedback_etl.privacy.keys import Key
from feedback_etl.storage.location import open_storage
from feedback_etl.transform.expressions import hash_id


def check_index(context: CheckContext) -> ChecklistItem:
    """Test that the time has an index; the tables of a custom query or of a view are not known."""
    statement, settings = context.application.missing_index, context.remedies.settings
    time = settings.source.created_at if settings.source else "created_at"
    if statement is None:
        detail = "Not tested: the tables behind a query or a view are not known. EXPLAIN the query in the database."
        if context.remedies.reads_files:
            detail = "Not tested: files have no index, and every run reads all of them."
        return ChecklistItem("index", "skipped", detail)
    problems = [Finding(f"{time} has no index", statement)] if statement else []
    return build_item("index", problems, passed=f"{time} has an index.")


_CONSENT = re.compile(r"consent|einwillig|6\(1\)(lit\.?)?\(?a\)?|9\(2\)(lit\.?)?\(?a\)?|lit\.?a")
"""Wordings of a legal basis that is consent (GDPR, Articles 6(1)(a) and 9(2)(a)), without spaces."""


def check_consent(context: CheckContext) -> ChecklistItem:
    """Test that consent is recorded, and that no export contains anyone who has withdrawn it.

    Consent need not be recorded if the record of processing names another legal basis.
    """
    if context.application.is_partial:
        detail = "Row-level security hides people from this role, who may have withdrawn (allow_row_security)."
        remedy = "run the check as a role with BYPASSRLS, without allow_row_security"
        return ChecklistItem("consent", "failed", detail, remedy)
    if context.application.consent:
        return _check_withdrawals(context)
    settings = context.remedies.settings
    basis = "".join((settings.legal_basis or "").lower().split())
    if basis and not _CONSENT.search(basis):
        detail = "No column records consent, and the record of processing names another legal basis."
        return ChecklistItem("consent", "ok", detail)
    detail, remedy = _explain_no_consent(context.remedies)
    return ChecklistItem("consent", "failed", detail, f"{remedy}, or set legal_basis if feedback is used without it")


def _explain_no_consent(remedies: Remedies) -> tuple[str, str]:
    """Return why no column records consent, and how to name one."""
    settings = remedies.settings
    if settings.source is not None:
        return "[source] names no column of consent.", 'add consent = "COLUMN" to [source]'
    if settings.query is not None or remedies.reads_files:
        subject = "The files have" if settings.query is None else "The query yields"
        return f"{subject} no column consent.", "add the column, a boolean"
    detail = f"Neither users nor profiles has a column {settings.opt_in_column} or {settings.opt_out_column}."
    return detail, "set opt_in_column"


def _check_withdrawals(context: CheckContext) -> ChecklistItem:
    application, files, remedies = context.application, context.files, context.remedies
    consenting = {*application.consenting}
    withdrawn = hash_by_key([analysis for analysis in application.analyses if analysis not in consenting], context.keys)
    pseudonyms = hash_by_key(application.analyses, context.keys)
    problems, untested, compared = [], [], 0
    for export in files:
        name, origin = export.path.name, export.manifest.lookup_key
        unsearchable = f"{name} cannot be searched: {explain_unknown_pseudonyms(export.manifest)}"
        if "hash_id" in export.manifest.overridden:
            untested.append(Finding(unsearchable))
        elif origin not in withdrawn:
            problems.append(Finding(unsearchable, remedies.pass_key()))
        elif analyses := int(export.analyses.is_in(withdrawn[origin].implode()).sum()):
            detail = f"{name} contains {analyses:,} analyses of people who have withdrawn"
            problems.append(Finding(detail, remedies.sweep()))
        else:
            in_database = export.analyses.is_in(pseudonyms[origin].implode())
            compared += int(in_database.sum())
            if others := int((~in_database).sum()):
                clause = f"consent to {others:,} analyses in {name} that are not in the database (any more)"
                untested.append(Finding(clause, remedies.sweep()))
    passed = (
        f"Consent is recorded by {', '.join(application.consent)}, and none of {compared:,} exported analyses in the "
        "database is of anyone who has withdrawn."
    )
    return build_item("consent", problems, passed=passed if compared or not untested else "", untested=untested)


def check_collisions(context: CheckContext) -> ChecklistItem:
    """Test that no two analyses of the application have one pseudonym, which would make them one in exports."""
    analyses = context.application.analyses
    pseudonyms = hash_by_key(analyses, context.keys)
    newest = {export.lookup_key: export for export in context.exports}
    problems = []
    for origin in newest.keys() & pseudonyms.keys():
        if shared := pseudonyms[origin].len() - pseudonyms[origin].n_unique():
            remedy = context.remedies.replace(newest[origin], unkeyed=False, allow_new_key=True, pseudonym_length=None)
            detail = f"{shared:,} analyses have the pseudonym of another one in {newest[origin].stem}"
            problems.append(Finding(detail, f"set pseudonym_length = 32\n{remedy}"))
    untested = [
        Finding(f"{export.stem}, {explain_unknown_pseudonyms(export)}")
        for origin, export in newest.items()
        if origin not in pseudonyms
    ]
    passed = f"{len(analyses):,} analyses of the application have different pseudonyms."
    is_tested = len(untested) < len(newest)
    return build_item("collisions", problems, passed=passed if is_tested else "", untested=untested)


def check_erasure(context: CheckContext) -> ChecklistItem:
    """Test, with a dry run, that an erasure would find a person of the newest export."""
    exports, keys, remedies = context.files, context.keys, context.remedies
    if unknown := [export.manifest for export in exports if export.manifest.scheme == UNKNOWN_SCHEME]:
        problems = [
            Finding(
                f"{manifest.stem} cannot be searched: {explain_unknown_pseudonyms(manifest)}",
                remedies.remove([manifest.stem]),
            )
            for manifest in unknown
        ]
        return build_item("erasure", problems, passed="")
    newest = next((export for export in reversed(exports) if not export.analyses.is_empty()), None)
    if newest is None:
        return ChecklistItem("erasure", "skipped", "Not tested: the exports contain no one.")
    if "hash_id" in newest.manifest.overridden:
        detail = f"Not tested: {newest.path.name}, {explain_unknown_pseudonyms(newest.manifest)}."
        return ChecklistItem("erasure", "skipped", detail)
    key = next((key for key in keys if key.id == newest.manifest.key_id), None)
    if key is None and newest.manifest.key_id is not None:
        detail = f"The key {newest.manifest.key_id} is not available."
        return ChecklistItem("erasure", "failed", detail, remedies.pass_key())
    analysis = _find_analysis(newest, context.application.analyses, key)
    if analysis is None:
        detail = (
            f"No one in {newest.path.name} was found in the database: its key is another one, the database is another "
            "one, or all have left."
        )
        remedy = (
            f"if the key and the database are the right ones, replace the export:\n{remedies.replace(newest.manifest)}"
        )
        return ChecklistItem("erasure", "failed", detail, remedy)
    try:
        result = erase(context.storage, analysis_ids=[analysis], keys=keys, dry_run=True)
    except FeedbackError as error:
        return ChecklistItem("erasure", "failed", str(error), remedies.command("audit", "verify"))
    return _judge_erasure(result, exports, remedies)


def _judge_erasure(result: ErasureResult, exports: Sequence[ExportContents], remedies: Remedies) -> ChecklistItem:
    """Build the item from a dry run."""
    passed = "A person in the newest export would be found, and all files were searched."
    untested = [
        Finding(
            f"rows of {stem} with unknown pseudonyms, or without one", f"{remedies.sweep()}\n{remedies.remove([stem])}"
        )
        for stem in result.partly_searched
    ]
    problems = _list_erasure_problems(result, exports, remedies)
    return build_item("erasure", problems, passed="" if untested else passed, untested=untested)


def _list_erasure_problems(
    result: ErasureResult, exports: Sequence[ExportContents], remedies: Remedies
) -> list[Finding]:
    """Return the problems of a dry run."""
    manifests = {file.path: export.manifest for export in exports for file in export.manifest.files}
    problems = [
        Finding(f"Damaged: {name}", remedies.replace(manifests[name]) if name in manifests else "")
        for name in result.damaged
    ]
    problems += [
        Finding(f"Created with an unavailable key: {stem}", remedies.pass_key()) for stem in result.without_key
    ]
    problems += [Finding(f"Unmanaged file: {path.name}", _adopt_or_remove(path, remedies)) for path in result.unmanaged]
    problems += [
        Finding(f"File outside all exports: {name}", _move_or_remove(name, remedies)) for name in result.not_inspected
    ]
    problems += [
        Finding(f"{name} has another hard link", f"find it, and remove it:\n{_find_links(name, remedies)}")
        for name in result.hard_links
    ]
    if not result.rows:
        problems.append(Finding("A person in the newest export was not found", remedies.command("list")))
    return problems


def _adopt_or_remove(path: Path, remedies: Remedies) -> str:
    """Return the command that adopts a file without a manifest; a part or a list of rejected rows is removed."""
    if path.parent == Path(remedies.settings.output_dir):
        return shlex.join(["feedback-etl", "adopt", str(path)])
    return f"restore the manifest of {path} from a backup, or remove the file:\n{shlex.join(['rm', str(path)])}"


def _find_links(name: str, remedies: Remedies) -> str:
    """Return the command that lists the names of a file, all of which are in the file system of the folder."""
    path = Path(open_storage(remedies.settings.output_dir).uri(name)).resolve()
    mount = next(parent for parent in path.parents if parent.is_mount())
    return shlex.join(["find", str(mount), "-xdev", "-samefile", str(path)])


def _move_or_remove(name: str, remedies: Remedies) -> str:
    """Return the remedy for a file below the folder that belongs to no export."""
    path = str(open_storage(remedies.settings.output_dir).uri(name))
    remove = ["rm", "-r", path.removesuffix("/")] if name.endswith("/") else ["rm", path]
    return f"move {path} out of the folder, or remove it:\n{shlex.join(remove)}"


def _find_analysis(export: ExportContents, analyses: Sequence[str], key: Key | None) -> str | None:
    """Return an analysis that an export contains."""
    ids = pl.DataFrame({"id": analyses}, schema={"id": pl.String})
    hashes = hash_id("id", key=key, domain="analysis_id", unkeyed=key is None)
    contained = ids.filter(hashes.is_in(export.analyses.implode()))["id"]
    return str(contained[0]) if len(contained) else None
