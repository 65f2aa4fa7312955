"""The record of processing (GDPR, Article 30): filled from the settings, and current while it says what they say."""

from pathlib import Path

from feedback_etl.columns import TRAINING_COLUMNS
from feedback_etl.compliance.item import Item
from feedback_etl.settings import Settings
from feedback_etl.storage.errors import explain_read_errors, explain_write_errors
from feedback_etl.storage.posix import make_private_folder, replace_private_file, temporary_path

RECORD = "processing_record.md"

_TOLD_BY_PEOPLE = ("controller", "contact", "purpose", "legal_basis", "recipients", "retention_days")
_MISSING = "(missing)"


def record_of(settings: Settings) -> str:
    """The text of the record; equal settings give equal texts.

    >>> record_of(Settings(controller="Example Ltd")).splitlines()[2]
    '- **Controller**: Example Ltd'
    """
    told = {name: str(getattr(settings, name) or _MISSING) for name in _TOLD_BY_PEOPLE}
    k = f"rows of fewer than {settings.k} people who share these are left out" if settings.k else "measured"
    times = "exact" if settings.timestamp_precision == "exact" else f"cut down to the {settings.timestamp_precision}"
    facts = {
        "Controller": told["controller"],
        "Contact": told["contact"],
        "Purpose": told["purpose"],
        "Legal basis": told["legal_basis"],
        "Data subjects": "users of the application who gave feedback on a recommendation",
        "Data": f"{', '.join(TRAINING_COLUMNS)}; no names, no user ids, no ages, no free text",
        "Recipients": told["recipients"],
        "Retention": f"{told['retention_days']} days, then removed (feedback-etl prune)",
        "Consent": f"{settings.opt_in_column} and {settings.opt_out_column} of users or profiles, where they are",
        "Pseudonyms": "HMAC-SHA256 of ids under a key that is kept apart from the exports",
        "k-anonymity": f"{k}: {', '.join(settings.quasi_identifiers)}",
        "Times": times,
        "Access": "files 0600 and folders 0700, their owner alone; an audit log that shows tampering",
        "Erasure": "feedback-etl erase, out of every export and every later one",
    }
    lines = [f"- **{name}**: {text}" for name, text in facts.items()]
    return "\n".join(["# Record of processing: feedback as training data", "", *lines, ""])


def write_record(settings: Settings) -> Path:
    """Write the record into the folder of the exports, for its owner alone.

    Raises:
        ExportFileError: It cannot be written.
    """
    path = Path(settings.output_dir) / RECORD
    with explain_write_errors(path.parent):
        make_private_folder(path.parent)
        replace_private_file(path, temporary_path(path.parent, RECORD), record_of(settings).encode())
    return path


def documented(settings: Settings) -> Item:
    """The record is there, complete and current."""
    path, mend = Path(settings.output_dir) / RECORD, "feedback-etl check --write-record"
    if missing := [name for name in _TOLD_BY_PEOPLE if not getattr(settings, name)]:
        told = f"the record of processing lacks {', '.join(missing)}"
        return Item("record", False, told, f"set these in the settings, then {mend}")
    with explain_read_errors(path.parent):
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
    if found == record_of(settings):
        return Item("record", True, f"{path} is complete and current")
    return Item("record", False, f"{path} is {'not what the settings say' if found else 'missing'}", mend)
