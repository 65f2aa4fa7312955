"""Run the pre-production checklist: each item is tested on the actual files and database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from feedback_etl.clock import resolve_now
from feedback_etl.compliance.ages import check_ages
from feedback_etl.compliance.application import check_collisions, check_consent, check_erasure, check_index
from feedback_etl.compliance.application_database import summarize_database
from feedback_etl.compliance.context import CheckContext
from feedback_etl.compliance.data_files import read_contents
from feedback_etl.compliance.edits import check_edits
from feedback_etl.compliance.folder import check_audit_log, check_keys, check_modes, check_retention
from feedback_etl.compliance.item import ChecklistItem
from feedback_etl.compliance.limits import check_limits
from feedback_etl.compliance.raw_ids import check_raw_ids
from feedback_etl.compliance.record import check_record
from feedback_etl.compliance.remedies import SET_DATABASE, Remedies
from feedback_etl.compliance.required_k import check_k
from feedback_etl.compliance.rows import (
    check_columns,
    check_contents,
    check_duplicates,
    check_images,
    check_pseudonyms,
)
from feedback_etl.exports.maintenance import list_exports
from feedback_etl.privacy.keys import Key
from feedback_etl.records.legacy_key_ids import bind_keys
from feedback_etl.settings.model import Settings
from feedback_etl.storage.location import open_storage


class _Test(NamedTuple):
    """A test of the checklist, and what it requires: exports, their data files, or the database."""

    name: str
    run: Callable[[CheckContext], ChecklistItem]
    requires: tuple[str, ...] = ("exports", "files")


_TESTS = (
    _Test("columns", check_columns),
    _Test("pseudonyms", check_pseudonyms),
    _Test("ages", check_ages),
    _Test("images", check_images),
    _Test("contents", check_contents, ("exports",)),
    _Test("keys", check_keys, ("exports",)),
    _Test("duplicates", check_duplicates),
    _Test("modes", check_modes, ("exports",)),
    _Test("retention", check_retention, ("exports",)),
    _Test("audit log", check_audit_log, ()),
    _Test("k", check_k),
    _Test("limits", check_limits, ("exports",)),
    _Test("raw ids", check_raw_ids, ("exports", "files", "database")),
    _Test("erasure", check_erasure, ("exports", "files", "database")),
    _Test("collisions", check_collisions, ("exports", "database")),
    _Test("index", check_index, ("database",)),
    _Test("edits", check_edits, ("exports", "database")),
    _Test("consent", check_consent, ("database",)),
    _Test("record", check_record, ()),
)


def check(settings: Settings, *, keys: Sequence[Key] = (), now: datetime | None = None) -> list[ChecklistItem]:
    """Run the pre-production checklist.

    Args:
        settings: Folder of the exports, database of the feedback, and the requirements.
        keys: Available keys.
        now: Time of the check, UTC; by default the current time.

    Returns:
        The items in a fixed order. Items that need an export or a database are skipped without one.

    Raises:
        SourceError: The database cannot be reached, or has an unexpected schema.
        ExportFileError: A manifest or a data file cannot be read.

    >>> from pathlib import Path
    >>> [item.name for item in check(Settings(output_dir=Path("nowhere"))) if item.passed]
    []
    """
    storage = open_storage(settings.output_dir)
    keys = bind_keys(storage, keys)
    all_exports = list_exports(storage).exports if storage.exists() else []
    exports = [manifest for manifest in all_exports if not manifest.pruned_at]
    context = CheckContext(
        storage=storage,
        remedies=Remedies(settings, bool(keys), bool(keys and all_exports) and all_exports[-1].key_id != keys[0].id),
        exports=exports,
        files=[contents for manifest in exports if (contents := read_contents(storage, manifest))],
        database=summarize_database(settings),
        keys=keys,
        now=resolve_now(now),
    )
    return [_run(test, context) for test in _TESTS]


def _run(test: _Test, context: CheckContext) -> ChecklistItem:
    """Run a test, or skip it if what it requires is missing."""
    export = context.remedies.export()
    lacking = {
        "exports": not context.exports and ("the folder contains no export", export),
        "files": not context.files and ("the data files of the exports are missing", "see contents"),
        "database": context.database is None and ("no database is configured", SET_DATABASE),
    }
    for requirement in test.requires:
        if missing := lacking[requirement]:
            return ChecklistItem(test.name, "skipped", f"Not tested: {missing[0]}.", missing[1])
    return test.run(context)
