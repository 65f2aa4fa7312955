"""Tests of a folder of exports."""

import shlex
import stat
from datetime import datetime, timedelta
from pathlib import Path

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.demo.sample import DEMO_KEY
from feedback_etl.records.audit_verification import verify_folder
from feedback_etl.records.layout import DATA_FOLDERS, PREFIX
from feedback_etl.records.manifest import Manifest
from feedback_etl.storage.base import STATE_FOLDER

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_keys(context: CheckContext) -> ChecklistItem:
    """Test that ids are hashed with a key that is not published."""
    exports, remedies = context.exports, context.remedies
    faults: dict[str | None, str] = {None: "is unkeyed"}
    faults |= dict.fromkeys((DEMO_KEY.id, DEMO_KEY.legacy_id), "uses the published demo key")
    problems = [
        Finding(f"{export.stem} {faults[export.key_id]}", remedies.replace(export, unkeyed=False, allow_new_key=True))
        for export in exports
        if export.key_id in faults
    ]
    if problems:
        problems[0] = problems[0]._replace(remedy=f"configure a key (feedback-etl keys new)\n{problems[0].remedy}")
    key_ids = sorted({export.key_id for export in exports if export.key_id})
    return build_item("keys", problems, passed=f"Ids are hashed with {', '.join(key_ids)}.")


def check_modes(context: CheckContext) -> ChecklistItem:
    """Test that only the owner has access: files 0600, folders 0700."""
    top = context.storage.local_path()
    if top is None:
        detail = "Not tested: the policies of the object store control access."
        return ChecklistItem("modes", "skipped", detail)
    candidates = [top, *(top / name for name in (*DATA_FOLDERS, STATE_FOLDER))]
    candidates += [path for folder in candidates[:-1] for path in folder.glob(f"{PREFIX}*")]
    folders = [path for path in candidates if path.is_dir()]
    paths = [*folders, *(path for folder in folders for path in folder.iterdir() if path.is_file())]
    open_to_others = [path for path in paths if path.stat().st_mode & _OTHERS]
    problems = [Finding(f"Other users have access to {path} ({_format_mode(path)})") for path in open_to_others]
    if problems:
        problems[0] = problems[0]._replace(remedy=shlex.join(["chmod", "go=", *map(str, open_to_others)]))
    passed = f"Only the owner has access to {len(paths) - len(folders):,} files and {len(folders)} folders."
    return build_item("modes", problems, passed=passed)


def _format_mode(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)[1:]


def check_retention(context: CheckContext) -> ChecklistItem:
    """Test that a retention period is set and kept, and that no window reaches further back."""
    exports, remedies = context.exports, context.remedies
    days = remedies.settings.retention_days
    if days is None:
        return ChecklistItem("retention", "failed", "No retention period is set.", "set retention_days in the settings")
    period = timedelta(days=days)
    old = [export.stem for export in exports if datetime.fromisoformat(export.created_at) < context.now - period]
    if old:
        detail = f"Exports older than {days} days: {', '.join(old)}."
        return ChecklistItem("retention", "failed", detail, remedies.command("prune", "--keep-days", str(days)))
    problems = [
        Finding(
            f"The window of {export.stem} is longer than {days} days",
            remedies.replace(export, since=None, until=None, days=days),
        )
        for export in exports
        if _reaches_back(export, period)
    ]
    passed = f"The retention period is {days} days, and no export is older or reaches further back."
    return build_item("retention", problems, passed=passed)


def _reaches_back(manifest: Manifest, period: timedelta) -> bool:
    start, end = manifest.window
    return end is not None and (
        start is None or datetime.fromisoformat(manifest.created_at) - datetime.fromisoformat(start) > period
    )


def check_audit_log(context: CheckContext) -> ChecklistItem:
    """Test that audit log, manifests and tombstones were not changed, and that a key protects them."""
    remedies = context.remedies
    result = verify_folder(context.storage, context.keys) if context.storage.exists() else None
    if result is None or not (result.records or result.problems):
        detail = "Not tested: the folder contains no audit log."
        return ChecklistItem("audit log", "skipped", detail, remedies.export())
    if result.problems and result.unknown == len(result.problems):
        remedy = remedies.pass_key()
    else:
        remedy = f"restore the folder from a backup; this differs:\n{remedies.command('audit', 'verify')}"
    problems = [Finding(problem, remedy) for problem in result.problems]
    passed = f"The audit log has {result.records:,} records in one chain."
    unprotected = Finding("no key protects the folder, so that anyone who can write to it can change everything")
    return build_item("audit log", problems, passed=passed, untested=[] if result.is_protected else [unprotected])
