"""The record of processing (GDPR, Article 30), written from the settings and manifests, and checked against them."""

import re
from collections.abc import Sequence
from contextlib import suppress

from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.item import ChecklistItem, Finding, build_item
from feedback_etl.compliance.processing import describe_processing
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.records.manifest import Manifest
from feedback_etl.settings.model import Settings
from feedback_etl.storage.base import Storage
from feedback_etl.storage.errors import explain_read_errors, explain_write_errors
from feedback_etl.storage.location import open_storage

RECORD = "processing_record.md"

_TITLES = {
    "controller": "Controller",
    "data_protection_officer": "Data protection officer",
    "contact": "Contact",
    "purpose": "Purpose",
    "legal_basis": "Legal basis",
    "recipients": "Recipients",
    "transfers": "Transfers to third countries",
    "retention_days": "Retention",
}
"""The required settings, with their titles in the record."""

_MISSING = "(missing)"


def render_record(settings: Settings, exports: Sequence[Manifest] = ()) -> str:
    """Render the record; equal settings and equally made exports give equal texts.

    Args:
        settings: Settings of the folder.
        exports: Manifests of the exports in the folder, without pruned ones.

    >>> render_record(Settings(controller="Example Ltd")).splitlines()[2]
    '- **Controller**: Example Ltd'
    """
    entries = {title: str(getattr(settings, name) or _MISSING) for name, title in _TITLES.items()}
    entries |= {
        "Retention": f"{settings.retention_days or _MISSING} days, then removed (feedback-etl prune)",
        "Data subjects": "users of the application who gave feedback on a recommendation",
        "Access": "files 0600 and folders 0700, for their owner only; a tamper-evident audit log",
        "Erasure": "feedback-etl erase, from every export and every later one",
    }
    lines = [f"- **{title}**: {text}" for title, text in entries.items()]
    return "\n".join(
        ["# Record of processing: feedback as training data", "", *lines, "", *describe_processing(exports), ""]
    )


def write_record(settings: Settings) -> str:
    """Write the record to the folder of the exports, readable by its owner only (0600); return its path or URL.

    Raises:
        ExportFileError: The record cannot be written, or a manifest cannot be read.
    """
    storage = open_storage(settings.output_dir)
    with explain_write_errors(storage):
        storage.create()
        storage.overwrite(RECORD, render_record(settings, list_current_exports(storage)).encode())
    return storage.uri(RECORD)


def list_current_exports(storage: Storage) -> list[Manifest]:
    """Return the manifests of exports that were not pruned, the oldest first; none without a folder."""
    exports = list_exports(storage).exports if storage.exists() else []
    return [manifest for manifest in exports if not manifest.pruned_at]


def check_record(context: CheckContext) -> ChecklistItem:
    """Test that the record exists, is complete and matches the settings and the exports."""
    storage, remedies = context.storage, context.remedies
    settings, path = remedies.settings, storage.uri(RECORD)
    remedy, problems, text = remedies.command("check", "--write-record"), [], b""
    if missing := [name for name in _TITLES if not getattr(settings, name)]:
        names = ", ".join(missing)
        problems.append(Finding(f"The record of processing lacks {names}", f"set {names} in the settings\n{remedy}"))
    problems += _find_unnamed_recipients(settings, context.exports, remedy)
    with explain_read_errors(storage), suppress(FileNotFoundError):
        text = storage.read(RECORD)
    if not text:
        problems.append(Finding(f"{path} is missing", remedy))
    elif text != render_record(settings, context.exports).encode():
        problems.append(Finding(f"{path} does not match the settings and the exports", remedy))
    return build_item("record", problems, passed=f"{path} is complete and matches the settings and the exports.")


def _find_unnamed_recipients(settings: Settings, exports: Sequence[Manifest], remedy: str) -> list[Finding]:
    """Return the recipients of shared exports that the setting does not name; if it is empty, that is reported."""
    if not (named := settings.recipients):
        return []
    recipients = {export.recipient for export in exports if export.recipient}
    unnamed = sorted(name for name in recipients if not re.search(rf"(?i)(?<!\w){re.escape(name)}(?!\w)", named))
    if not unnamed:
        return []
    clause = f"The record of processing does not name the recipients {', '.join(unnamed)} of shared exports"
    return [Finding(clause, f"name {', '.join(unnamed)} in the setting recipients\n{remedy}")]
