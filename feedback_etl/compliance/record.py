"""The record of processing (GDPR, Article 30), written from the settings and checked against them."""

from pathlib import Path

from feedback_etl.columns import TRAINING_COLUMNS
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.settings import Settings
from feedback_etl.storage.errors import explain_read_errors, explain_write_errors
from feedback_etl.storage.posix import make_private_folder, replace_private_file, temporary_path

RECORD = "processing_record.md"

_REQUIRED_SETTINGS = ("controller", "contact", "purpose", "legal_basis", "recipients", "retention_days")
_MISSING = "(missing)"


def render_record(settings: Settings) -> str:
    """Render the record; equal settings give equal texts.

    >>> render_record(Settings(controller="Example Ltd")).splitlines()[2]
    '- **Controller**: Example Ltd'
    """
    values = {name: str(getattr(settings, name) or _MISSING) for name in _REQUIRED_SETTINGS}
    k = f"equivalence classes of fewer than {settings.k} people are suppressed" if settings.k else "measured"
    times = "exact" if settings.timestamp_precision == "exact" else f"truncated to the {settings.timestamp_precision}"
    entries = {
        "Controller": values["controller"],
        "Contact": values["contact"],
        "Purpose": values["purpose"],
        "Legal basis": values["legal_basis"],
        "Data subjects": "users of the application who gave feedback on a recommendation",
        "Data": f"{', '.join(TRAINING_COLUMNS)}; no names, no user ids, no ages, no free text",
        "Recipients": values["recipients"],
        "Retention": f"{values['retention_days']} days, then removed (feedback-etl prune)",
        "Consent": f"{settings.opt_in_column} and {settings.opt_out_column} of users or profiles, if they exist",
        "Pseudonyms": "HMAC-SHA256 of ids with a key that is stored apart from the exports",
        "k-anonymity": f"{k}: {', '.join(settings.quasi_identifiers)}",
        "Times": times,
        "Access": "files 0600 and folders 0700, for their owner only; a tamper-evident audit log",
        "Erasure": "feedback-etl erase, from every export and every later one",
    }
    lines = [f"- **{name}**: {text}" for name, text in entries.items()]
    return "\n".join(["# Record of processing: feedback as training data", "", *lines, ""])


def write_record(settings: Settings) -> Path:
    """Write the record to the folder of the exports, readable by its owner only (0600).

    Raises:
        ExportFileError: The record cannot be written.
    """
    path = Path(settings.output_dir) / RECORD
    with explain_write_errors(path.parent):
        make_private_folder(path.parent)
        replace_private_file(path, temporary_path(path.parent, RECORD), render_record(settings).encode())
    return path


def check_record(settings: Settings) -> ChecklistItem:
    """Test that the record exists, is complete and matches the settings."""
    path, remedy = Path(settings.output_dir) / RECORD, "feedback-etl check --write-record"
    if missing := [name for name in _REQUIRED_SETTINGS if not getattr(settings, name)]:
        detail = f"The record of processing lacks {', '.join(missing)}."
        return ChecklistItem("record", False, detail, f"set these in the settings, then {remedy}")
    with explain_read_errors(path.parent):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text == render_record(settings):
        return ChecklistItem("record", True, f"{path} is complete and matches the settings.")
    return ChecklistItem("record", False, f"{path} {'does not match the settings' if text else 'is missing'}.", remedy)
