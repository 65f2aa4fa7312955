"""Tests of a folder of exports."""

import shlex
import stat
from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from feedback_etl.columns import SUBJECT_HASH
from feedback_etl.compliance.data_files import ExportContents
from feedback_etl.compliance.item import ChecklistItem, build_item
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.exports.audit_verification import verify_folder
from feedback_etl.exports.layout import PREFIX, REJECTED_FOLDER
from feedback_etl.exports.manifest import Manifest
from feedback_etl.exports.row_filter import PSEUDONYM
from feedback_etl.plurals import pluralize
from feedback_etl.privacy.keys import Key
from feedback_etl.privacy.risk_measures import linkage_risk
from feedback_etl.storage.base import STATE_FOLDER, Storage

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_keys(exports: Sequence[Manifest]) -> ChecklistItem:
    """Test that ids are hashed with a key that is not published."""
    published = Key.parse(DEMO_KEY).id
    problems = [f"{export.stem} is unkeyed" for export in exports if export.key_id is None]
    problems += [f"{export.stem} uses the published demo key" for export in exports if export.key_id == published]
    key_ids = sorted({export.key_id for export in exports if export.key_id})
    remedy = "feedback-etl keys new, prune the old files, and export again"
    return build_item("keys", problems, passed=f"Ids are hashed with {', '.join(key_ids)}.", remedy=remedy)


def check_modes(storage: Storage) -> ChecklistItem:
    """Test that only the owner has access: files 0600, folders 0700."""
    top = storage.local_path()
    if top is None:
        return ChecklistItem("modes", True, "Not applicable: the policies of the object store control access.")
    candidates = [top, top / REJECTED_FOLDER, top / STATE_FOLDER]
    candidates += [path for folder in (top, top / REJECTED_FOLDER) for path in folder.glob(f"{PREFIX}*")]
    folders = [path for path in candidates if path.is_dir()]
    paths = [*folders, *(path for folder in folders for path in folder.iterdir() if path.is_file())]
    open_to_others = [path for path in paths if path.stat().st_mode & _OTHERS]
    return build_item(
        "modes",
        [f"Other users have access to {path} ({stat.filemode(path.stat().st_mode)[1:]})" for path in open_to_others],
        passed=f"Only the owner has access to {len(paths) - len(folders):,} files and {len(folders)} folders.",
        remedy=f"chmod go= {' '.join(shlex.quote(str(path)) for path in open_to_others)}",
    )


def check_retention(exports: Sequence[Manifest], days: int | None, now: datetime) -> ChecklistItem:
    """Test that a retention period is set and kept, and that no window reaches further back."""
    if days is None:
        return ChecklistItem("retention", False, "No retention period is set.", "set retention_days in the settings")
    period = timedelta(days=days)
    old = [export.stem for export in exports if datetime.fromisoformat(export.created_at) < now - period]
    if old:
        return ChecklistItem(
            "retention",
            False,
            f"Exports older than {days} days: {', '.join(old)}.",
            f"feedback-etl prune --keep-days {days}",
        )
    long = [export.stem for export in exports if _reaches_back(export, period)]
    remedy = f"remove these files; from then on feedback-etl export --days {days} or fewer"
    problems = [f"Exports with windows of more than {days} days: {', '.join(long)}"] if long else []
    passed = f"The retention period is {days} days, and no export is older or reaches further back."
    return build_item("retention", problems, passed=passed, remedy=remedy)


def _reaches_back(manifest: Manifest, period: timedelta) -> bool:
    start, end = manifest.window
    return end is not None and (
        start is None or datetime.fromisoformat(manifest.created_at) - datetime.fromisoformat(start) > period
    )


def check_audit_log(storage: Storage, exports: Sequence[Manifest], keys: Sequence[Key]) -> ChecklistItem:
    """Test that the audit log was not changed."""
    verdict = verify_folder(storage, exports, keys)
    return build_item(
        "audit log",
        verdict.problems,
        passed=f"The audit log has {verdict.records:,} records in one chain.",
        remedy="feedback-etl audit verify",
    )


def check_k(exports: Sequence[ExportContents], required: int | None, quasi_identifiers: Sequence[str]) -> ChecklistItem:
    """Test the k of the exports, and measure the risk of linking their rows by a pseudonym.

    Args:
        exports: Exports, the newest last.
        required: k of the settings; None if they require none.
        quasi_identifiers: Quasi-identifiers of the settings.
    """
    problems = {
        export.path: problem
        for export in exports
        if required and (problem := _find_k_problem(export.manifest, required, quasi_identifiers))
    }
    passed = f"{_describe_k(exports[-1].manifest)}; {required or 'none'} is required.{_describe_linkage(exports)}"
    remedy = f"rm {' '.join(shlex.quote(str(path)) for path in problems)} && feedback-etl export --k {required}"
    return build_item("k", list(problems.values()), passed=passed, remedy=remedy)


def _describe_k(manifest: Manifest) -> str:
    risk = manifest.risk
    if not risk:
        return f"k of {manifest.stem} was not measured"
    k = f"{'at least ' if risk['at_least'] else ''}{risk['k']} for {', '.join(risk['quasi_identifiers'])}"
    return f"k of {manifest.stem} is {k}" + (", measured before people were erased" if risk["stale"] else "")


def _find_k_problem(manifest: Manifest, required: int, quasi_identifiers: Sequence[str]) -> str:
    """Return why the k of an export may be smaller than required; "" if it is not."""
    risk = manifest.risk
    if not risk or int(risk["k"]) < required or risk["stale"]:
        return f"{_describe_k(manifest)}, and {required} is required"
    if {*quasi_identifiers} <= {*risk["quasi_identifiers"]}:
        return ""
    return f"{_describe_k(manifest)}, but {', '.join(quasi_identifiers)} may be known"


def _describe_linkage(exports: Sequence[ExportContents]) -> str:
    """Describe the risk if an attacker links the rows of all files."""
    names = exports[-1].manifest.risk.get("quasi_identifiers", [])
    files = [export for export in exports if names and {*names} <= {*export.columns}]
    if not files:
        return ""
    by = SUBJECT_HASH.name if all(SUBJECT_HASH.name in export.columns for export in files) else PSEUDONYM
    risk = linkage_risk(pl.concat([export.rows.select(by, *names) for export in files]), names, by=by)
    noun = "analyses" if by == PSEUDONYM else "people"
    return (
        f" Linked by {by} over {pluralize(len(files), 'file')}, equivalence classes have {risk.k} {noun} or more, and "
        f"{risk.share_unique:.1%} of the {noun} are unique."
    )
